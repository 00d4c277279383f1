//! The tile primitive: a contraction as register tiles with its epilogue on the registers.
//!
//! Columns are cut into panels of a few vectors, rows into tiles; a tile keeps all its sums in
//! registers over the whole depth, so that a result is written once. For each step of k the tile
//! loads its panel's vectors and broadcasts one left element a row. Rows that do not fill a tile
//! take smaller tiles: with a known count, tiles of two nearly equal sizes; else a ladder.
//! Where masks are cheap the last columns are one masked tile (a packed panel is padded with zeros,
//! so only its stores need the mask); elsewhere they are done one by one.

mod epilogue;
mod prefetch;

use super::ints::left_operand;
use super::*;
use crate::kernel::{Addr, GOp};

/// Most steps of k in one trip of the inner loop, but for short runs.
const UNROLL_K: i64 = 4;
/// Most rows of a tile where code is to be small: with two vectors, few registers and enough sums in flight.
const LEAST_ROWS: i64 = 4;
/// Sums in flight below which a tile keeps one set of sums for each unrolled step: enough to hide
/// the latency of a multiply-add (4 cycles, two a cycle).
const FEW_SUMS: i64 = 8;

/// Tiles of rows that are assumed where their number is not known.
const SOME_TILES: i64 = 8;
/// Lines of rows that are assumed where their number is not known.
const SOME_LINES: i64 = 8;
/// Bytes of scratch memory, past the kernel's own, in which a tile's sums wait for an epilogue that
/// needs the registers: `MOST_SUMS` vectors of 64 bytes.
pub const TILE_SCRATCH: i64 = 64 * MOST_SUMS;
/// Most vectors of sums in a tile.
const MOST_SUMS: i64 = 32;

/// The columns of one tile.
#[derive(Clone, Copy)]
enum Columns {
    /// This many vectors; the mask of each follows from the count, if any.
    Vectors(i64),
    /// One column, in every lane.
    Single,
}

struct Tile<'c> {
    c: &'c Contract,
    /// First row and first column.
    i: Sym,
    j: Sym,
    /// Rows and tiles of a panel; some number where it is not known.
    rows: i64,
    tiles: i64,
    columns: Columns,
    /// Columns left from `j` on, where the tile may not be full.
    rest: Option<Dim>,
}

/// Tiles that some lines of rows take.
fn tiles_in_lines(lines: i64, line: i64, most: i64) -> i64 {
    match line > most {
        true => lines * ((line + most - 1) / most),
        false => {
            let some = most / line;
            lines / some + lines % some
        }
    }
}

impl Expander<'_> {
    pub(super) fn contract(&mut self, c: &Contract) -> Result<()> {
        if self.vector.is_some() {
            return Err(ExpandError("a contraction inside a vectorised loop".into()));
        }
        let lanes = self.lanes();
        let (from, to) = (self.resolve(&c.cols.0), self.resolve(&c.cols.1));
        let count = to.sub(&from);
        let mut vectors = match self.schedule.tile_vectors {
            0 if self.lanes() == 1 => 4,
            0 => 2,
            n => n as i64,
        };
        if let Some(n) = count.as_const() {
            vectors = vectors.min((n + lanes - 1) / lanes).max(1);
        }
        // A tile lies in one panel.
        if let Some((panel, _)) = &c.b.panel {
            if panel % lanes != 0 {
                return Err(ExpandError(format!(
                    "panels of {panel} columns in `{}`",
                    self.loops.name
                )));
            }
            let single = count.as_const().is_some_and(|n| n <= *panel);
            while !single && panel % (vectors * lanes) != 0 {
                vectors -= 1;
            }
        }
        let width = Dim::Const(vectors * lanes);
        let whole = from.add(&count.floor_div(&width).mul(&width));
        let j = self.fresh_sym();
        if self.target.size == Size::Least && c.b.panel.is_some() {
            // Behind its last column a panel has zeros, and the epilogue takes columns one by one.
            return self.serial(j, &from, &to, vectors * lanes, |e| {
                let left = to.sub(&Dim::from(j)).minimum(&width);
                e.tiles(c, j, Columns::Vectors(vectors), Some(left))
            });
        }
        self.serial(j, &from, &whole, vectors * lanes, |e| {
            e.tiles(c, j, Columns::Vectors(vectors), None)
        })?;
        let rest = to.sub(&whole);
        if rest.is_const(0) {
            return Ok(());
        }
        if !self.target.masks {
            return self.serial(j, &whole, &to, 1, |e| e.tiles(c, j, Columns::Single, None));
        }
        let guarded = rest.as_const().is_none();
        let vectors = rest.as_const().map_or(vectors, |n| (n + lanes - 1) / lanes);
        if guarded {
            self.open(true);
        }
        self.once(j, whole, |e| {
            e.tiles(c, j, Columns::Vectors(vectors), Some(rest.clone()))
        })?;
        if guarded {
            let then = self.close();
            let a = self.int_reg(&rest)?;
            self.emit(Inst::If {
                cmp: kernel::GCmp::Gt,
                a,
                b: Int::Imm(0),
                then,
                otherwise: Vec::new(),
            });
        }
        Ok(())
    }

    pub(super) fn fresh_sym(&mut self) -> Sym {
        self.syms.push(None);
        Sym(self.syms.len() as u32 - 1)
    }

    /// All rows of one panel.
    fn tiles(&mut self, c: &Contract, j: Sym, columns: Columns, rest: Option<Dim>) -> Result<()> {
        let vectors = match columns {
            Columns::Vectors(v) => v,
            Columns::Single => 1,
        };
        // All sums, the panel's vectors, one left element, one register for the emitter.
        let registers = self.target.vector_registers as i64;
        let mut most = match self.schedule.tile_rows {
            0 => ((registers - vectors - 2) / vectors).clamp(1, 14),
            n => n as i64,
        };
        let ladder: &[i64] = match self.target.size {
            Size::Fast => &[8, 4, 2, 1],
            Size::Lean => &[8, 2, 1],
            Size::Least => &[1],
        };
        if self.target.size == Size::Least {
            most = most.min(LEAST_ROWS);
        }
        let (from, to) = (self.resolve(&c.rows.0), self.resolve(&c.rows.1));
        let i = self.fresh_sym();
        let line = left_operand(&c.a_at, c.row, c.k)
            .and_then(|l| l.lines)
            .map(|l| l.length);
        let count = to.sub(&from);
        let tiles = match (line, count.as_const()) {
            (Some(line), _) => {
                let lines = count.as_const().map_or(SOME_LINES, |c| c / line);
                tiles_in_lines(lines, line, most)
            }
            (None, Some(rows)) => (rows + most - 1) / most,
            (None, None) => SOME_TILES,
        };
        let tile = Tile {
            c,
            i,
            j,
            rows: count.as_const().unwrap_or(tiles * most),
            tiles,
            columns,
            rest,
        };
        if let Some(line) = line {
            return self.tiles_of_lines(&tile, line, most, &from, &to);
        }
        if let Some(rows) = count.as_const() {
            return self.equal_tiles(&tile, rows, most, &from);
        }
        let mut at = from;
        let mut size = most;
        loop {
            let step = Dim::Const(size);
            let next = at.add(&to.sub(&at).floor_div(&step).mul(&step));
            self.serial(i, &at, &next, size, |e| e.tile(&tile, size))?;
            if size == 1 {
                return Ok(());
            }
            at = next;
            size = ladder.iter().copied().find(|s| *s < size).unwrap_or(1);
        }
    }

    /// A known number of rows from `from` on, in tiles of two nearly equal sizes; where code is to be small, in the
    /// largest tiles and single rows.
    fn equal_tiles(&mut self, t: &Tile, rows: i64, most: i64, from: &Dim) -> Result<()> {
        if rows <= 0 {
            return Ok(());
        }
        let to = from.add(&Dim::Const(rows));
        if self.target.size == Size::Least {
            let middle = from.add(&Dim::Const(rows / most * most));
            self.serial(t.i, from, &middle, most, |e| e.tile(t, most))?;
            return self.serial(t.i, &middle, &to, 1, |e| e.tile(t, 1));
        }
        let tiles = (rows + most - 1) / most;
        let (least, longer) = (rows / tiles, rows % tiles);
        let middle = from.add(&Dim::Const(longer * (least + 1)));
        self.serial(t.i, from, &middle, least + 1, |e| e.tile(t, least + 1))?;
        self.serial(t.i, &middle, &to, least, |e| e.tile(t, least))
    }

    /// Rows in lines: a tile is some whole lines, or a part of one.
    fn tiles_of_lines(
        &mut self,
        t: &Tile,
        line: i64,
        most: i64,
        from: &Dim,
        to: &Dim,
    ) -> Result<()> {
        if line > most {
            let start = self.fresh_sym();
            return self.serial(start, from, to, line, |e| {
                e.equal_tiles(t, line, most, &Dim::from(start))
            });
        }
        let some = most / line * line;
        let count = to.sub(from).floor_div(&Dim::Const(some));
        let middle = from.add(&count.mul(&Dim::Const(some)));
        self.serial(t.i, from, &middle, some, |e| e.tile(t, some))?;
        match some == line {
            true => Ok(()),
            false => self.serial(t.i, &middle, to, line, |e| e.tile(t, line)),
        }
    }

    /// One tile: zeroed sums, the loop over k, the epilogue.
    fn tile(&mut self, t: &Tile, rows: i64) -> Result<()> {
        let c = t.c;
        let vectors = match t.columns {
            Columns::Vectors(v) => v,
            Columns::Single => 1,
        };
        let (i, j) = (Dim::from(t.i), Dim::from(t.j));
        let Some(left) = left_operand(&c.a_at, c.row, c.k) else {
            return Err(ExpandError(format!(
                "the left operand of `{}` is not linear in its row or its depth",
                self.loops.name
            )));
        };
        let (row_stride, k_step) = (self.resolve(&left.row_stride), left.k_step);
        let a_first = c.a_at.substitute(&|s| match s {
            s if s == c.row => Some(i.clone()),
            s if s == c.k => Some(Dim::Const(0)),
            _ => None,
        });
        let b_first = c.b.base.add(&match &c.b.panel {
            Some((width, stride)) => {
                let w = Dim::Const(*width);
                let j = self.resolve(&j);
                j.floor_div(&w).mul(stride).add(&j.modulo(&w))
            }
            None => j.clone(),
        });
        let packed = c.b.panel.is_some();
        let whole = self.resolve(&c.depth);
        // Without runs the whole depth is one.
        let (depth, runs) = match &left.runs {
            None => (whole, 1),
            Some(runs) => match whole.as_const() {
                Some(0) => (whole, 1),
                Some(k) if k % runs.length == 0 => (Dim::Const(runs.length), k / runs.length),
                _ => {
                    return Err(ExpandError(format!(
                        "the depth of `{}` is not a multiple of its runs",
                        self.loops.name
                    )));
                }
            },
        };
        let b_stride = self.resolve(&c.b.k_stride);

        let room = (self.target.vector_registers as i64 - vectors - 2) / (rows * vectors);
        let sets = match rows * vectors {
            _ if self.target.size == Size::Least => 1,
            sums if sums >= FEW_SUMS || room < 2 => 1,
            _ if room < UNROLL_K => 2,
            _ => UNROLL_K,
        };
        let unroll = match self.target.size {
            Size::Fast => UNROLL_K,
            Size::Lean => sets.max(2),
            Size::Least => 1,
        };
        let scope = self.depth();
        let mut sums = Vec::new();
        for _ in 0..sets * rows * vectors {
            let r = self.out.reg(Class::Vec(Elem::F32));
            self.emit(Inst::VConst { dst: r, bits: 0 });
            self.depths.insert(r, scope);
            sums.push(r);
        }
        let sum = |set: i64, r: i64, v: i64| sums[((set % sets * rows + r) * vectors + v) as usize];

        let masks: Vec<Option<Reg>> = match &t.rest {
            Some(rest) if self.target.size != Size::Least => {
                let lanes = self.lanes();
                let mut m = Vec::new();
                for v in 0..vectors {
                    let left = rest.sub(&Dim::Const(v * lanes));
                    let full = left.as_const().is_some_and(|n| n >= lanes);
                    m.push(if full {
                        None
                    } else {
                        Some(self.count_mask(&left)?)
                    });
                }
                m
            }
            _ => vec![None; vectors as usize],
        };

        // Left rows: displacements from one pointer when the stride is known, else a moving pointer
        // for every three rows, reached by the stride and twice the stride.
        let a0 = self.full_pointer(c.a, &a_first)?;
        let lines = left
            .lines
            .as_ref()
            .and_then(|l| Some((l.length, l.jump.as_const()?)));
        let near = row_stride
            .as_const()
            .and_then(|s| {
                let jumps = lines.map_or(0, |(length, jump)| rows / length * jump);
                s.checked_mul(rows)?
                    .checked_add(jumps)?
                    .checked_mul(4)?
                    .checked_add(k_step.checked_mul(8 * UNROLL_K)?)
            })
            .is_some_and(|b| b.abs() < i32::MAX as i64 / 2);
        if !near && left.lines.is_some() {
            return Err(ExpandError(format!(
                "the lines of the left operand of `{}` lie too far apart",
                self.loops.name
            )));
        }
        // What a pointer has left to go from the end of a run to the start of the next.
        let mut onward = match (&left.runs, near) {
            (Some(r), true) => r.jump.add(&Dim::Const(r.length * k_step)),
            (Some(r), false) => r.jump.clone(),
            (None, _) => Dim::Const(0),
        };
        onward = onward.mul(&Dim::Const(4));
        let onward = if runs > 1 {
            Some(match self.resolve(&onward).as_const() {
                Some(c) if c.abs() < i32::MAX as i64 => Int::Imm(c),
                _ => Int::Reg(self.int_reg(&onward)?),
            })
        } else {
            None
        };
        let mut a_moving = Vec::new();
        let mut stride_bytes = None;
        let a_base = match onward {
            Some(_) if near => {
                let p = self.out.reg(Class::Gpr);
                self.emit(Inst::GSet {
                    dst: p,
                    src: Int::Reg(a0),
                });
                p
            }
            _ => a0,
        };
        if !near {
            let s = self.int_reg(&row_stride.mul(&Dim::Const(4)))?;
            let s3 = self.int_reg(&row_stride.mul(&Dim::Const(12)))?;
            let mut last = a0;
            for g in 0..(rows + 2) / 3 {
                let p = self.out.reg(Class::Gpr);
                self.emit(match g {
                    0 => Inst::GSet {
                        dst: p,
                        src: Int::Reg(a0),
                    },
                    _ => Inst::GBin {
                        op: GOp::Add,
                        dst: p,
                        a: last,
                        b: Int::Reg(s3),
                    },
                });
                last = p;
                a_moving.push(p);
            }
            stride_bytes = Some(s);
        }
        let b0 = self.full_pointer(c.b.buf, &b_first)?;
        let b = self.out.reg(Class::Gpr);
        self.emit(Inst::GSet {
            dst: b,
            src: Int::Reg(b0),
        });
        let b_bytes = match b_stride.mul(&Dim::Const(4)).as_const() {
            Some(s)
                if s.checked_mul(2 * UNROLL_K)
                    .is_some_and(|s| s < i32::MAX as i64 / 2) =>
            {
                Int::Imm(s)
            }
            _ => Int::Reg(self.int_reg(&b_stride.mul(&Dim::Const(4)))?),
        };

        let ahead = self.ahead(t, vectors, &b_first, unroll)?;

        // A short run is one step of the loop.
        let asks = unroll;
        let unroll = match depth.as_const() {
            Some(k) if runs > 1 && k < 2 * unroll => k,
            _ => unroll,
        };
        let unrolled = depth
            .floor_div(&Dim::Const(unroll))
            .mul(&Dim::Const(unroll));
        let parts = [
            (Dim::Const(0), unrolled.clone(), unroll),
            (unrolled, depth, 1),
        ];
        if runs > 1 {
            self.open(false);
        }
        for (from, to, steps) in parts {
            if to.sub(&from).as_const().is_some_and(|n| n <= 0) {
                continue;
            }
            let (f, e) = (
                self.int(&from.mul(&Dim::Const(k_step)))?,
                self.int(&to.mul(&Dim::Const(k_step)))?,
            );
            let kk = self.out.reg(Class::Gpr);
            let mut body = Vec::new();
            for u in 0..steps {
                let mut panel = Vec::new();
                for v in 0..vectors {
                    let dst = self.out.reg(Class::Vec(Elem::F32));
                    let disp =
                        v * self.lanes() * 4 + if let Int::Imm(s) = b_bytes { u * s } else { 0 };
                    let addr = Addr::base(b).with_disp(disp as i32);
                    let mask = if packed { None } else { masks[v as usize] };
                    body.push(match t.columns {
                        Columns::Vectors(_) => Inst::VLoad {
                            dst,
                            mem: Mem::F32,
                            addr,
                            mask,
                        },
                        Columns::Single => Inst::VSplat {
                            dst,
                            mem: Mem::F32,
                            addr,
                        },
                    });
                    panel.push(dst);
                }
                if let Int::Reg(_) = b_bytes {
                    body.push(Inst::GBin {
                        op: GOp::Add,
                        dst: b,
                        a: b,
                        b: b_bytes,
                    });
                }
                for r in 0..rows {
                    let k_disp = u * k_step * 4;
                    let addr = match stride_bytes {
                        None => {
                            let s = row_stride.as_const().unwrap_or(0);
                            // A tile begins with a line or lies in one.
                            let line = lines.map_or(0, |(length, jump)| r / length * jump);
                            Addr {
                                base: a_base,
                                index: Some((kk, 4)),
                                disp: ((r * s + line) * 4 + k_disp) as i32,
                            }
                        }
                        Some(s) => Addr {
                            base: a_moving[(r / 3) as usize],
                            index: [None, Some((s, 1)), Some((s, 2))][(r % 3) as usize],
                            disp: k_disp as i32,
                        },
                    };
                    let left = self.out.reg(Class::Vec(Elem::F32));
                    body.push(Inst::VSplat {
                        dst: left,
                        mem: Mem::F32,
                        addr,
                    });
                    for (v, p) in panel.iter().enumerate() {
                        let acc = sum(u, r, v as i64);
                        body.push(Inst::VFma {
                            dst: acc,
                            a: left,
                            b: *p,
                            c: acc,
                        });
                    }
                }
            }
            if let Some(h) = ahead.as_ref().filter(|_| steps == asks) {
                for n in 0..h.hints {
                    body.push(Inst::Prefetch {
                        addr: Addr::base(h.at).with_disp((n * h.pitch) as i32),
                        level: 1,
                    });
                }
                body.push(Inst::GBin {
                    op: GOp::Add,
                    dst: h.at,
                    a: h.at,
                    b: Int::Imm(h.hints * h.pitch),
                });
            }
            if let Int::Imm(s) = b_bytes {
                body.push(Inst::GBin {
                    op: GOp::Add,
                    dst: b,
                    a: b,
                    b: Int::Imm(s * steps),
                });
            }
            for p in &a_moving {
                body.push(Inst::GBin {
                    op: GOp::Add,
                    dst: *p,
                    a: *p,
                    b: Int::Imm(4 * k_step * steps),
                });
            }
            self.emit(Inst::Loop {
                var: kk,
                from: f,
                to: e,
                step: k_step * steps,
                body,
            });
        }
        if let Some(onward) = onward {
            let pointers = if near { &[a_base][..] } else { &a_moving[..] };
            for p in pointers {
                self.emit(Inst::GBin {
                    op: GOp::Add,
                    dst: *p,
                    a: *p,
                    b: onward,
                });
            }
            let body = self.close();
            let run = self.out.reg(Class::Gpr);
            self.emit(Inst::Loop {
                var: run,
                from: Int::Imm(0),
                to: Int::Imm(runs),
                step: 1,
                body,
            });
        }
        for set in 1..sets {
            for r in 0..rows {
                for v in 0..vectors {
                    let (into, from) = (sum(0, r, v), sum(set, r, v));
                    self.emit(Inst::VBin {
                        op: VBin::Add,
                        dst: into,
                        a: into,
                        b: from,
                    });
                }
            }
        }

        self.finish(t, rows, &sums, &masks)?;
        self.syms[c.row.0 as usize] = None;
        self.syms[c.col.0 as usize] = None;
        Ok(())
    }

    /// The address of `buf[at]` in one register.
    fn full_pointer(&mut self, buf: Buf, at: &Dim) -> Result<Reg> {
        let bytes = self.loops.buffers[buf.0 as usize].mem.bytes() as i64;
        let at = self.resolve(at).mul(&Dim::Const(bytes));
        self.pointer(buf, &at)
    }
}
