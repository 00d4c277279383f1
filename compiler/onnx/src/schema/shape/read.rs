//! The lines of an operator in `shapes.txt`, against its signature.
//!
//! The table is ours: a line that cannot be read, or names what the signature does not have, is `None`, and a test reads
//! every line at every version for which it holds.

use super::{
    Absent, At, AxisFact, AxisRange, Case, Condition, Counted, Expr, Function, Item, Operation,
    ShapeFacts, ShapeRule,
};
use crate::schema::{Parameter, Schema};

/// The facts of an operator, from all its lines of one version.
pub(in crate::schema) fn facts(schema: &Schema, lines: &[&'static str]) -> Option<ShapeFacts> {
    let mut facts = ShapeFacts::default();
    for line in lines {
        let mut fields = line.split('|').map(str::trim);
        let head = fields.next()?;
        let mut next = || fields.next().unwrap_or("");
        let (inputs, outputs, axes) = (next(), next(), next());
        // Name, version, and then perhaps `if` and conditions.
        let conditions = head.split_ascii_whitespace().skip(3);
        let words = head
            .split_ascii_whitespace()
            .take(2)
            .map(str::len)
            .sum::<usize>();
        let mut case = Case {
            text: line.get(words + 1..)?.trim_start(),
            conditions: conditions
                .map(|text| condition(schema, text))
                .collect::<Option<_>>()?,
            inputs: Vec::new(),
            outputs: Vec::new(),
            axes: Vec::new(),
        };
        for statement in parts(inputs) {
            let (name, list) = statement.split_once(' ')?;
            case.inputs
                .push((position(&schema.inputs, name)?, sizes(schema, list)?));
        }
        for statement in parts(outputs) {
            let (name, shape) = statement.split_once(' ')?;
            case.outputs
                .push((position(&schema.outputs, name)?, rule(schema, shape)?));
        }
        for text in axes.split_ascii_whitespace() {
            case.axes.push(axis(schema, text)?);
        }
        let known = case.outputs.iter().all(|(_, rule)| match rule {
            ShapeRule::Set(_, list) => list.iter().all(|(at, _)| match at {
                At::Fact(name) => case.axes.iter().any(|fact| fact.name == *name),
                At::Axis(_) => true,
            }),
            _ => true,
        });
        facts.cases.push(known.then_some(case)?);
    }
    Some(facts)
}

fn position(list: &[Parameter], name: &str) -> Option<usize> {
    list.iter().position(|parameter| parameter.name == name)
}

/// The parts of a text between commas that stand in no brackets.
fn parts(text: &'static str) -> impl Iterator<Item = &'static str> {
    let mut depth = 0i32;
    let split = text.split(move |c: char| {
        depth += match c {
            '(' | '[' => 1,
            ')' | ']' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    });
    split.map(str::trim).filter(|part| !part.is_empty())
}

fn condition(schema: &Schema, text: &'static str) -> Option<Condition> {
    let attribute = |name: &str| schema.attribute(name).map(|a| a.name);
    if let Some(rest) = text.strip_prefix('#') {
        let (name, rank) = rest.split_once('=')?;
        let input = position(&schema.inputs, name)?;
        return Some(Condition::Rank(input, rank.parse().ok()?));
    }
    let (text, given) = match text.strip_prefix('!') {
        Some(rest) => (rest, false),
        None => (text, true),
    };
    let Some(name) = text.strip_prefix('@') else {
        return Some(Condition::Input(position(&schema.inputs, text)?, given));
    };
    match name.split_once('=') {
        Some((name, value)) => Some(Condition::Equals(attribute(name)?, value)),
        None => Some(Condition::Attribute(attribute(name)?, given)),
    }
}

fn rule(schema: &Schema, text: &'static str) -> Option<ShapeRule> {
    if text == "?" {
        return Some(ShapeRule::Unknown);
    }
    if text.starts_with('[') {
        return Some(ShapeRule::Sizes(sizes(schema, text)?));
    }
    let Some((name, arguments)) = text.split_once('(') else {
        return Some(ShapeRule::Input(position(&schema.inputs, text)?));
    };
    let mut arguments = parts(arguments.strip_suffix(')')?);
    if name == "set" {
        let input = position(&schema.inputs, arguments.next()?)?;
        let set = arguments.map(|one| {
            let (at, size) = one.split_once('=')?;
            let at = match at.trim().parse() {
                Ok(axis) => At::Axis(axis),
                Err(_) => At::Fact(at.trim()),
            };
            Some((at, expr(schema, size)?))
        });
        return Some(ShapeRule::Set(input, set.collect::<Option<_>>()?));
    }
    let function = Function::ALL.iter().find(|f| f.name() == name)?;
    let inputs = arguments.map(|name| position(&schema.inputs, name));
    Some(ShapeRule::Function(
        *function,
        inputs.collect::<Option<_>>()?,
    ))
}

fn sizes(schema: &Schema, text: &'static str) -> Option<Vec<Item>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    parts(inner).map(|text| item(schema, text)).collect()
}

fn item(schema: &Schema, text: &'static str) -> Option<Item> {
    let Some(group) = text.strip_suffix("...") else {
        return Some(Item::One(expr(schema, text)?));
    };
    if let Some(name) = group.strip_prefix('@') {
        return Some(Item::Attribute(schema.attribute(name)?.name));
    }
    if let Some(name) = group.strip_prefix('$') {
        let (name, from) = match name.strip_suffix(']') {
            Some(rest) => rest.split_once('[')?,
            None => (name, "0"),
        };
        let input = position(&schema.inputs, name)?;
        return Some(Item::Elements(input, from.parse().ok()?));
    }
    if let Some(inner) = group.strip_prefix("ones(") {
        return Some(Item::Ones(inner.strip_suffix(')')?));
    }
    if let Some(inner) = group.strip_prefix("any(") {
        return Some(Item::AnyOf(inner.strip_suffix(')')?));
    }
    is_variable(group).then_some(Item::Group(group))
}

fn is_variable(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric())
}

fn expr(schema: &Schema, text: &'static str) -> Option<Expr> {
    let mut rest = text.trim();
    let found = sum(schema, &mut rest)?;
    rest.is_empty().then_some(found)
}

fn sum(schema: &Schema, rest: &mut &'static str) -> Option<Expr> {
    let mut left = product(schema, rest)?;
    loop {
        let operation = match rest.chars().next() {
            Some('+') => Operation::Add,
            Some('-') => Operation::Subtract,
            _ => return Some(left),
        };
        *rest = rest.get(1..)?.trim_start();
        let right = product(schema, rest)?;
        left = Expr::Of(operation, Box::new(left), Box::new(right));
    }
}

fn product(schema: &Schema, rest: &mut &'static str) -> Option<Expr> {
    let mut left = atom(schema, rest)?;
    loop {
        let operation = match rest.chars().next() {
            Some('*') => Operation::Multiply,
            Some('/') => Operation::Divide,
            _ => return Some(left),
        };
        *rest = rest.get(1..)?.trim_start();
        let right = atom(schema, rest)?;
        left = Expr::Of(operation, Box::new(left), Box::new(right));
    }
}

fn atom(schema: &Schema, rest: &mut &'static str) -> Option<Expr> {
    if let Some(inner) = rest.strip_prefix('(') {
        *rest = inner.trim_start();
        let found = sum(schema, rest)?;
        *rest = rest.strip_prefix(')')?.trim_start();
        return Some(found);
    }
    let (sign, word) = match rest.chars().next()? {
        sign @ ('@' | '$' | '#') => (Some(sign), rest.get(1..)?),
        _ => (None, *rest),
    };
    let end = word
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(word.len());
    let (name, after) = word.split_at_checked(end)?;
    *rest = after.trim_start();
    match sign {
        Some('@') => Some(Expr::Attribute(schema.attribute(name)?.name)),
        Some('$') => Some(Expr::Element(position(&schema.inputs, name)?)),
        Some(_) => Some(Expr::Rank(position(&schema.inputs, name)?)),
        None if name == "_" => Some(Expr::Any),
        None if is_variable(name) => Some(Expr::Variable(name)),
        None => name.parse().ok().map(Expr::Number),
    }
}

fn axis(schema: &Schema, text: &'static str) -> Option<AxisFact> {
    let (text, absent) = match text.split_once('=') {
        None => (text, Absent::Default),
        Some((text, "all")) => (text, Absent::All),
        Some((text, "ones")) => (text, Absent::Ones),
        Some((text, "first")) => (text, Absent::First),
        Some((text, "reversed")) => (text, Absent::Reversed),
        Some((text, number)) => (text, Absent::Axis(number.parse().ok()?)),
    };
    let (name, of) = text.split_once(':')?;
    let (of, range) = match (of.strip_suffix('+'), of.strip_suffix('^')) {
        (Some(of), _) => (of, AxisRange::Inclusive),
        (_, Some(of)) => (of, AxisRange::Unsigned),
        _ => (of, AxisRange::Signed),
    };
    let (name, list, distinct) = match (name.strip_suffix("[]"), name.strip_suffix("{}")) {
        (Some(name), _) => (name, true, false),
        (_, Some(name)) => (name, true, true),
        _ => (name, false, false),
    };
    // An input that became one from an attribute has its name.
    let (name, input) = match schema.attribute(name) {
        Some(attribute) => (attribute.name, None),
        None => {
            let input = position(&schema.inputs, name)?;
            (schema.inputs.get(input)?.name, Some(input))
        }
    };
    let of = match position(&schema.inputs, of) {
        Some(input) => Counted::Input(input),
        None => Counted::Output(position(&schema.outputs, of)?),
    };
    Some(AxisFact {
        name,
        input,
        of,
        list,
        distinct,
        range,
        absent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Lookup, look_up};

    fn schema(name: &str, version: i64) -> Schema {
        match look_up("", name, version) {
            Lookup::Found(schema) => schema,
            other => panic!("{name} {version}: {other:?}"),
        }
    }

    #[test]
    fn a_size_is_read_with_the_usual_precedence() {
        let conv = schema("Conv", 22);
        let text = |text: &'static str| expr(&conv, text);
        let number = |n| Box::new(Expr::Number(n));
        let product = Expr::Of(
            Operation::Multiply,
            number(2),
            Box::new(Expr::Variable("H")),
        );
        let sum = Expr::Of(Operation::Subtract, number(1), Box::new(product));
        assert_eq!(text("1 - 2 * H"), Some(sum.clone()));
        assert_eq!(text("1-(2*H)"), Some(sum));
        assert_eq!(text("@group"), Some(Expr::Attribute("group")));
        assert_eq!(text("#W"), Some(Expr::Rank(1)));
        for bad in ["", "1 +", "(1", "@nothing", "$Q", "lower", "1)", "H H"] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_the_signature_does_not_have_is_no_line() {
        let gather = schema("Gather", 13);
        let read = |line: &'static str| facts(&gather, &[line]);
        let good =
            read("Gather 1 | data [S...] | output gather(data, indices) | axis:data").unwrap();
        assert_eq!(good.cases[0].axes[0].of, Counted::Input(0));
        for bad in [
            "Gather 1 | x [] | output data",
            "Gather 1 | | y data",
            "Gather 1 | | output gather(data, index)",
            "Gather 1 | | output grab(data)",
            "Gather 1 | | output set(data, axes = 1) | axis:data",
            "Gather 1 | | output data | axes:data",
            "Gather 1 if @mode=1 | | output data",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
