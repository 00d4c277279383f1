//! Dimension expressions as CLIF.
//!
//! Arithmetic is 64-bit and checked: each operation that overflows, divides by zero or broadcasts
//! sizes that do not agree adds to a set of flags, which the caller turns into one test for each
//! thing that it computes. Divisors are guarded, so nothing traps whatever the flags say.

use super::code::Code;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_module::Module;
use lapidary_graph::{Atom, Dim, Sym};
use lapidary_runtime::abi;
use std::collections::HashMap;

/// Values of expressions in one function.
#[derive(Default)]
pub(super) struct Env {
    known: HashMap<Dim, Value>,
    symbols: HashMap<Sym, Value>,
    /// Quotients rounded down, with their remainders.
    quotients: HashMap<(Value, Dim), (Value, Value)>,
    /// Conditions under which something computed since [`Env::take_flags`] is wrong.
    flags: Vec<Value>,
}

impl Env {
    /// All flags since the last call, as one.
    pub fn take_flags<M: Module>(&mut self, code: &mut Code<'_, '_, M>) -> Option<Value> {
        std::mem::take(&mut self.flags)
            .into_iter()
            .reduce(|a, b| code.b.ins().bor(a, b))
    }
    pub fn flag(&mut self, condition: Value) {
        self.flags.push(condition);
    }
    /// The value of an expression, computed here from the symbols' slots.
    pub fn dim<M: Module>(&mut self, code: &mut Code<'_, '_, M>, d: &Dim) -> Value {
        let sum = match d {
            Dim::Const(c) => return code.int(*c),
            Dim::Sum(sum) => sum,
        };
        if let Some(v) = self.known.get(d) {
            return *v;
        }
        let mut total: Option<Value> = None;
        for (product, coefficient) in &sum.terms {
            let mut term: Option<Value> = None;
            for atom in product {
                let v = self.atom(code, atom);
                term = Some(match term {
                    None => v,
                    Some(t) => self.mul(code, t, v),
                });
            }
            let term = match (term, *coefficient) {
                (None, c) => code.int(c),
                (Some(t), 1) => t,
                (Some(t), c) => {
                    let c = code.int(c);
                    self.mul(code, t, c)
                }
            };
            total = Some(match total {
                None => term,
                Some(t) => self.add(code, t, term),
            });
        }
        let value = match (total, sum.constant) {
            (None, c) => code.int(c),
            (Some(t), 0) => t,
            (Some(t), c) => {
                let c = code.int(c);
                self.add(code, t, c)
            }
        };
        self.known.insert(d.clone(), value);
        value
    }
    fn mul<M: Module>(&mut self, code: &mut Code<'_, '_, M>, a: Value, b: Value) -> Value {
        let (v, overflow) = code.b.ins().smul_overflow(a, b);
        self.flags.push(overflow);
        v
    }
    fn add<M: Module>(&mut self, code: &mut Code<'_, '_, M>, a: Value, b: Value) -> Value {
        let (v, overflow) = code.b.ins().sadd_overflow(a, b);
        self.flags.push(overflow);
        v
    }
    fn atom<M: Module>(&mut self, code: &mut Code<'_, '_, M>, atom: &Atom) -> Value {
        match atom {
            Atom::Sym(s) => {
                if let Some(v) = self.symbols.get(s) {
                    return *v;
                }
                let dims = code.field(abi::CTX_DIMS);
                let v = code.load(I64, dims, 8 * s.0 as i32);
                self.symbols.insert(*s, v);
                v
            }
            Atom::FloorDiv(a, b) => {
                let (a, v) = (self.dim(code, a), b);
                self.floor_div(code, a, v).0
            }
            Atom::Mod(a, b) => {
                let a = self.dim(code, a);
                self.floor_div(code, a, b).1
            }
            Atom::CeilDiv(a, b) => {
                // ceil(a / b) = -floor(-a / b)
                let a = self.dim(code, a);
                let minus = code.b.ins().ineg(a);
                let q = self.floor_div(code, minus, b).0;
                code.b.ins().ineg(q)
            }
            Atom::Min(a, b) => {
                let (a, b) = (self.dim(code, a), self.dim(code, b));
                let less = code.is(IntCC::SignedLessThan, a, b);
                code.b.ins().select(less, a, b)
            }
            Atom::Max(a, b) => {
                let (a, b) = (self.dim(code, a), self.dim(code, b));
                let greater = code.is(IntCC::SignedGreaterThan, a, b);
                code.b.ins().select(greater, a, b)
            }
            Atom::Broadcast(a, b) => {
                let (a, b) = (self.dim(code, a), self.dim(code, b));
                let one = code.is_const(IntCC::Equal, a, 1);
                let differ = code.is(IntCC::NotEqual, a, b);
                let not_a = code.is_const(IntCC::NotEqual, a, 1);
                let not_b = code.is_const(IntCC::NotEqual, b, 1);
                let bad = code.b.ins().band(differ, not_a);
                let bad = code.b.ins().band(bad, not_b);
                self.flags.push(bad);
                code.b.ins().select(one, b, a)
            }
        }
    }
    /// Quotient rounded down, and the remainder with the divisor's sign.
    fn floor_div<M: Module>(
        &mut self,
        code: &mut Code<'_, '_, M>,
        a: Value,
        divisor: &Dim,
    ) -> (Value, Value) {
        let key = (a, divisor.clone());
        if let Some(known) = self.quotients.get(&key) {
            return *known;
        }
        let made = match divisor.as_const() {
            Some(c) if c > 0 && c.count_ones() == 1 => {
                let shift = code.int(i64::from(c.trailing_zeros()));
                let q = code.b.ins().sshr(a, shift);
                let mask = code.int(c - 1);
                (q, code.b.ins().band(a, mask))
            }
            Some(c) if c > 0 => floor_div_by(code, a, c),
            _ => self.floor_div_guarded(code, a, divisor),
        };
        self.quotients.insert(key, made);
        made
    }
    /// The same by a number that is not known, or not positive.
    fn floor_div_guarded<M: Module>(
        &mut self,
        code: &mut Code<'_, '_, M>,
        a: Value,
        divisor: &Dim,
    ) -> (Value, Value) {
        let b = self.dim(code, divisor);
        // Dividing by 0 is an error; by -1 it could overflow. Neither reaches the instruction.
        let zero = code.is_const(IntCC::Equal, b, 0);
        let minus_one = code.is_const(IntCC::Equal, b, -1);
        if divisor.is_ge(1) != Some(true) {
            self.flags.push(zero);
        }
        let one = code.int(1);
        let unsafe_divisor = code.b.ins().bor(zero, minus_one);
        let safe = code.b.ins().select(unsafe_divisor, one, b);
        let q = code.b.ins().sdiv(a, safe);
        let product = code.b.ins().imul(q, safe);
        let r = code.b.ins().isub(a, product);
        // Truncated to floored: where the remainder is not 0 and its sign is not the divisor's.
        let nonzero = code.is_const(IntCC::NotEqual, r, 0);
        let signs = code.b.ins().bxor(r, safe);
        let opposite = code.is_const(IntCC::SignedLessThan, signs, 0);
        let adjust = code.b.ins().band(nonzero, opposite);
        let less = code.b.ins().isub(q, one);
        let q = code.b.ins().select(adjust, less, q);
        let more = code.b.ins().iadd(r, safe);
        let r = code.b.ins().select(adjust, more, r);
        let negated = code.b.ins().ineg(a);
        let none = code.int(0);
        let q = code.b.ins().select(minus_one, negated, q);
        let r = code.b.ins().select(minus_one, none, r);
        (q, r)
    }
}

/// The same by a positive number that is no power of two, without a division: for `n` below 2^63 and `l = ceil(log2 c)`,
/// `n / c` is the upper half of `n * m`, shifted by `l - 1`, with `m = floor(2^(63 + l) / c) + 1`, which has 64 bits (Granlund
/// and Montgomery, "Division by invariant integers using multiplication", theorem 4.2). Of a negative `a`,
/// `floor(a / c) = !(!a / c)`.
fn floor_div_by<M: Module>(code: &mut Code<'_, '_, M>, a: Value, c: i64) -> (Value, Value) {
    let (shift, multiplier) = reciprocal(c.unsigned_abs());
    let sign_bit = code.int(63);
    let sign = code.b.ins().sshr(a, sign_bit);
    let n = code.b.ins().bxor(a, sign);
    let m = code.int(multiplier as i64);
    let upper = code.b.ins().umulhi(n, m);
    let shift = code.int(i64::from(shift));
    let q = code.b.ins().ushr(upper, shift);
    let q = code.b.ins().bxor(q, sign);
    let c = code.int(c);
    let whole = code.b.ins().imul(q, c);
    (q, code.b.ins().isub(a, whole))
}

/// Shift and multiplier for a division of numbers below 2^63 by `c`, which is at least 2.
fn reciprocal(c: u64) -> (u32, u64) {
    let l = 64 - (c - 1).leading_zeros();
    let m = (1u128 << (63 + l)) / u128::from(c) + 1;
    (l - 1, m as u64)
}

#[cfg(test)]
mod tests {
    use super::reciprocal;

    #[test]
    fn reciprocals_divide_exactly() {
        let largest = (1u64 << 63) - 1;
        let divisors = (3..2000).chain((2..63).flat_map(|k| [(1 << k) - 1, (1 << k) + 1]));
        for c in divisors.filter(|c| *c > 2).chain([largest, largest - 1]) {
            let (shift, m) = reciprocal(c);
            let divide = |n: u64| ((u128::from(n) * u128::from(m)) >> 64) as u64 >> shift;
            let near = |n: u64| [n.wrapping_sub(1), n, n.saturating_add(1)];
            let multiples =
                [1, 2, 3, 1000, largest / c / 2, largest / c].map(|k| k.saturating_mul(c));
            let numbers = multiples.into_iter().flat_map(near).chain([0, 1, largest]);
            for n in numbers.filter(|n| *n <= largest) {
                assert_eq!(divide(n), n / c, "{n} / {c}");
            }
        }
    }
}
