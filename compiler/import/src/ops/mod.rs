//! The rules, one operator family a file. A rule reads one ONNX node through [`crate::context::Ctx`]
//! and leaves core operators behind; where versions of an operator differ, the rule says so.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod bytes;
pub(crate) mod cast;
pub(crate) mod contrib;
pub(crate) mod conv;
pub(crate) mod gather;
pub(crate) mod generate;
pub(crate) mod labels;
pub(crate) mod library;
pub(crate) mod linear;
pub(crate) mod maps;
pub(crate) mod matmul;
pub(crate) mod ml;
pub(crate) mod norm;
pub(crate) mod optional;
pub(crate) mod packed;
pub(crate) mod pointwise;
pub(crate) mod pool;
pub(crate) mod quant;
pub(crate) mod random;
pub(crate) mod recurrent;
pub(crate) mod reduce;
pub(crate) mod resize;
pub(crate) mod sequence;
pub(crate) mod softmax;
pub(crate) mod strings;
pub(crate) mod svm;
pub(crate) mod training;
pub(crate) mod trees;
pub(crate) mod views;
