//! Integer expressions and addresses, in general registers.
//!
//! A sum is split by the scopes in which its terms are known: the part of the outer scopes is
//! computed there, once, and each scope adds its own terms. Products likewise.

use super::*;
use crate::kernel::{Addr, GOp};
use lapidary_graph::Atom;

impl Expander<'_> {
    /// The expression with aliased symbols replaced.
    pub(super) fn resolve(&self, d: &Dim) -> Dim {
        if d.as_const().is_some() {
            return d.clone();
        }
        let mut aliased = false;
        for_each_sym(d, &mut |s| {
            aliased |= matches!(self.syms.get(s.0 as usize), Some(Some(Bound::Alias(_))))
        });
        if !aliased {
            return d.clone();
        }
        let once = d.substitute(&|s| match self.syms.get(s.0 as usize) {
            Some(Some(Bound::Alias(a))) => Some(a.clone()),
            _ => None,
        });
        self.resolve(&once)
    }

    /// Innermost scope that binds a symbol of the expression.
    pub(super) fn dim_depth(&self, d: &Dim) -> Result<usize> {
        match d {
            Dim::Const(_) => Ok(0),
            Dim::Sum(s) => self.depth_of(s.terms.iter().flat_map(|t| &t.0)),
        }
    }

    /// Innermost scope that binds a symbol of the atoms.
    fn depth_of<'d>(&self, atoms: impl IntoIterator<Item = &'d Atom>) -> Result<usize> {
        let mut depth = 0;
        let mut unbound = None;
        let mut visit = |s: Sym| match self.syms.get(s.0 as usize) {
            Some(Some(Bound::Reg(_, at))) => depth = depth.max(*at),
            Some(Some(Bound::Alias(_))) => {}
            _ => unbound = Some(s),
        };
        for atom in atoms {
            each_sym_of(atom, &mut visit);
        }
        match unbound {
            Some(s) => Err(ExpandError(format!(
                "symbol s{} is used outside its loop in `{}`",
                s.0, self.loops.name
            ))),
            None => Ok(depth),
        }
    }

    pub(super) fn int(&mut self, d: &Dim) -> Result<Int> {
        let d = self.resolve(d);
        match d.as_const() {
            Some(c) => Ok(Int::Imm(c)),
            None => self.sum(&d).map(Int::Reg),
        }
    }

    pub(super) fn int_reg(&mut self, d: &Dim) -> Result<Reg> {
        match self.int(d)? {
            Int::Reg(r) => Ok(r),
            Int::Imm(c) => {
                Ok(
                    self.number(0, Key::Int(Dim::Const(c)), Class::Gpr, |dst| Inst::GSet {
                        dst,
                        src: Int::Imm(c),
                    }),
                )
            }
        }
    }

    fn gbin(&mut self, depth: usize, op: GOp, a: Reg, b: Int) -> Reg {
        let dst = self.out.reg(Class::Gpr);
        self.push(depth, Inst::GBin { op, dst, a, b });
        dst
    }

    /// A resolved expression with at least one term.
    fn sum(&mut self, d: &Dim) -> Result<Reg> {
        let depth = self.dim_depth(d)?;
        let key = Key::Int(d.clone());
        if let Some(r) = self.known(depth, &key) {
            return Ok(r);
        }
        let Dim::Sum(s) = d else {
            return self.int_reg(d);
        };
        let placed = self.placed(depth);
        let mut outer = Dim::Const(s.constant);
        let mut here = Vec::new();
        for (atoms, c) in &s.terms {
            if self.depth_of(atoms)? < depth {
                outer = outer.add(&product(atoms, *c))
            } else {
                here.push((atoms, *c))
            }
        }
        let mut total: Option<Reg> = None;
        for (atoms, c) in here {
            let t = self.term(atoms, c, depth)?;
            total = Some(match total {
                Some(r) => self.gbin(placed, GOp::Add, r, Int::Reg(t)),
                None => t,
            });
        }
        let reg = match (total, outer.as_const()) {
            (Some(r), Some(0)) => r,
            (Some(r), Some(c)) => self.gbin(placed, GOp::Add, r, Int::Imm(c)),
            (Some(r), None) => {
                let o = self.sum(&outer)?;
                self.gbin(placed, GOp::Add, o, Int::Reg(r))
            }
            (None, _) => self.int_reg(&outer)?,
        };
        self.scopes[placed].known.insert(key, reg);
        Ok(reg)
    }

    /// `c * atoms…`, where some atom is known at `depth` only.
    fn term(&mut self, atoms: &[Atom], c: i64, depth: usize) -> Result<Reg> {
        let key = Key::Int(product(atoms, c));
        if let Some(r) = self.known(depth, &key) {
            return Ok(r);
        }
        let placed = self.placed(depth);
        let (mut outer, mut inner) = (Vec::new(), Vec::new());
        for a in atoms {
            let part = if self.depth_of([a])? < depth {
                &mut outer
            } else {
                &mut inner
            };
            part.push(a.clone());
        }
        let mut total: Option<Reg> = None;
        for a in &inner {
            let r = self.atom(a, depth)?;
            total = Some(match total {
                Some(t) => self.gbin(placed, GOp::Mul, t, Int::Reg(r)),
                None => r,
            });
        }
        let total = total.ok_or_else(|| ExpandError("empty product".into()))?;
        let reg = match self.int(&product(&outer, c))? {
            Int::Imm(1) => total,
            f => self.gbin(placed, GOp::Mul, total, f),
        };
        self.scopes[placed].known.insert(key, reg);
        Ok(reg)
    }

    fn atom(&mut self, a: &Atom, depth: usize) -> Result<Reg> {
        if let Atom::Sym(s) = a {
            return match self.syms[s.0 as usize] {
                Some(Bound::Reg(r, _)) => Ok(r),
                _ => Err(ExpandError(format!("symbol s{} has no register", s.0))),
            };
        }
        let key = Key::Int(product(std::slice::from_ref(a), 1));
        if let Some(r) = self.known(depth, &key) {
            return Ok(r);
        }
        let reg = self.operation(a, depth)?;
        let placed = self.placed(depth);
        self.scopes[placed].known.insert(key, reg);
        Ok(reg)
    }

    fn operation(&mut self, a: &Atom, depth: usize) -> Result<Reg> {
        let depth = self.placed(depth);
        let two = |e: &mut Self, op, x: &Dim, y: &Dim| -> Result<Reg> {
            let x = e.int_reg(x)?;
            let y = e.int(y)?;
            Ok(e.gbin(depth, op, x, y))
        };
        match a {
            Atom::Sym(_) => self.atom(a, depth),
            Atom::FloorDiv(x, y) => two(self, GOp::FloorDiv, x, y),
            // A division by a constant is a product, and its quotient is often wanted as well.
            Atom::Mod(x, y) if y.as_const().is_some_and(|c| c > 2 && c & (c - 1) != 0) => {
                let (x, q, c) = (
                    self.int_reg(x)?,
                    self.int_reg(&x.floor_div(y))?,
                    self.int(y)?,
                );
                let whole = self.gbin(depth, GOp::Mul, q, c);
                Ok(self.gbin(depth, GOp::Sub, x, Int::Reg(whole)))
            }
            Atom::Mod(x, y) => two(self, GOp::FloorMod, x, y),
            Atom::Min(x, y) => two(self, GOp::Min, x, y),
            Atom::Max(x, y) => two(self, GOp::Max, x, y),
            Atom::CeilDiv(x, y) => {
                let q = two(self, GOp::FloorDiv, &x.neg(), y)?;
                Ok(self.gbin(depth, GOp::Mul, q, Int::Imm(-1)))
            }
            Atom::Broadcast(x, y) => {
                let (x, y) = (self.int_reg(x)?, self.int(y)?);
                let dst = self.out.reg(Class::Gpr);
                self.push(
                    depth,
                    Inst::GSet {
                        dst,
                        src: Int::Reg(x),
                    },
                );
                let then = vec![Inst::GSet { dst, src: y }];
                self.push(
                    depth,
                    Inst::If {
                        cmp: kernel::GCmp::Eq,
                        a: x,
                        b: Int::Imm(1),
                        then,
                        otherwise: Vec::new(),
                    },
                );
                Ok(dst)
            }
        }
    }

    /// The address of a buffer's first element.
    pub(super) fn buffer_base(&mut self, buf: Buf) -> Result<Reg> {
        let key = Key::BufferBase(buf);
        if let Some(r) = self.scopes[0].known.get(&key) {
            return Ok(*r);
        }
        let r = match self.loops.buffers[buf.0 as usize].kind.clone() {
            BufferKind::Input(i) | BufferKind::Output(i) => {
                let dst = self.out.reg(Class::Gpr);
                let addr = Addr::base(kernel::BUFFERS).with_disp(i as i32 * 8);
                self.push(
                    0,
                    Inst::GLoad {
                        dst,
                        mem: Mem::I64,
                        addr,
                    },
                );
                dst
            }
            BufferKind::Scratch { offset } => {
                let base = self.out.reg(Class::Gpr);
                self.push(
                    0,
                    Inst::GLoad {
                        dst: base,
                        mem: Mem::I64,
                        addr: Addr::base(kernel::WORKER),
                    },
                );
                match self.int(&offset)? {
                    Int::Imm(0) => base,
                    o => self.gbin(0, GOp::Add, base, o),
                }
            }
        };
        self.scopes[0].known.insert(key, r);
        Ok(r)
    }

    /// The address of a byte of scratch memory.
    pub(super) fn scratch_at(&mut self, offset: &Dim) -> Result<Reg> {
        let base = self.number(0, Key::ScratchBase, Class::Gpr, |dst| Inst::GLoad {
            dst,
            mem: Mem::I64,
            addr: Addr::base(kernel::WORKER).with_disp(kernel::WORKER_SCRATCH),
        });
        Ok(match self.int(offset)? {
            Int::Imm(0) => base,
            o => self.gbin(0, GOp::Add, base, o),
        })
    }

    /// The address of `buf[at]`: a pointer known as far out as possible, at most one scaled index,
    /// and the constant as displacement.
    pub(super) fn address(&mut self, buf: Buf, at: &Dim) -> Result<Addr> {
        let at = self.resolve(at);
        let bytes = self.loops.buffers[buf.0 as usize].mem.bytes() as i64;
        let (terms, constant) = match &at {
            Dim::Const(c) => (&[][..], *c),
            Dim::Sum(s) => (&s.terms[..], s.constant),
        };
        let depth = self.dim_depth(&at)?;
        let (mut outer, mut here) = (Dim::Const(0), Vec::new());
        for (atoms, c) in terms {
            if self.depth_of(atoms)? < depth {
                outer = outer.add(&product(atoms, *c))
            } else {
                here.push((atoms, *c))
            }
        }
        let disp = constant
            .checked_mul(bytes)
            .and_then(|d| i32::try_from(d).ok());
        let (disp, extra) = match disp {
            Some(d) => (d, 0),
            None => (0, constant),
        };
        // One term of the innermost scope rides on the scaled index.
        let mut index = None;
        if let [(atoms, c)] = here[..]
            && depth > 0
            && let scale @ (1 | 2 | 4 | 8) = c * bytes
        {
            let r = match self.int(&product(atoms, 1))? {
                Int::Reg(r) => r,
                Int::Imm(_) => return Err(ExpandError("a term without symbols".into())),
            };
            index = Some((r, scale as u8));
        } else {
            for (atoms, c) in here {
                outer = outer.add(&product(atoms, c));
            }
        }
        outer = outer.add(&Dim::Const(extra));
        let base = self.pointer(buf, &outer.mul(&Dim::Const(bytes)))?;
        Ok(Addr { base, index, disp })
    }

    /// `base(buf) + offset` in bytes, summed scope by scope.
    pub(super) fn pointer(&mut self, buf: Buf, offset: &Dim) -> Result<Reg> {
        if offset.is_const(0) {
            return self.buffer_base(buf);
        }
        let depth = self.dim_depth(offset)?;
        let key = Key::Pointer(buf, offset.clone());
        if let Some(r) = self.known(depth, &key) {
            return Ok(r);
        }
        let placed = self.placed(depth);
        let (mut outer, mut here) = (Dim::Const(0), Dim::Const(0));
        match offset {
            Dim::Const(c) => here = Dim::Const(*c),
            Dim::Sum(s) => {
                for (atoms, c) in &s.terms {
                    let t = product(atoms, *c);
                    if self.depth_of(atoms)? < depth {
                        outer = outer.add(&t)
                    } else {
                        here = here.add(&t)
                    }
                }
                outer = outer.add(&Dim::Const(s.constant));
            }
        }
        let base = self.pointer(buf, &outer)?;
        let add = self.int(&here)?;
        let r = self.gbin(placed, GOp::Add, base, add);
        self.scopes[placed].known.insert(key, r);
        Ok(r)
    }
}

/// `c * atoms…` as a dimension.
pub(super) fn product(atoms: &[Atom], c: i64) -> Dim {
    if c == 0 {
        return Dim::Const(0);
    }
    if atoms.is_empty() {
        return Dim::Const(c);
    }
    Dim::term(atoms.iter().cloned().collect(), c)
}

/// Calls `f` for every symbol of an expression.
pub fn for_each_sym(d: &Dim, f: &mut dyn FnMut(Sym)) {
    if let Dim::Sum(s) = d {
        for atom in s.terms.iter().flat_map(|t| &t.0) {
            each_sym_of(atom, f);
        }
    }
}

fn each_sym_of(atom: &Atom, f: &mut dyn FnMut(Sym)) {
    match atom {
        Atom::Sym(s) => f(*s),
        Atom::FloorDiv(x, y)
        | Atom::CeilDiv(x, y)
        | Atom::Mod(x, y)
        | Atom::Min(x, y)
        | Atom::Max(x, y)
        | Atom::Broadcast(x, y) => {
            for_each_sym(x, f);
            for_each_sym(y, f);
        }
    }
}

/// The factor of a symbol in an expression that is linear in it; `None` where it is not linear.
pub fn factor(d: &Dim, var: Sym) -> Option<Dim> {
    let mut total = Dim::Const(0);
    if let Dim::Sum(s) = d {
        for (atoms, c) in &s.terms {
            let mut times = 0;
            for a in atoms {
                each_sym_of(a, &mut |s| times += usize::from(s == var));
            }
            let at = atoms.iter().position(|a| *a == Atom::Sym(var));
            match (times, at) {
                (0, _) => {}
                (1, Some(i)) => {
                    let mut rest = atoms.clone();
                    rest.remove(i);
                    total = total.add(&product(&rest, *c));
                }
                _ => return None,
            }
        }
    }
    Some(total)
}

/// The left operand of a contraction: how far apart its rows and its steps of the depth lie, in elements, and where
/// either is cut into runs.
pub(crate) struct Left {
    pub row_stride: Dim,
    pub k_step: i64,
    /// Rows of one run are those of a line of an image, say.
    pub lines: Option<Runs>,
    pub runs: Option<Runs>,
}

/// Rows or a depth cut into runs of equal length; from the end of one to the start of the next is a jump.
pub struct Runs {
    pub length: i64,
    pub jump: Dim,
}

/// Reads an index that is linear in `row`, linear in `k` with a constant positive factor, and perhaps linear in
/// `floordiv(row, length)` and in `floordiv(k, length)`; `None` for any other.
pub(crate) fn left_operand(at: &Dim, row: Sym, k: Sym) -> Option<Left> {
    let mut plain = at.clone();
    let (mut lines, mut runs) = (None, None);
    for (var, cut) in [(row, &mut lines), (k, &mut runs)] {
        let rest = take_runs(&plain, var, [row, k], cut)?;
        plain = rest;
    }
    Some(Left {
        row_stride: factor(&plain, row)?,
        k_step: factor(&plain, k)?.as_const().filter(|f| *f > 0)?,
        lines,
        runs,
    })
}

/// Takes the terms with `floordiv(var, length)` out of an index; `None` if they have several lengths, or one of
/// `free` beside it.
fn take_runs(at: &Dim, var: Sym, free: [Sym; 2], cut: &mut Option<Runs>) -> Option<Dim> {
    let Dim::Sum(s) = at else {
        return Some(at.clone());
    };
    let run_length = |atom: &Atom| match atom {
        Atom::FloorDiv(a, b) if a.as_sym() == Some(var) => b.as_const().filter(|b| *b > 0),
        _ => None,
    };
    let mut plain = Dim::Const(s.constant);
    for (atoms, c) in &s.terms {
        let Some((i, length)) = atoms
            .iter()
            .enumerate()
            .find_map(|(i, a)| Some((i, run_length(a)?)))
        else {
            plain = plain.add(&product(atoms, *c));
            continue;
        };
        let mut rest = atoms.clone();
        rest.remove(i);
        let rest = product(&rest, *c);
        let mut again = false;
        for_each_sym(&rest, &mut |s| again |= free.contains(&s));
        let runs = cut.get_or_insert(Runs {
            length,
            jump: Dim::Const(0),
        });
        if again || runs.length != length {
            return None;
        }
        runs.jump = runs.jump.add(&rest);
    }
    Some(plain)
}
