//! The epilogue of a contraction: on the registers that hold a tile's sums, where enough are left; else out of scratch
//! memory, a vector or, where code is to be small, an element at a time.

use super::*;

impl Expander<'_> {
    /// What becomes of the sums of a tile of so many rows; those behind the first set are of no use any more.
    pub(super) fn finish(
        &mut self,
        t: &Tile,
        rows: i64,
        sums: &[Reg],
        masks: &[Option<Reg>],
    ) -> Result<()> {
        let (c, i, scope) = (t.c, Dim::from(t.i), self.depth());
        let vectors = match t.columns {
            Columns::Vectors(v) => v,
            Columns::Single => 1,
        };
        // What the epilogue reads is loaded here and not further out: a register held across the loop
        // over k would be one sum less.
        let guarded = std::mem::replace(&mut self.scopes[scope].guarded, true);
        // With 16 registers a tile leaves too few for any epilogue.
        let scarce = self.target.masks && self.target.vector_registers <= 16;
        if self.target.size == Size::Least && (rows > 1 || matches!(t.columns, Columns::Vectors(_)))
        {
            self.epilogue_of_each(t, rows, sums)?;
        } else if (scarce || self.is_heavy(&c.epilogue)) && rows * vectors > 2 {
            let place = self.loops.scratch_bytes.clone();
            let base = self.scratch_at(&place)?;
            let bytes = self.lanes() * 4;
            for (n, acc) in sums.iter().take((rows * vectors) as usize).enumerate() {
                self.emit(Inst::VStore {
                    src: *acc,
                    mem: Mem::F32,
                    addr: Addr::base(base).with_disp((n as i64 * bytes) as i32),
                    mask: None,
                });
            }
            let at = self.fresh_sym();
            self.serial(at, &Dim::Const(0), &Dim::Const(rows), 1, |e| {
                let offset = e.int_reg(&Dim::from(at).mul(&Dim::Const(vectors * bytes)))?;
                for v in 0..vectors {
                    let acc = e.out.reg(Class::Vec(Elem::F32));
                    let addr = Addr {
                        base,
                        index: Some((offset, 1)),
                        disp: (v * bytes) as i32,
                    };
                    e.emit(Inst::VLoad {
                        dst: acc,
                        mem: Mem::F32,
                        addr,
                        mask: None,
                    });
                    let depth = e.depth();
                    e.depths.insert(acc, depth);
                    e.scopes[depth].guarded = true;
                    e.epilogue(t, i.add(&Dim::from(at)), v, acc, masks[v as usize])?;
                }
                Ok(())
            })?;
        } else {
            for r in 0..rows {
                for v in 0..vectors {
                    self.epilogue(
                        t,
                        i.add(&Dim::Const(r)),
                        v,
                        sums[(r * vectors + v) as usize],
                        masks[v as usize],
                    )?;
                }
            }
        }
        self.scopes[scope].guarded = guarded;
        Ok(())
    }

    /// The epilogue of a tile's elements, one by one out of memory.
    fn epilogue_of_each(&mut self, t: &Tile, rows: i64, sums: &[Reg]) -> Result<()> {
        let place = self.loops.scratch_bytes.clone();
        let base = self.scratch_at(&place)?;
        let bytes = self.lanes() * 4;
        for (n, acc) in sums.iter().enumerate() {
            self.emit(Inst::VStore {
                src: *acc,
                mem: Mem::F32,
                addr: Addr::base(base).with_disp((n as i64 * bytes) as i32),
                mask: None,
            });
        }
        let (vectors, columns) = match t.columns {
            Columns::Vectors(v) => (v, v * self.lanes()),
            Columns::Single => (1, 1),
        };
        let columns = t.rest.clone().unwrap_or(Dim::Const(columns));
        let (row, column) = (self.fresh_sym(), self.fresh_sym());
        self.serial(row, &Dim::Const(0), &Dim::Const(rows), 1, |e| {
            e.serial(column, &Dim::Const(0), &columns, 1, |e| {
                let at = Dim::from(row).mul(&Dim::Const(vectors * bytes));
                let at = e.int_reg(&at.add(&Dim::from(column).mul(&Dim::Const(4))))?;
                let acc = e.out.reg(Class::Vec(Elem::F32));
                e.emit(Inst::VSplat {
                    dst: acc,
                    mem: Mem::F32,
                    addr: Addr {
                        base,
                        index: Some((at, 1)),
                        disp: 0,
                    },
                });
                let depth = e.depth();
                e.depths.insert(acc, depth);
                e.scopes[depth].guarded = true;
                let (i, j) = (Dim::from(t.i), Dim::from(t.j));
                e.locals[t.c.acc.0 as usize] = Some((acc, depth));
                e.syms[t.c.row.0 as usize] = Some(Bound::Alias(i.add(&Dim::from(row))));
                e.syms[t.c.col.0 as usize] = Some(Bound::Alias(j.add(&Dim::from(column))));
                e.block(&t.c.epilogue)
            })
        })
    }

    /// The epilogue of one vector of sums.
    fn epilogue(&mut self, t: &Tile, row: Dim, v: i64, acc: Reg, mask: Option<Reg>) -> Result<()> {
        let c = t.c;
        let scope = self.depth();
        self.locals[c.acc.0 as usize] = Some((acc, scope));
        self.syms[c.row.0 as usize] = Some(Bound::Alias(row));
        self.syms[c.col.0 as usize] = Some(Bound::Alias(
            Dim::from(t.j).add(&Dim::Const(v * self.lanes())),
        ));
        self.vector = match t.columns {
            Columns::Vectors(_) if self.lanes() > 1 => Some(VectorLoop { var: c.col, mask }),
            _ => None,
        };
        let done = self.block(&c.epilogue);
        self.vector = None;
        done
    }

    /// Whether an epilogue needs more registers than a tile of sums leaves: it calls a function.
    fn is_heavy(&self, epilogue: &[Stmt]) -> bool {
        let heavy = |e: &Expr| match e {
            Expr::Un { op, .. } => !matches!(
                op,
                UnOp::Neg
                    | UnOp::Abs
                    | UnOp::Sqrt
                    | UnOp::Floor
                    | UnOp::Ceil
                    | UnOp::Trunc
                    | UnOp::Round
                    | UnOp::Not
            ),
            _ => false,
        };
        let function = |e: ExprId| self.loops.parts(e).into_iter().any(heavy);
        epilogue.iter().any(|s| match s {
            Stmt::Let { value, .. } | Stmt::Store { value, .. } => function(*value),
            Stmt::If {
                then, otherwise, ..
            } => self.is_heavy(then) || self.is_heavy(otherwise),
            Stmt::For { .. } | Stmt::Reduce { .. } => true,
            Stmt::Index { .. } | Stmt::Contract(_) => false,
        })
    }
}
