//! Dimensions: integer expressions over symbols, in a normal form.
//!
//! A [`Dim`] is a constant or a sum of products `c * atom * atom …` plus a constant, with terms
//! sorted, so that structural equality decides most equalities. Atoms are symbols or one of the
//! operations that do not distribute (floor and ceiling division, modulus, minimum, maximum, and
//! `broadcast`, which is not `max`: 0 with 1 gives 0). Every symbol stands for a value >= 0.
//! Questions answer `Option<bool>`: `None` means unknown.
//!
//! A model decides how large its expressions get, and what walks them takes a time and a stack that grow with their
//! [`Dim::weight`]. A product that would come to many terms stays a product of sums, and the importer lets no
//! dimension weigh more than [`Dim::MOST_WEIGHT`].
//!
//! Constants that overflow saturate; byte sizes are checked again where memory is taken.

use smallvec::SmallVec;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A symbol; its name and origin stand in [`crate::Graph::symbols`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Sym(pub u32);

impl crate::EntityRef for Sym {
    fn new(index: usize) -> Self {
        Sym(index as u32)
    }
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What cannot be expanded into a sum.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Atom {
    /// A size that is known at run time.
    Sym(Sym),
    /// The quotient rounded towards minus infinity.
    FloorDiv(Dim, Dim),
    /// The quotient rounded towards plus infinity.
    CeilDiv(Dim, Dim),
    /// Remainder with the sign of the divisor.
    Mod(Dim, Dim),
    /// The lesser of the two.
    Min(Dim, Dim),
    /// The greater of the two.
    Max(Dim, Dim),
    /// The common size of two broadcast dimensions: `a` where `b` is 1, else `b`.
    Broadcast(Dim, Dim),
}

/// A product of atoms, sorted. Most are of one, which then stands in place.
pub type Product = SmallVec<[Atom; 1]>;

/// A sum of products; at least one term.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Sum {
    /// Products with their coefficients: sorted by product, none empty, no coefficient 0.
    pub terms: Vec<(Product, i64)>,
    /// The summand without an atom.
    pub constant: i64,
    /// Atoms in it, those inside of atoms among them.
    weight: u32,
}

/// A dimension expression in normal form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Dim {
    /// A number.
    Const(i64),
    /// Anything with a symbol in it.
    Sum(Arc<Sum>),
}

/// Zero.
impl Default for Dim {
    fn default() -> Self {
        Dim::Const(0)
    }
}

impl From<i64> for Dim {
    fn from(v: i64) -> Self {
        Dim::Const(v)
    }
}
impl From<usize> for Dim {
    fn from(v: usize) -> Self {
        Dim::Const(v as i64)
    }
}
impl From<Sym> for Dim {
    fn from(s: Sym) -> Self {
        Dim::atom(Atom::Sym(s))
    }
}

fn floor_div(a: i64, b: i64) -> Option<i64> {
    let q = a.checked_div(b)?;
    Some(if a % b != 0 && ((a < 0) != (b < 0)) {
        q - 1
    } else {
        q
    })
}

impl Dim {
    /// What a dimension of a value may weigh.
    pub const MOST_WEIGHT: u32 = 1024;
    /// What a product of sums may weigh, to be multiplied out.
    const MOST_EXPANDED: u32 = 512;

    /// An atom as a dimension.
    pub fn atom(a: Atom) -> Dim {
        Dim::term(SmallVec::from_buf([a]), 1)
    }
    /// A product of at least one atom, sorted, with a coefficient that is not 0.
    pub fn term(atoms: Product, coefficient: i64) -> Dim {
        Dim::sum(vec![(atoms, coefficient)], 0)
    }
    fn sum(terms: Vec<(Product, i64)>, constant: i64) -> Dim {
        let atoms = terms.iter().flat_map(|(product, _)| product);
        let weight = atoms.fold(0u32, |sum, a| sum.saturating_add(a.weight()));
        Dim::Sum(Arc::new(Sum {
            terms,
            constant,
            weight,
        }))
    }
    /// How many atoms it is made of.
    pub fn weight(&self) -> u32 {
        match self {
            Dim::Const(_) => 0,
            Dim::Sum(s) => s.weight,
        }
    }
    /// The same value as one atom: a quotient by 1, which nothing else makes.
    fn whole(&self) -> Dim {
        match self.parts().0 {
            [] | [_] => self.clone(),
            _ => Dim::atom(Atom::FloorDiv(self.clone(), Dim::Const(1))),
        }
    }
    fn parts(&self) -> (&[(Product, i64)], i64) {
        match self {
            Dim::Const(c) => (&[], *c),
            Dim::Sum(s) => (&s.terms, s.constant),
        }
    }
    /// From terms in any order, equal ones among them.
    fn build(mut terms: Vec<(Product, i64)>, constant: i64) -> Dim {
        terms.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        terms.dedup_by(|(p, c), (q, d)| {
            let same = p == q;
            if same {
                *d = d.saturating_add(*c);
            }
            same
        });
        terms.retain(|t| t.1 != 0);
        Dim::of_sorted(terms, constant)
    }
    /// From terms as [`Sum::terms`] has them, or none.
    fn of_sorted(terms: Vec<(Product, i64)>, constant: i64) -> Dim {
        if terms.is_empty() {
            Dim::Const(constant)
        } else {
            Dim::sum(terms, constant)
        }
    }
    /// The value, when there is no symbol in it.
    pub fn as_const(&self) -> Option<i64> {
        match self {
            Dim::Const(c) => Some(*c),
            Dim::Sum(_) => None,
        }
    }
    /// Whether it is this number.
    pub fn is_const(&self, v: i64) -> bool {
        self.as_const() == Some(v)
    }
    /// The symbol, when the expression is just one.
    pub fn as_sym(&self) -> Option<Sym> {
        match self.parts() {
            ([(p, 1)], 0) => match p.as_slice() {
                [Atom::Sym(s)] => Some(*s),
                _ => None,
            },
            _ => None,
        }
    }
    /// The sum, in normal form.
    pub fn add(&self, o: &Dim) -> Dim {
        if self.is_const(0) {
            return o.clone();
        }
        if o.is_const(0) {
            return self.clone();
        }
        let (mut a, c) = self.parts();
        let (mut b, d) = o.parts();
        let mut terms = Vec::with_capacity(a.len() + b.len());
        while let ([x, rest_a @ ..], [y, rest_b @ ..]) = (a, b) {
            match x.0.cmp(&y.0) {
                Ordering::Less => {
                    terms.push(x.clone());
                    a = rest_a;
                }
                Ordering::Greater => {
                    terms.push(y.clone());
                    b = rest_b;
                }
                Ordering::Equal => {
                    let both = x.1.saturating_add(y.1);
                    if both != 0 {
                        terms.push((x.0.clone(), both));
                    }
                    (a, b) = (rest_a, rest_b);
                }
            }
        }
        terms.extend_from_slice(a);
        terms.extend_from_slice(b);
        Dim::of_sorted(terms, c.saturating_add(d))
    }
    /// The negative, in normal form.
    pub fn neg(&self) -> Dim {
        self.mul(&Dim::Const(-1))
    }
    /// The difference, in normal form.
    pub fn sub(&self, o: &Dim) -> Dim {
        self.add(&o.neg())
    }
    /// The product: multiplied out, or one of sums where that would come to too many terms.
    pub fn mul(&self, o: &Dim) -> Dim {
        let (a, b) = (self.parts().0, o.parts().0);
        let times = |d: &Dim, n: usize| d.weight().saturating_mul(n as u32);
        if (a.len() > 1 || b.len() > 1)
            && times(self, b.len()).saturating_add(times(o, a.len())) > Dim::MOST_EXPANDED
            && a.len().min(b.len()) > 0
        {
            return self.whole().mul_out(&o.whole());
        }
        self.mul_out(o)
    }
    /// A number of times.
    fn times(&self, n: i64) -> Dim {
        match (self, n) {
            (_, 0) => Dim::Const(0),
            (_, 1) => self.clone(),
            (Dim::Const(c), _) => Dim::Const(c.saturating_mul(n)),
            (Dim::Sum(s), _) => {
                let times = |(p, c): &(Product, i64)| (p.clone(), c.saturating_mul(n));
                let terms = s.terms.iter().map(times).collect();
                Dim::sum(terms, s.constant.saturating_mul(n))
            }
        }
    }
    fn mul_out(&self, o: &Dim) -> Dim {
        if let Some(n) = o.as_const() {
            return self.times(n);
        }
        if let Some(n) = self.as_const() {
            return o.times(n);
        }
        let (a, c) = self.parts();
        let (b, d) = o.parts();
        let mut terms = Vec::new();
        for (p, x) in a {
            for (q, y) in b {
                let mut r: Product = p.iter().chain(q).cloned().collect();
                r.sort();
                terms.push((r, x.saturating_mul(*y)));
            }
            terms.push((p.clone(), x.saturating_mul(d)));
        }
        terms.extend(b.iter().map(|(q, y)| (q.clone(), y.saturating_mul(c))));
        Dim::build(terms, c.saturating_mul(d))
    }
    /// Product of several; 1 for none.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::Const(1), |a, d| a.mul(d))
    }
    /// `self / o` when it is exact whatever the symbols: common atoms and coefficients cancel.
    pub fn exact_div(&self, o: &Dim) -> Option<Dim> {
        if *self == *o && !self.is_const(0) {
            return Some(Dim::Const(1));
        }
        let (b, d) = o.parts();
        let (product, coefficient): (&[Atom], i64) = match (b, d) {
            ([], d) if d != 0 => (&[], d),
            ([(p, c)], 0) => (p, *c),
            _ => return None,
        };
        let (a, c) = self.parts();
        if c % coefficient != 0 || (c != 0 && !product.is_empty()) {
            return None;
        }
        let mut terms = Vec::new();
        for (p, x) in a {
            if x % coefficient != 0 {
                return None;
            }
            let mut rest = p.clone();
            for atom in product {
                let at = rest.iter().position(|r| r == atom)?;
                rest.remove(at);
            }
            terms.push((rest, x / coefficient));
        }
        let mut constant = c / coefficient;
        terms.retain(|(p, x)| {
            if p.is_empty() {
                constant = constant.saturating_add(*x);
            }
            !p.is_empty()
        });
        Some(Dim::build(terms, constant))
    }
    /// Quotient rounded towards minus infinity.
    pub fn floor_div(&self, o: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.as_const(), o.as_const())
            && let Some(q) = floor_div(a, b)
        {
            return Dim::Const(q);
        }
        if let Some(b) = o.as_const().filter(|b| *b > 0) {
            let (whole, rest) = self.split(b);
            return whole.add(&rest.floor_div_rest(b));
        }
        self.exact_div(o)
            .unwrap_or_else(|| Dim::atom(Atom::FloorDiv(self.clone(), o.clone())))
    }
    /// `(q, r)` with `self = q * b + r`, every coefficient of `r` in `0..b`: so that quotients that
    /// are equal look equal, as `floordiv(h - 1, 2) + 1` and `floordiv(h + 1, 2)`.
    fn split(&self, b: i64) -> (Dim, Dim) {
        let (terms, constant) = self.parts();
        let part = |f: &dyn Fn(i64) -> i64| {
            let terms = terms.iter().map(|(p, c)| (p.clone(), f(*c))).collect();
            Dim::build(terms, f(constant))
        };
        (part(&|c| c.div_euclid(b)), part(&|c| c.rem_euclid(b)))
    }
    /// `floordiv(self, b)` of what [`Dim::split`] left: common factors cancel, since
    /// `floor((g*x + c) / (g*b)) = floor((x + floor(c / g)) / b)`.
    fn floor_div_rest(&self, b: i64) -> Dim {
        let (terms, constant) = self.parts();
        if terms.is_empty() {
            return Dim::Const(0);
        }
        let gcd = |mut a: i64, mut b: i64| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let g = terms.iter().fold(b, |g, t| gcd(g, t.1));
        let terms = terms.iter().map(|(p, c)| (p.clone(), c / g)).collect();
        let rest = Dim::build(terms, constant / g);
        Dim::atom(Atom::FloorDiv(rest, Dim::Const(b / g)))
    }
    /// Quotient rounded up; by a number it is written as one rounded down.
    pub fn ceil_div(&self, o: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.as_const(), o.as_const())
            && let Some(q) = a.checked_neg().and_then(|a| floor_div(a, b))
        {
            return Dim::Const(-q);
        }
        if let Some(b) = o.as_const().filter(|b| *b > 0) {
            return self.add(&Dim::Const(b - 1)).floor_div(o);
        }
        self.exact_div(o)
            .unwrap_or_else(|| Dim::atom(Atom::CeilDiv(self.clone(), o.clone())))
    }
    /// Remainder with the sign of the divisor.
    pub fn modulo(&self, o: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.as_const(), o.as_const())
            && let Some(q) = floor_div(a, b)
        {
            return Dim::Const(a.wrapping_sub(q.wrapping_mul(b)));
        }
        if let Some(b) = o.as_const().filter(|b| *b > 0) {
            return match self.split(b).1 {
                Dim::Const(c) => Dim::Const(c),
                rest => Dim::atom(Atom::Mod(rest, o.clone())),
            };
        }
        match self.exact_div(o) {
            Some(_) => Dim::Const(0),
            None => Dim::atom(Atom::Mod(self.clone(), o.clone())),
        }
    }
    /// The lesser: one of the two where facts decide, else [`Atom::Min`].
    pub fn minimum(&self, o: &Dim) -> Dim {
        match self.sub(o).sign() {
            Some(s) => {
                if s <= 0 {
                    self.clone()
                } else {
                    o.clone()
                }
            }
            None if self <= o => Dim::atom(Atom::Min(self.clone(), o.clone())),
            None => Dim::atom(Atom::Min(o.clone(), self.clone())),
        }
    }
    /// The greater: one of the two where facts decide, else [`Atom::Max`].
    pub fn maximum(&self, o: &Dim) -> Dim {
        match self.sub(o).sign() {
            Some(s) => {
                if s >= 0 {
                    self.clone()
                } else {
                    o.clone()
                }
            }
            None if self.sub(o).is_ge(0) == Some(true) => self.clone(),
            None if o.sub(self).is_ge(0) == Some(true) => o.clone(),
            None if self <= o => Dim::atom(Atom::Max(self.clone(), o.clone())),
            None => Dim::atom(Atom::Max(o.clone(), self.clone())),
        }
    }
    /// Size of an axis made by broadcasting; `None` where the two can never agree.
    pub fn broadcast(&self, o: &Dim) -> Option<Dim> {
        match (self.as_const(), o.as_const()) {
            (Some(1), _) => Some(o.clone()),
            (_, Some(1)) => Some(self.clone()),
            _ if self == o => Some(self.clone()),
            // `x[:1]` has min(1, x) rows: 1, or like x none.
            _ if *o == self.minimum(&Dim::Const(1)) => Some(self.clone()),
            _ if *self == o.minimum(&Dim::Const(1)) => Some(o.clone()),
            (Some(_), Some(_)) => None,
            // A constant other than 1 decides the size; that the other is 1 or equal is checked at run time.
            (Some(_), None) => Some(self.clone()),
            (None, Some(_)) => Some(o.clone()),
            // Broadcasting is associative and idempotent: a sorted list of distinct operands.
            (None, None) => {
                let mut all = BTreeSet::new();
                self.broadcast_operands(&mut all);
                o.broadcast_operands(&mut all);
                all.into_iter()
                    .cloned()
                    .rev()
                    .reduce(|rest, d| Dim::atom(Atom::Broadcast(d, rest)))
            }
        }
    }
    /// The operands of a (nested) `broadcast`; the expression itself when it is none.
    fn broadcast_operands<'a>(&'a self, into: &mut BTreeSet<&'a Dim>) {
        if let ([(p, 1)], 0) = self.parts()
            && let [Atom::Broadcast(a, b)] = p.as_slice()
        {
            a.broadcast_operands(into);
            b.broadcast_operands(into);
        } else {
            into.insert(self);
        }
    }
    /// Whether this is a `broadcast` of `d` (or of all its operands) with others, so that `d` is 1
    /// or equal to it.
    pub(crate) fn has_broadcast_operand(&self, d: &Dim) -> bool {
        let (mut own, mut other) = (BTreeSet::new(), BTreeSet::new());
        self.broadcast_operands(&mut own);
        d.broadcast_operands(&mut other);
        own.is_superset(&other)
    }
    /// Sign of a constant.
    fn sign(&self) -> Option<i64> {
        self.as_const().map(i64::signum)
    }
    /// Whether the value is at least `v`, knowing that symbols are >= 0.
    pub fn is_ge(&self, v: i64) -> Option<bool> {
        match self {
            Dim::Const(c) => Some(*c >= v),
            Dim::Sum(s) => {
                let nonneg = |a: &Atom| match a {
                    Atom::Sym(_) | Atom::Broadcast(..) => true,
                    Atom::FloorDiv(x, y) | Atom::CeilDiv(x, y) => {
                        x.is_ge(0) == Some(true) && y.is_ge(1) == Some(true)
                    }
                    Atom::Mod(_, y) => y.is_ge(1) == Some(true),
                    Atom::Min(x, y) => x.is_ge(0) == Some(true) && y.is_ge(0) == Some(true),
                    Atom::Max(x, y) => x.is_ge(0) == Some(true) || y.is_ge(0) == Some(true),
                };
                let all = s.terms.iter().all(|(p, _)| p.iter().all(nonneg));
                if all && s.constant >= v && s.terms.iter().all(|t| t.1 > 0) {
                    Some(true)
                } else if all && s.constant < v && s.terms.iter().all(|t| t.1 < 0) {
                    Some(false)
                } else {
                    None
                }
            }
        }
    }
    /// Whether two expressions are equal for every value of the symbols (`Some(true)`), for none
    /// (`Some(false)`), or not known.
    pub fn equals(&self, o: &Dim) -> Option<bool> {
        match self.sub(o) {
            Dim::Const(c) => Some(c == 0),
            d => match (d.is_ge(1), d.neg().is_ge(1)) {
                (Some(true), _) | (_, Some(true)) => Some(false),
                _ => None,
            },
        }
    }
    /// The value under an assignment of the symbols; `None` for a division by zero, a broadcast of
    /// sizes that do not agree, an overflow, or a symbol without a value.
    pub fn eval(&self, value: &dyn Fn(Sym) -> Option<i64>) -> Option<i64> {
        let (terms, constant) = self.parts();
        let mut sum = constant;
        for (p, c) in terms {
            let mut t = *c;
            for a in p {
                t = t.checked_mul(a.eval(value)?)?;
            }
            sum = sum.checked_add(t)?;
        }
        Some(sum)
    }
    /// Replaces symbols; where `with` gives nothing the symbol stays.
    pub fn substitute(&self, with: &dyn Fn(Sym) -> Option<Dim>) -> Dim {
        let (terms, constant) = self.parts();
        terms.iter().fold(Dim::Const(constant), |sum, (p, c)| {
            sum.add(
                &p.iter()
                    .fold(Dim::Const(*c), |t, a| t.mul(&a.substitute(with))),
            )
        })
    }
    /// Visits every atom, inner ones first.
    pub(crate) fn visit_atoms(&self, f: &mut dyn FnMut(&Atom)) {
        for a in self.parts().0.iter().flat_map(|t| &t.0) {
            match a {
                Atom::Sym(_) => {}
                Atom::FloorDiv(x, y)
                | Atom::CeilDiv(x, y)
                | Atom::Mod(x, y)
                | Atom::Min(x, y)
                | Atom::Max(x, y)
                | Atom::Broadcast(x, y) => {
                    x.visit_atoms(f);
                    y.visit_atoms(f);
                }
            }
            f(a);
        }
    }
    /// Adds every symbol that occurs.
    pub fn collect_symbols(&self, into: &mut BTreeSet<Sym>) {
        for (p, _) in self.parts().0 {
            for a in p {
                match a {
                    Atom::Sym(s) => {
                        into.insert(*s);
                    }
                    Atom::FloorDiv(x, y)
                    | Atom::CeilDiv(x, y)
                    | Atom::Mod(x, y)
                    | Atom::Min(x, y)
                    | Atom::Max(x, y)
                    | Atom::Broadcast(x, y) => {
                        x.collect_symbols(into);
                        y.collect_symbols(into);
                    }
                }
            }
        }
    }
}

impl Atom {
    /// Itself and the atoms inside of it.
    fn weight(&self) -> u32 {
        match self {
            Atom::Sym(_) => 1,
            Atom::FloorDiv(a, b)
            | Atom::CeilDiv(a, b)
            | Atom::Mod(a, b)
            | Atom::Min(a, b)
            | Atom::Max(a, b)
            | Atom::Broadcast(a, b) => a.weight().saturating_add(b.weight()).saturating_add(1),
        }
    }
    fn eval(&self, value: &dyn Fn(Sym) -> Option<i64>) -> Option<i64> {
        let two = |a: &Dim, b: &Dim| Some((a.eval(value)?, b.eval(value)?));
        match self {
            Atom::Sym(s) => value(*s),
            Atom::FloorDiv(a, b) => two(a, b).and_then(|(a, b)| floor_div(a, b)),
            Atom::CeilDiv(a, b) => {
                two(a, b).and_then(|(a, b)| floor_div(a.checked_neg()?, b)?.checked_neg())
            }
            Atom::Mod(a, b) => two(a, b).and_then(|(a, b)| Some(a - floor_div(a, b)? * b)),
            Atom::Min(a, b) => two(a, b).map(|(a, b)| a.min(b)),
            Atom::Max(a, b) => two(a, b).map(|(a, b)| a.max(b)),
            Atom::Broadcast(a, b) => two(a, b).and_then(|(a, b)| match (a, b) {
                (1, b) => Some(b),
                (a, 1) => Some(a),
                (a, b) if a == b => Some(a),
                _ => None,
            }),
        }
    }
    fn substitute(&self, with: &dyn Fn(Sym) -> Option<Dim>) -> Dim {
        match self {
            Atom::Sym(s) => with(*s).unwrap_or_else(|| Dim::from(*s)),
            Atom::FloorDiv(a, b) => a.substitute(with).floor_div(&b.substitute(with)),
            Atom::CeilDiv(a, b) => a.substitute(with).ceil_div(&b.substitute(with)),
            Atom::Mod(a, b) => a.substitute(with).modulo(&b.substitute(with)),
            Atom::Min(a, b) => a.substitute(with).minimum(&b.substitute(with)),
            Atom::Max(a, b) => a.substitute(with).maximum(&b.substitute(with)),
            Atom::Broadcast(a, b) => {
                let (a, b) = (a.substitute(with), b.substitute(with));
                a.broadcast(&b)
                    .unwrap_or_else(|| Dim::atom(Atom::Broadcast(a.clone(), b.clone())))
            }
        }
    }
}

/// Prints with symbol numbers (`s0`); [`crate::Graph::dim_text`] prints names.
impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(&|s| format!("s{}", s.0)))
    }
}

impl Dim {
    /// The expression with symbols named by `name`: `2*batch*seq + 1`, `floordiv(h, 2)`.
    pub fn text(&self, name: &dyn Fn(Sym) -> String) -> String {
        let (terms, constant) = self.parts();
        let mut out = String::new();
        for (p, c) in terms {
            if out.is_empty() {
                if *c < 0 {
                    out.push('-');
                }
            } else {
                out.push_str(if *c < 0 { " - " } else { " + " });
            }
            let mut factors: Vec<String> = p.iter().map(|a| a.text(name)).collect();
            if c.unsigned_abs() != 1 {
                factors.insert(0, c.unsigned_abs().to_string());
            }
            out.push_str(&factors.join("*"));
        }
        match (out.is_empty(), constant) {
            (true, c) => c.to_string(),
            (false, 0) => out,
            (false, c) => format!(
                "{out} {} {}",
                if c < 0 { '-' } else { '+' },
                c.unsigned_abs()
            ),
        }
    }
}

impl Atom {
    fn text(&self, name: &dyn Fn(Sym) -> String) -> String {
        let call = |f: &str, a: &Dim, b: &Dim| format!("{f}({}, {})", a.text(name), b.text(name));
        match self {
            Atom::Sym(s) => name(*s),
            Atom::FloorDiv(a, b) => call("floordiv", a, b),
            Atom::CeilDiv(a, b) => call("ceildiv", a, b),
            Atom::Mod(a, b) => call("mod", a, b),
            Atom::Min(a, b) => call("min", a, b),
            Atom::Max(a, b) => call("max", a, b),
            Atom::Broadcast(a, b) => call("broadcast", a, b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_form_decides_equality() {
        let (b, s) = (Dim::from(Sym(0)), Dim::from(Sym(1)));
        let x = b.mul(&s).mul(&Dim::Const(12)).mul(&Dim::Const(64));
        assert_eq!(x, s.mul(&Dim::Const(768)).mul(&b));
        assert_eq!(x.floor_div(&b.mul(&s)), Dim::Const(768));
        assert_eq!(x.floor_div(&Dim::Const(768)), b.mul(&s));
        assert_eq!(b.add(&s).sub(&s), b);
        assert_eq!(b.add(&Dim::Const(1)).equals(&b), Some(false));
        assert_eq!(b.equals(&s), None);
    }

    #[test]
    fn quotients_by_numbers_have_one_form() {
        let (h, two) = (Dim::from(Sym(0)), Dim::Const(2));
        let plus = |d: &Dim, c: i64| d.add(&Dim::Const(c));
        let half_up = plus(&plus(&h, -1).floor_div(&two), 1);
        assert_eq!(half_up, h.ceil_div(&two));
        assert_eq!(half_up.is_ge(0), Some(true));
        assert_eq!(plus(&h.mul(&two), 3).floor_div(&two), plus(&h, 1));
        let four = Dim::Const(4);
        assert_eq!(plus(&h.mul(&two), 1).floor_div(&four), h.floor_div(&two));
        assert_eq!(plus(&h.mul(&four), 7).modulo(&two), Dim::Const(1));
        for v in 0..20 {
            let at = |d: &Dim| d.eval(&|_| Some(v));
            for (b, c) in [(2, -1), (3, 5), (4, -6), (6, 8)] {
                let x = plus(&h.mul(&two), c);
                let (d, n) = (Dim::Const(b), 2 * v + c);
                assert_eq!(at(&x.floor_div(&d)), Some(n.div_euclid(b)));
                assert_eq!(at(&x.ceil_div(&d)), Some(-(-n).div_euclid(b)));
                assert_eq!(at(&x.modulo(&d)), Some(n.rem_euclid(b)));
            }
        }
    }

    #[test]
    fn products_of_many_sums_stay_products() {
        let sums: Vec<Dim> = (0..16)
            .map(|i| Dim::from(Sym(3 * i)).add(&Dim::from(Sym(3 * i + 1))))
            .collect();
        let all = Dim::product(&sums);
        assert!(all.weight() < Dim::MOST_WEIGHT, "{}", all.weight());
        assert_eq!(
            all.eval(&|s| Some(1 + i64::from(s.0 % 3))),
            Some(3i64.pow(16))
        );
        let known = all.substitute(&|s| Some(Dim::Const(1 + i64::from(s.0 % 3))));
        assert_eq!(known, Dim::Const(3i64.pow(16)));
        assert_eq!(all.mul(&Dim::Const(0)), Dim::Const(0));
    }

    #[test]
    fn broadcast_operands_are_taken_once() {
        let [a, b, c] = [0, 1, 2].map(|i| Dim::from(Sym(i)));
        let ab = a.broadcast(&b).unwrap();
        assert_eq!(ab.broadcast(&a), Some(ab.clone()));
        assert_eq!(b.broadcast(&ab), Some(ab.clone()));
        let abc = c.broadcast(&ab).unwrap();
        assert_eq!(a.broadcast(&b.broadcast(&c).unwrap()), Some(abc.clone()));
        assert!(abc.has_broadcast_operand(&ab) && !ab.has_broadcast_operand(&c));
    }

    #[test]
    fn broadcast_of_zero_and_one_is_zero() {
        let b = Dim::from(Sym(0)).broadcast(&Dim::from(Sym(1))).unwrap();
        let with = |x: i64, y: i64| b.eval(&|s| Some(if s.0 == 0 { x } else { y }));
        assert_eq!(with(0, 1), Some(0));
        assert_eq!(with(1, 5), Some(5));
        assert_eq!(with(3, 5), None);
        assert_eq!(Dim::Const(2).broadcast(&Dim::Const(3)), None);
        let x = Dim::from(Sym(0));
        let first = Dim::Const(1).minimum(&x);
        assert_eq!(first.broadcast(&x), Some(x.clone()));
        assert_eq!(x.broadcast(&first), Some(x));
    }

    #[test]
    fn division_rounds_as_named() {
        for (a, b, floor, ceil, rem) in [
            (7, 2, 3, 4, 1),
            (-7, 2, -4, -3, 1),
            (7, -2, -4, -3, -1),
            (6, 3, 2, 2, 0),
        ] {
            let (a, b) = (Dim::Const(a), Dim::Const(b));
            assert_eq!(a.floor_div(&b), Dim::Const(floor));
            assert_eq!(a.ceil_div(&b), Dim::Const(ceil));
            assert_eq!(a.modulo(&b), Dim::Const(rem));
        }
        assert_eq!(
            Dim::from(Sym(0))
                .floor_div(&Dim::Const(0))
                .eval(&|_| Some(1)),
            None
        );
    }
}
