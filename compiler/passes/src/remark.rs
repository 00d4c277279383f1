//! Remarks: what a pass wanted to do at a node and why it did not (or, where it is worth a line,
//! that it did). They reach the user through `lapidary show`, so they speak of ONNX names.

use std::fmt;

/// One line about one node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Remark {
    /// The pass that says it.
    pub pass: &'static str,
    /// ONNX name of the node.
    pub node: String,
    /// What could not be done, and why.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.pass, self.node, self.text)
    }
}

/// Collects remarks; a repeated pass says the same thing once.
#[derive(Clone, Default, Debug)]
pub struct Remarks {
    /// In the order in which they were made.
    pub list: Vec<Remark>,
}

impl Remarks {
    /// Adds one, if it is new.
    pub fn add(&mut self, pass: &'static str, node: &str, text: impl Into<String>) {
        let remark = Remark {
            pass,
            node: node.to_string(),
            text: text.into(),
        };
        if !self.list.contains(&remark) {
            self.list.push(remark);
        }
    }
}
