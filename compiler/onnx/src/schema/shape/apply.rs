//! Shapes of a node's outputs, from the facts of its operator and what is known of its inputs.
//!
//! A size that is not known is `None`, and so is a shape whose rank is not. Nothing is guessed: a [`Fault`] is what
//! cannot be, whatever the unknown sizes are.

use std::fmt;

use crate::proto::attribute_proto::AttributeType;
use crate::schema::Schema;

use super::{
    Absent, At, AxisFact, AxisRange, Case, Condition, Counted, Expr, Item, OLD, ShapeRule,
    functions,
};

/// Sizes, as far as they are known.
pub type Shape<S> = Vec<Option<S>>;

/// Shapes, where ranks are known.
pub type Shapes<S> = Vec<Option<Shape<S>>>;

/// Shapes, each with the first output of the same rule.
pub type ShapesByRule<S> = Vec<Option<(usize, Shape<S>)>>;

/// Something of a node that may not be there, or be told only elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given<T> {
    /// The node does not have it.
    Absent,
    /// It has it, with a value that is not known here.
    Hidden,
    /// It has it.
    Known(T),
}

impl<T> Given<T> {
    /// The value, if it is known.
    pub fn known(self) -> Option<T> {
        match self {
            Given::Known(value) => Some(value),
            _ => None,
        }
    }
}

/// How sizes are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The sum.
    Add,
    /// The difference.
    Subtract,
    /// The product.
    Multiply,
    /// The quotient, rounded down.
    Divide,
    /// The smaller one.
    Least,
    /// The one that both are broadcast to.
    Broadcast,
}

/// What facts are applied to.
pub trait Node {
    /// A size, or another number that sizes follow from.
    type Size: Clone;

    /// The operator's signature and facts.
    fn schema(&self) -> &Schema;
    /// A number as a size.
    fn size(&self, number: i64) -> Self::Size;
    /// A size as a number, if it is one.
    fn number(&self, size: &Self::Size) -> Option<i64>;
    /// Two sizes together; `None` if that is no size or cannot be told.
    fn combine(&self, operation: Operation, a: &Self::Size, b: &Self::Size) -> Option<Self::Size>;
    /// Whether two sizes are one, if that is certain.
    fn equal(&self, a: &Self::Size, b: &Self::Size) -> Option<bool>;
    /// A size as a message shows it.
    fn text(&self, size: &Self::Size) -> String;

    /// How many inputs the node has, absent ones between others counted.
    fn inputs(&self) -> usize;
    /// How many outputs it has.
    fn outputs(&self) -> usize;
    /// Whether an input is there.
    fn given(&self, input: usize) -> bool;
    /// The shape of an input.
    fn shape(&self, input: usize) -> Option<Shape<Self::Size>>;
    /// The elements of a small input of integers.
    fn elements(&self, input: usize) -> Option<Shape<Self::Size>>;
    /// An attribute that is a number.
    fn int(&self, name: &str) -> Given<i64>;
    /// An attribute that is a list of numbers.
    fn ints(&self, name: &str) -> Given<Vec<i64>>;
    /// An attribute that is a text.
    fn word(&self, name: &str) -> Given<String>;
}

/// What contradicts an operator's facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The parameter or attribute.
    pub subject: String,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub expected: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault {
            subject,
            found,
            expected,
        } = self;
        write!(out, "{subject} is {found}, expected {expected}")
    }
}

/// The shapes of a node's outputs; or why its inputs and attributes cannot be.
pub fn infer<N: Node>(node: &N) -> Result<Shapes<N::Size>, Fault> {
    let shapes = infer_some(node, node.outputs())?;
    Ok(shapes.into_iter().map(|shape| Some(shape?.1)).collect())
}

/// The shapes of so many outputs, whether the node has them or not, each with the first output of the same rule.
pub fn infer_some<N: Node>(node: &N, outputs: usize) -> Result<ShapesByRule<N::Size>, Fault> {
    let schema = node.schema();
    let mut shapes = vec![None; outputs];
    let Some(case) = case(node, &schema.shapes.cases) else {
        return Ok(shapes);
    };
    for fact in &case.axes {
        if let Counted::Input(input) = fact.of
            && let Some(shape) = node.shape(input)
        {
            judge(node, fact, shape.len())?;
        }
    }
    let sizes = Sizes::bind(node, case)?;
    for (index, shape) in shapes.iter_mut().enumerate() {
        let last = schema.outputs.len().saturating_sub(1);
        let parameter = index.min(last);
        let rules = &case.outputs;
        if let Some((_, rule)) = rules.iter().find(|(of, _)| *of == parameter) {
            let first = rules.iter().find(|(_, other)| other == rule);
            let first = first.map_or(parameter, |(of, _)| *of);
            *shape = sizes.shape(rule, index)?.map(|shape| (first, shape));
        }
    }
    for fact in &case.axes {
        if let Counted::Output(output) = fact.of
            && let Some(Some((_, shape))) = shapes.get(output)
        {
            judge(node, fact, shape.len())?;
        }
    }
    // What is less than nothing is for those to refuse who know whether anyone computes it.
    for size in shapes.iter_mut().flatten().flat_map(|shape| &mut shape.1) {
        if let Some(found) = size
            && node.number(found).is_some_and(|n| n < 0)
        {
            *size = None;
        }
    }
    Ok(shapes)
}

// ---- attributes and inputs as the facts name them ------------------------------------------------

/// An attribute that is a number, with its default.
pub(super) fn int<N: Node>(node: &N, name: &str) -> Given<i64> {
    match node.int(name) {
        Given::Absent => match default(node, name).and_then(|text| text.parse().ok()) {
            Some(number) => Given::Known(number),
            None => Given::Absent,
        },
        found => found,
    }
}

/// An attribute that is a flag, off by default; `None` if it is not known.
pub(super) fn flag<N: Node>(node: &N, name: &str) -> Option<bool> {
    match int(node, name) {
        Given::Absent => Some(false),
        Given::Hidden => None,
        Given::Known(number) => Some(number != 0),
    }
}

/// An attribute that is a text, with its default.
pub(super) fn word<N: Node>(node: &N, name: &str) -> Given<String> {
    match node.word(name) {
        Given::Absent => match default(node, name) {
            Some(text) => Given::Known(text.trim_matches('"').to_string()),
            None => Given::Absent,
        },
        found => found,
    }
}

fn default<N: Node>(node: &N, name: &str) -> Option<&'static str> {
    node.schema().attribute(name)?.default
}

/// A list that is an attribute at some versions and an input at others.
pub(super) fn list<N: Node>(node: &N, name: &str) -> Given<Shape<N::Size>> {
    if node.schema().attribute(name).is_some() {
        return match node.ints(name) {
            Given::Known(list) => Given::Known(list.iter().map(|n| Some(node.size(*n))).collect()),
            Given::Hidden => Given::Hidden,
            Given::Absent => Given::Absent,
        };
    }
    match input(node, name) {
        Some(input) => elements(node, input),
        None => Given::Absent,
    }
}

/// The number of an input that the node has.
pub(super) fn input<N: Node>(node: &N, name: &str) -> Option<usize> {
    let mut inputs = node.schema().inputs.iter();
    let input = inputs.position(|parameter| parameter.name == name)?;
    node.given(input).then_some(input)
}

/// The elements of an input; not known ones if only their number is.
pub(super) fn elements<N: Node>(node: &N, input: usize) -> Given<Shape<N::Size>> {
    if !node.given(input) {
        return Given::Absent;
    }
    if let Some(elements) = node.elements(input) {
        return Given::Known(elements);
    }
    /// Lists of axes and sizes are no longer.
    const MOST: i64 = 64;
    let count = match node.shape(input).as_deref() {
        Some([]) => Some(1),
        Some([Some(size)]) => node.number(size),
        _ => None,
    };
    match count.filter(|count| (0..=MOST).contains(count)) {
        Some(count) => Given::Known(vec![None; count as usize]),
        None => Given::Hidden,
    }
}

pub(super) fn subject_of_input<N: Node>(node: &N, input: usize) -> String {
    match node.schema().input(input) {
        Some(parameter) => format!("input {input} ('{}')", parameter.name),
        None => format!("input {input}"),
    }
}

pub(super) fn shape_text<N: Node>(node: &N, shape: &[Option<N::Size>]) -> String {
    let sizes = shape.iter().map(|size| match size {
        Some(size) => node.text(size),
        None => "?".to_string(),
    });
    format!("[{}]", sizes.collect::<Vec<_>>().join(", "))
}

// ---- axes ----------------------------------------------------------------------------------------

/// Axes that a node names, counted from the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axes {
    /// These.
    Known(Vec<usize>),
    /// So many, or nobody knows.
    Hidden(Option<usize>),
    /// The node names none, which means those; never [`Absent::Axis`].
    Absent(Absent),
}

/// The axes that an attribute or input names, of a value of a rank.
pub fn axes<N: Node>(node: &N, name: &str, rank: usize) -> Result<Axes, Fault> {
    match node.schema().shapes.axis(name) {
        Some(fact) => judge(node, fact, rank),
        None => Ok(Axes::Hidden(None)),
    }
}

/// The only axis that an attribute or input names.
pub fn axis<N: Node>(node: &N, name: &str, rank: usize) -> Result<Option<usize>, Fault> {
    match axes(node, name, rank)? {
        Axes::Known(axes) => Ok(axes.first().copied()),
        _ => Ok(None),
    }
}

/// What a node says for a fact; a fault if an axis is out of range or stands twice.
pub(super) fn judge<N: Node>(node: &N, fact: &AxisFact, rank: usize) -> Result<Axes, Fault> {
    let given = match fact.input {
        Some(input) => elements(node, input),
        None => {
            let known = |list: Vec<i64>| list.iter().map(|n| Some(node.size(*n))).collect();
            let attribute = match fact.list {
                true => node.ints(fact.name),
                false => match node.int(fact.name) {
                    Given::Known(number) => Given::Known(vec![number]),
                    Given::Hidden => Given::Hidden,
                    Given::Absent => Given::Absent,
                },
            };
            match attribute {
                Given::Known(list) => Given::Known(known(list)),
                Given::Hidden => Given::Hidden,
                Given::Absent => Given::Absent,
            }
        }
    };
    let given: Vec<Option<i64>> = match given {
        Given::Hidden if !fact.list => return Ok(Axes::Hidden(Some(1))),
        Given::Hidden => return Ok(Axes::Hidden(None)),
        Given::Known(list) => list
            .iter()
            .map(|n| n.as_ref().and_then(|n| node.number(n)))
            .collect(),
        Given::Absent => {
            let default = match fact.absent {
                Absent::Default => default(node, fact.name),
                Absent::Axis(axis) => {
                    return range(node, fact, axis, rank).map(|a| Axes::Known(vec![a]));
                }
                other => return Ok(Axes::Absent(other)),
            };
            let numbers = default.map(|text| text.trim_matches(['[', ']']).split(','));
            let numbers: Vec<i64> = numbers
                .into_iter()
                .flatten()
                .filter_map(|n| n.trim().parse().ok())
                .collect();
            if numbers.is_empty() {
                return Ok(Axes::Absent(Absent::Default));
            }
            numbers.into_iter().map(Some).collect()
        }
    };
    let mut axes: Vec<usize> = Vec::with_capacity(given.len());
    for axis in given.iter().copied().flatten() {
        let axis = range(node, fact, axis, rank)?;
        if fact.distinct && axes.contains(&axis) {
            return Err(Fault {
                subject: subject(node, fact),
                found: format!("a list in which axis {axis} stands twice"),
                expected: "each axis once".to_string(),
            });
        }
        axes.push(axis);
    }
    if axes.len() < given.len() {
        return Ok(Axes::Hidden(Some(given.len())));
    }
    Ok(Axes::Known(axes))
}

fn subject<N: Node>(node: &N, fact: &AxisFact) -> String {
    match fact.input {
        Some(input) => subject_of_input(node, input),
        None => format!("attribute '{}'", fact.name),
    }
}

/// An axis counted from the front.
fn range<N: Node>(node: &N, fact: &AxisFact, axis: i64, rank: usize) -> Result<usize, Fault> {
    let r = rank as i64;
    let (low, high) = match fact.range {
        AxisRange::Signed => (-r, r - 1),
        AxisRange::Inclusive => (-r, r),
        AxisRange::Unsigned => (0, r - 1),
    };
    if axis < low || axis > high {
        let what = match fact.list {
            true => format!("a list with {axis}"),
            false => axis.to_string(),
        };
        return Err(Fault {
            subject: subject(node, fact),
            found: what,
            expected: match high < low {
                true => "no axis: the rank is 0".to_string(),
                false => format!("{low} to {high} for rank {rank}"),
            },
        });
    }
    Ok(if axis < 0 { axis + r } else { axis } as usize)
}

// ---- cases and sizes -----------------------------------------------------------------------------

/// The first case whose conditions hold; none if that cannot be told.
fn case<'f, N: Node>(node: &N, cases: &'f [Case]) -> Option<&'f Case> {
    'cases: for case in cases {
        for condition in &case.conditions {
            match holds(node, condition) {
                Some(true) => {}
                Some(false) => continue 'cases,
                None => return None,
            }
        }
        return Some(case);
    }
    None
}

fn holds<N: Node>(node: &N, condition: &Condition) -> Option<bool> {
    match *condition {
        Condition::Equals(name, value) => {
            let text = node
                .schema()
                .attribute(name)
                .is_some_and(|a| a.kind == AttributeType::String);
            let found = match text {
                true => word(node, name),
                false => match int(node, name) {
                    Given::Known(number) => Given::Known(number.to_string()),
                    Given::Hidden => Given::Hidden,
                    Given::Absent => Given::Absent,
                },
            };
            match found {
                Given::Known(found) => Some(found == value),
                Given::Absent => Some(false),
                Given::Hidden => None,
            }
        }
        Condition::Attribute(name, given) => {
            let absent = match node.schema().attribute(name)?.kind {
                AttributeType::Int => matches!(node.int(name), Given::Absent),
                AttributeType::String => matches!(node.word(name), Given::Absent),
                _ => matches!(node.ints(name), Given::Absent),
            };
            Some(absent != given)
        }
        Condition::Input(input, given) => Some(node.given(input) == given),
        Condition::Rank(input, rank) => Some(node.shape(input)?.len() == rank),
    }
}

/// Where a variable was bound: an input and an axis of it.
type Origin = (usize, usize);

/// What the variables of a case stand for.
struct Sizes<'n, N: Node> {
    node: &'n N,
    variables: Vec<(&'static str, Option<N::Size>, Origin)>,
    groups: Vec<(&'static str, Shape<N::Size>, Origin)>,
}

impl<'n, N: Node> Sizes<'n, N> {
    /// Reads the variables off the inputs, and compares where one is told twice.
    fn bind(node: &'n N, case: &Case) -> Result<Self, Fault> {
        let mut sizes = Sizes {
            node,
            variables: Vec::new(),
            groups: Vec::new(),
        };
        for compare in [false, true] {
            for (input, items) in &case.inputs {
                if node.given(*input) {
                    sizes.bind_input(*input, items, compare)?;
                }
            }
        }
        Ok(sizes)
    }

    fn bind_input(&mut self, input: usize, items: &[Item], compare: bool) -> Result<(), Fault> {
        let node = self.node;
        let Some(shape) = node.shape(input) else {
            return Ok(());
        };
        let group = items.iter().position(|item| matches!(item, Item::Group(_)));
        let least = items.len() - usize::from(group.is_some());
        if shape.len() < least || group.is_none() && shape.len() > least {
            let or_more = if group.is_some() { " or more" } else { "" };
            return Err(Fault {
                subject: subject_of_input(node, input),
                found: format!("of rank {}", shape.len()),
                expected: format!("rank {least}{or_more}"),
            });
        }
        let grouped = shape.len() - least;
        let mut at = 0;
        for item in items {
            match item {
                Item::Group(name) => {
                    let part = shape.get(at..at + grouped).unwrap_or_default();
                    self.bind_group(name, part, (input, at), compare)?;
                    at += grouped;
                }
                Item::One(expr) => {
                    let found = shape.get(at).cloned().flatten();
                    self.bind_size(expr, found, (input, at), compare)?;
                    at += 1;
                }
                _ => at += 1,
            }
        }
        Ok(())
    }

    fn bind_size(
        &mut self,
        expr: &Expr,
        found: Option<N::Size>,
        origin: Origin,
        compare: bool,
    ) -> Result<(), Fault> {
        if let Expr::Variable(name) = expr
            && !compare
        {
            match self.variables.iter_mut().find(|v| v.0 == *name) {
                Some(known) => {
                    if known.1.is_none() && found.is_some() {
                        (known.1, known.2) = (found, origin);
                    }
                }
                None => self.variables.push((name, found, origin)),
            }
            return Ok(());
        }
        let (true, Some(found), Some(expected)) = (compare, found, self.expr(expr, None)) else {
            return Ok(());
        };
        let told = match expr {
            Expr::Variable(name) => self.variables.iter().find(|v| v.0 == *name).map(|v| v.2),
            _ => None,
        };
        self.same(&found, &expected, origin, told)
    }

    fn bind_group(
        &mut self,
        name: &'static str,
        found: &[Option<N::Size>],
        origin: Origin,
        compare: bool,
    ) -> Result<(), Fault> {
        let Some(known) = self.groups.iter_mut().find(|g| g.0 == name) else {
            self.groups.push((name, found.to_vec(), origin));
            return Ok(());
        };
        let shape = &mut known.1;
        if shape.len() != found.len() {
            return Err(Fault {
                subject: subject_of_input(self.node, origin.0),
                found: format!("with {} axes of '{name}'", found.len()),
                expected: shape.len().to_string(),
            });
        }
        if !compare {
            for (size, found) in shape.iter_mut().zip(found) {
                if size.is_none() {
                    size.clone_from(found);
                }
            }
            return Ok(());
        }
        let (shape, told) = (shape.clone(), known.2);
        for (axis, pair) in found.iter().zip(&shape).enumerate() {
            if let (Some(found), Some(expected)) = pair {
                let told = Some((told.0, told.1 + axis));
                self.same(found, expected, (origin.0, origin.1 + axis), told)?;
            }
        }
        Ok(())
    }

    fn same(
        &self,
        found: &N::Size,
        expected: &N::Size,
        (input, axis): Origin,
        told: Option<Origin>,
    ) -> Result<(), Fault> {
        if self.node.equal(found, expected) != Some(false) {
            return Ok(());
        }
        let mut wanted = self.node.text(expected);
        if let Some((input, axis)) = told {
            let other = subject_of_input(self.node, input);
            wanted = format!("{wanted} as dimension {axis} of {other}");
        }
        Err(Fault {
            subject: format!("dimension {axis} of {}", subject_of_input(self.node, input)),
            found: self.node.text(found),
            expected: wanted,
        })
    }

    /// What an expression is, if that is known; `old`: what [`OLD`] stands for.
    fn expr(&self, expr: &Expr, old: Option<&N::Size>) -> Option<N::Size> {
        let node = self.node;
        match expr {
            Expr::Any => None,
            Expr::Number(number) => Some(node.size(*number)),
            Expr::Variable(OLD) => old.cloned(),
            Expr::Variable(name) => {
                let variable = self.variables.iter().find(|v| v.0 == *name)?;
                variable.1.clone()
            }
            Expr::Attribute(name) => int(node, name).known().map(|number| node.size(number)),
            Expr::Element(input) => match node.elements(*input)?.as_slice() {
                [only] => only.clone(),
                _ => None,
            },
            Expr::Rank(input) => Some(node.size(node.shape(*input)?.len() as i64)),
            Expr::Of(operation, a, b) => {
                node.combine(*operation, &self.expr(a, old)?, &self.expr(b, old)?)
            }
        }
    }

    /// The shape of the output of a number.
    fn shape(&self, rule: &ShapeRule, output: usize) -> Result<Option<Shape<N::Size>>, Fault> {
        let node = self.node;
        match rule {
            ShapeRule::Unknown => Ok(None),
            ShapeRule::Input(input) => Ok(node.shape(*input)),
            ShapeRule::Sizes(items) => Ok(self.sizes(items)),
            ShapeRule::Set(input, list) => {
                let Some(mut shape) = node.shape(*input) else {
                    return Ok(None);
                };
                for (at, size) in list {
                    self.set(&mut shape, *at, size)?;
                }
                Ok(Some(shape))
            }
            ShapeRule::Function(function, inputs) => {
                functions::shape(node, *function, inputs, output)
            }
        }
    }

    fn set(&self, shape: &mut Shape<N::Size>, at: At, size: &Expr) -> Result<(), Fault> {
        let rank = shape.len();
        let axis = match at {
            At::Fact(name) => axis(self.node, name, rank)?,
            At::Axis(axis @ ..0) => usize::try_from(axis + rank as i64).ok(),
            At::Axis(axis) => usize::try_from(axis).ok(),
        };
        match axis {
            Some(axis) => {
                if let Some(place) = shape.get_mut(axis) {
                    *place = self.expr(size, place.as_ref());
                }
            }
            // Whichever it is, it stays.
            None if *size == Expr::Variable(OLD) => {}
            // It may be any of them.
            None => shape.iter_mut().for_each(|size| *size = None),
        }
        Ok(())
    }

    fn sizes(&self, items: &[Item]) -> Option<Shape<N::Size>> {
        let node = self.node;
        let group = |name: &str| {
            let group = self.groups.iter().find(|g| g.0 == name)?;
            Some(group.1.clone())
        };
        let mut shape = Vec::new();
        for item in items {
            match item {
                Item::One(expr) => shape.push(self.expr(expr, None)),
                Item::Group(name) => shape.extend(group(name)?),
                Item::AnyOf(name) => shape.extend(group(name)?.iter().map(|_| None)),
                Item::Ones(name) => shape.extend(group(name)?.iter().map(|_| Some(node.size(1)))),
                Item::Attribute(name) => {
                    let list = node.ints(name).known()?;
                    shape.extend(list.iter().map(|n| Some(node.size(*n))));
                }
                Item::Elements(input, from) => {
                    let all = elements(node, *input).known()?;
                    shape.extend(all.into_iter().skip(*from));
                }
            }
        }
        Some(shape)
    }
}
