//! The operators: which rule imports which, from which opset to which.
//!
//! The one list of what is handled. What ONNX defines (versions, inputs, types, attributes) is known to
//! [`lapidary_onnx::schema`]: the error can tell an operator that is not implemented from one that does not exist,
//! and the types that an operator takes are not listed again here. `docs/operators.md` is made from both.

use crate::context::Rule;
use crate::error::{Fail, invalid, unsupported};
use crate::ops::*;
use lapidary_graph::DType;
use lapidary_onnx::DataType;
use lapidary_onnx::schema::{self, Lookup};

/// Oldest and newest version of the default domain.
pub(crate) const OPSETS: (i64, i64) = (1, 28);
/// Oldest and newest version of `ai.onnx.ml`.
pub(crate) const ML_OPSETS: (i64, i64) = (1, 5);

/// One line: domain, operator, first and last opset with this rule, rule.
struct Entry(&'static str, &'static str, i64, i64, Rule);

const END: i64 = i64::MAX;
const ML: &str = "ai.onnx.ml";
/// The domain of onnxruntime's own operators.
const MS: &str = schema::ONNXRUNTIME.0;
const PREVIEW: &str = "ai.onnx.preview";
const TRAINING: &str = "ai.onnx.preview.training";
/// The only version of the preview domains.
const PREVIEW_OPSETS: (i64, i64) = (1, 1);

#[rustfmt::skip]
static TABLE: &[Entry] = &[
    // One expression an element.
    Entry("", "Abs", 1, END, pointwise::unary),
    Entry("", "Acos", 7, END, pointwise::unary),
    Entry("", "Acosh", 9, END, pointwise::unary),
    Entry("", "Add", 6, END, pointwise::binary),
    Entry("", "And", 1, END, pointwise::binary),
    Entry("", "Asin", 7, END, pointwise::unary),
    Entry("", "Asinh", 9, END, pointwise::unary),
    Entry("", "Atan", 7, END, pointwise::unary),
    Entry("", "Atanh", 9, END, pointwise::unary),
    Entry("", "BitCast", 26, END, cast::bit_cast),
    Entry("", "BitShift", 11, END, pointwise::bit_shift),
    Entry("", "BitwiseAnd", 18, END, pointwise::binary),
    Entry("", "BitwiseNot", 18, END, pointwise::unary),
    Entry("", "BitwiseOr", 18, END, pointwise::binary),
    Entry("", "BitwiseXor", 18, END, pointwise::binary),
    Entry("", "Cast", 6, END, cast::cast),
    Entry("", "CastLike", 15, END, cast::cast_like),
    Entry("", "Ceil", 6, END, pointwise::unary),
    Entry("", "Clip", 6, END, pointwise::clip),
    Entry("", "Cos", 7, END, pointwise::unary),
    Entry("", "Cosh", 9, END, pointwise::unary),
    Entry("", "Div", 6, END, pointwise::binary),
    Entry("", "Dropout", 1, END, random::dropout),
    Entry("", "Equal", 1, END, pointwise::binary),
    Entry("", "Erf", 9, END, pointwise::unary),
    Entry("", "Exp", 6, END, pointwise::unary),
    Entry("", "Floor", 6, END, pointwise::unary),
    Entry("", "Greater", 1, END, pointwise::binary),
    Entry("", "GreaterOrEqual", 12, END, pointwise::binary),
    Entry("", "Identity", 1, END, pointwise::identity),
    Entry("", "IsInf", 10, END, pointwise::is_inf),
    Entry("", "IsNaN", 9, END, pointwise::is_nan),
    Entry("", "Less", 1, END, pointwise::binary),
    Entry("", "LessOrEqual", 12, END, pointwise::binary),
    Entry("", "Log", 6, END, pointwise::unary),
    Entry("", "Max", 6, END, pointwise::variadic),
    Entry("", "Mean", 6, END, pointwise::variadic),
    Entry("", "Min", 6, END, pointwise::variadic),
    Entry("", "Mod", 10, END, pointwise::modulo),
    Entry("", "Mul", 6, END, pointwise::binary),
    Entry("", "Neg", 6, END, pointwise::unary),
    Entry("", "Not", 1, END, pointwise::unary),
    Entry("", "Or", 1, END, pointwise::binary),
    Entry("", "Pow", 1, END, pointwise::pow),
    Entry("", "Reciprocal", 6, END, pointwise::unary),
    Entry("", "Round", 11, END, pointwise::unary),
    Entry("", "Sigmoid", 6, END, pointwise::unary),
    Entry("", "Sign", 9, END, pointwise::unary),
    Entry("", "Sin", 7, END, pointwise::unary),
    Entry("", "Sinh", 9, END, pointwise::unary),
    Entry("", "Sqrt", 6, END, pointwise::unary),
    Entry("", "Sub", 6, END, pointwise::binary),
    Entry("", "Sum", 6, END, pointwise::variadic),
    Entry("", "Tan", 7, END, pointwise::unary),
    Entry("", "Tanh", 6, END, pointwise::unary),
    Entry("", "Where", 9, END, pointwise::where_),
    Entry("", "Xor", 1, END, pointwise::binary),
    // Activations.
    Entry("", "Celu", 12, END, activation::activation),
    Entry("", "Elu", 6, END, activation::activation),
    Entry("", "Gelu", 20, END, activation::activation),
    Entry("", "HardSigmoid", 6, END, activation::activation),
    Entry("", "HardSwish", 14, END, activation::activation),
    Entry("", "LeakyRelu", 6, END, activation::activation),
    Entry("", "Mish", 18, END, activation::activation),
    Entry("", "PRelu", 6, END, activation::prelu),
    Entry("", "Relu", 6, END, activation::activation),
    Entry("", "Selu", 6, END, activation::activation),
    Entry("", "Shrink", 9, END, activation::activation),
    Entry("", "Softplus", 1, END, activation::activation),
    Entry("", "Softsign", 1, END, activation::activation),
    Entry("", "SwiGLU", 28, END, activation::swiglu),
    Entry("", "Swish", 24, END, activation::activation),
    Entry("", "ThresholdedRelu", 10, END, activation::activation),
    // Tensors made from numbers and indices.
    Entry("", "BlackmanWindow", 17, END, generate::window),
    Entry("", "Constant", 1, END, generate::constant),
    Entry("", "ConstantOfShape", 9, END, generate::constant_of_shape),
    Entry("", "EyeLike", 9, END, generate::eye_like),
    Entry("", "HammingWindow", 17, END, generate::window),
    Entry("", "HannWindow", 17, END, generate::window),
    Entry("", "OneHot", 9, END, generate::one_hot),
    Entry("", "Range", 11, END, generate::range),
    Entry("", "Shape", 1, END, generate::shape),
    Entry("", "Size", 1, END, generate::size),
    Entry("", "Trilu", 14, END, generate::trilu),
    // Views and copies.
    Entry("", "CenterCropPad", 18, END, views::center_crop_pad),
    Entry("", "Concat", 4, END, views::concat),
    Entry("", "DepthToSpace", 1, END, views::depth_to_space),
    Entry("", "Expand", 8, END, views::expand),
    Entry("", "Flatten", 1, END, views::flatten),
    Entry("", "Pad", 2, END, views::pad),
    Entry("", "Reshape", 5, END, views::reshape),
    Entry("", "Slice", 1, END, views::slice),
    Entry("", "SpaceToDepth", 1, END, views::space_to_depth),
    Entry("", "Split", 2, END, views::split),
    Entry("", "Squeeze", 1, END, views::squeeze),
    Entry("", "Tile", 6, END, views::tile),
    Entry("", "Transpose", 1, END, views::transpose),
    Entry("", "Unsqueeze", 1, END, views::unsqueeze),
    // Products.
    Entry("", "Einsum", 12, END, matmul::einsum),
    Entry("", "Gemm", 6, END, matmul::gemm),
    Entry("", "MatMul", 1, END, matmul::matmul),
    // Convolutions and pools.
    Entry("", "AveragePool", 1, END, pool::pool),
    Entry("", "CausalConvWithState", 27, END, conv::causal_conv),
    Entry("", "Conv", 1, END, conv::conv),
    Entry("", "ConvTranspose", 1, END, conv::conv_transpose),
    Entry("", "GlobalAveragePool", 1, END, pool::global),
    Entry("", "GlobalLpPool", 2, END, pool::global),
    Entry("", "GlobalMaxPool", 1, END, pool::global),
    Entry("", "LpPool", 2, END, pool::pool),
    Entry("", "LRN", 1, END, pool::lrn),
    Entry("", "MaxPool", 1, END, pool::pool),
    // Reductions.
    Entry("", "ArgMax", 1, END, reduce::arg),
    Entry("", "ArgMin", 1, END, reduce::arg),
    Entry("", "CumProd", 26, END, reduce::cumulative),
    Entry("", "CumSum", 11, END, reduce::cumulative),
    Entry("", "Hardmax", 1, END, reduce::hardmax),
    Entry("", "ReduceL1", 1, END, reduce::reduce),
    Entry("", "ReduceL2", 1, END, reduce::reduce),
    Entry("", "ReduceLogSum", 1, END, reduce::reduce),
    Entry("", "ReduceLogSumExp", 1, END, reduce::reduce),
    Entry("", "ReduceMax", 1, END, reduce::reduce),
    Entry("", "ReduceMean", 1, END, reduce::reduce),
    Entry("", "ReduceMin", 1, END, reduce::reduce),
    Entry("", "ReduceProd", 1, END, reduce::reduce),
    Entry("", "ReduceSum", 1, END, reduce::reduce),
    Entry("", "ReduceSumSquare", 1, END, reduce::reduce),
    // Normalisation.
    Entry("", "BatchNormalization", 6, END, norm::batch),
    Entry("", "GroupNormalization", 18, END, norm::group),
    Entry("", "InstanceNormalization", 6, END, norm::instance),
    Entry("", "LayerNormalization", 17, END, norm::layer),
    Entry("", "LpNormalization", 1, END, norm::lp),
    Entry("", "MeanVarianceNormalization", 9, END, norm::mean_variance),
    Entry("", "RMSNormalization", 23, END, norm::rms),
    Entry("", "LogSoftmax", 1, END, softmax::softmax),
    Entry("", "Softmax", 1, END, softmax::softmax),
    Entry("", "NegativeLogLikelihoodLoss", 12, END, softmax::nll_loss),
    Entry("", "SoftmaxCrossEntropyLoss", 12, END, softmax::cross_entropy),
    // Attention.
    Entry("", "Attention", 23, END, attention::attention),
    Entry("", "RotaryEmbedding", 23, END, attention::rotary),
    Entry("", "TensorScatter", 24, END, gather::tensor_scatter),
    // Gather and scatter.
    Entry("", "Compress", 9, END, gather::compress),
    Entry("", "Gather", 1, END, gather::gather),
    Entry("", "GatherElements", 11, END, gather::gather_elements),
    Entry("", "GatherND", 11, END, gather::gather_nd),
    Entry("", "Scatter", 9, END, gather::scatter_elements),
    Entry("", "ScatterElements", 11, END, gather::scatter_elements),
    Entry("", "ScatterND", 11, END, gather::scatter_nd),
    // Quantized.
    Entry("", "ConvInteger", 10, END, quant::conv_integer),
    Entry("", "DequantizeLinear", 10, END, quant::dequantize),
    Entry("", "DynamicQuantizeLinear", 11, END, quant::dynamic_quantize),
    Entry("", "MatMulInteger", 10, END, quant::matmul_integer),
    Entry("", "QLinearConv", 10, END, quant::qlinear_conv),
    Entry("", "QLinearMatMul", 10, END, quant::qlinear_matmul),
    Entry("", "QuantizeLinear", 10, END, quant::quantize),
    // Recurrent.
    Entry("", "GRU", 7, END, recurrent::recurrent),
    Entry("", "LSTM", 7, END, recurrent::recurrent),
    Entry("", "RNN", 7, END, recurrent::recurrent),
    // Images.
    Entry("", "AffineGrid", 20, END, library::affine_grid),
    Entry("", "GridSample", 16, END, library::grid_sample),
    Entry("", "MaxRoiPool", 1, END, library::max_roi_pool),
    Entry("", "Resize", 10, END, resize::resize),
    Entry("", "RoiAlign", 10, END, library::roi_align),
    Entry("", "Upsample", 7, 9, resize::upsample),
    Entry("", "Col2Im", 18, END, library::col2im),
    Entry("", "DeformConv", 19, END, library::deform_conv),
    Entry("", "MaxUnpool", 9, END, library::max_unpool),
    // Kernels of the library.
    Entry("", "DFT", 17, END, library::dft),
    Entry("", "Det", 11, END, library::det),
    Entry("", "LinearAttention", 27, END, library::linear_attention),
    Entry("", "MelWeightMatrix", 17, END, library::mel_weight_matrix),
    Entry("", "NonMaxSuppression", 10, END, library::non_max_suppression),
    Entry("", "NonZero", 9, END, library::non_zero),
    Entry("", "ReverseSequence", 10, END, library::reverse_sequence),
    Entry("", "STFT", 17, END, library::stft),
    Entry("", "TopK", 1, END, library::top_k),
    Entry("", "Unique", 11, END, library::unique),
    // Random numbers.
    Entry("", "Bernoulli", 15, END, random::bernoulli),
    Entry("", "Multinomial", 7, END, random::multinomial),
    Entry("", "RandomNormal", 1, END, random::normal),
    Entry("", "RandomNormalLike", 1, END, random::normal),
    Entry("", "RandomUniform", 1, END, random::uniform),
    Entry("", "RandomUniformLike", 1, END, random::uniform),
    // Sequences and optionals.
    Entry("", "ConcatFromSequence", 11, END, sequence::concat),
    Entry("", "Optional", 15, END, optional::optional),
    Entry("", "OptionalGetElement", 15, END, optional::get),
    Entry("", "OptionalHasElement", 15, END, optional::has),
    Entry("", "SequenceAt", 11, END, sequence::at),
    Entry("", "SequenceConstruct", 11, END, sequence::construct),
    Entry("", "SequenceEmpty", 11, END, sequence::empty),
    Entry("", "SequenceErase", 11, END, sequence::erase),
    Entry("", "SequenceInsert", 11, END, sequence::insert),
    Entry("", "SequenceLength", 11, END, sequence::length),
    Entry("", "SplitToSequence", 11, END, sequence::split),
    // Strings.
    Entry("", "RegexFullMatch", 20, END, strings::regex_full_match),
    Entry("", "StringConcat", 20, END, strings::concat),
    Entry("", "StringNormalizer", 10, END, strings::normalize),
    Entry("", "StringSplit", 20, END, strings::split),
    Entry("", "TfIdfVectorizer", 9, END, strings::tfidf),
    // Operators of onnxruntime.
    Entry("", "SimplifiedLayerNormalization", 1, END, contrib::norm::simplified),
    Entry("", "SkipSimplifiedLayerNormalization", 1, END, contrib::norm::skip),
    Entry(MS, "Attention", 1, END, contrib::attention::attention),
    Entry(MS, "BiasAdd", 1, END, contrib::activation::bias_add),
    Entry(MS, "BiasGelu", 1, END, contrib::activation::activation),
    Entry(MS, "BiasSoftmax", 1, END, contrib::fused::bias_softmax),
    Entry(MS, "BiasSplitGelu", 1, END, contrib::activation::split),
    Entry(MS, "DequantizeLinear", 1, END, quant::dequantize),
    Entry(MS, "DynamicQuantizeMatMul", 1, END, contrib::quant::dynamic_matmul),
    Entry(MS, "EmbedLayerNormalization", 1, END, contrib::embed::embed),
    Entry(MS, "ExpandDims", 1, END, contrib::views::expand_dims),
    Entry(MS, "FastGelu", 1, END, contrib::activation::activation),
    Entry(MS, "FusedConv", 1, END, contrib::fused::convolution),
    Entry(MS, "FusedGemm", 1, END, contrib::fused::gemm),
    Entry(MS, "FusedMatMul", 1, END, contrib::fused::matmul),
    Entry(MS, "FusedMatMulActivation", 1, END, contrib::fused::matmul),
    Entry(MS, "GatherBlockQuantized", 1, END, contrib::gather::block_quantized),
    Entry(MS, "GatherND", 1, END, gather::gather_nd),
    Entry(MS, "Gelu", 1, END, contrib::activation::activation),
    Entry(MS, "GroupNorm", 1, END, contrib::norm::group),
    Entry(MS, "GroupQueryAttention", 1, END, contrib::gqa::group_query),
    Entry(MS, "MatMulIntegerToFloat", 1, END, contrib::quant::matmul_to_float),
    Entry(MS, "MatMulNBits", 1, END, contrib::nbits::matmul),
    Entry(MS, "MultiHeadAttention", 1, END, contrib::attention::multi_head),
    Entry(MS, "NhwcConv", 1, END, contrib::nhwc::convolution),
    Entry(MS, "NhwcFusedConv", 1, END, contrib::nhwc::convolution),
    Entry(MS, "NhwcMaxPool", 1, END, contrib::nhwc::max_pool),
    Entry(MS, "Pad", 1, END, contrib::views::pad),
    Entry(MS, "QAttention", 1, END, contrib::attention::quantized),
    Entry(MS, "QGemm", 1, END, contrib::quant::gemm),
    Entry(MS, "QLinearAdd", 1, END, contrib::quant::binary),
    Entry(MS, "QLinearAveragePool", 1, END, contrib::quant::average),
    Entry(MS, "QLinearConcat", 1, END, contrib::quant::concat),
    Entry(MS, "QLinearConv", 1, END, contrib::quant::convolution),
    Entry(MS, "QLinearGlobalAveragePool", 1, END, contrib::quant::average),
    Entry(MS, "QLinearLeakyRelu", 1, END, contrib::quant::unary),
    Entry(MS, "QLinearMul", 1, END, contrib::quant::binary),
    Entry(MS, "QLinearReduceMean", 1, END, contrib::quant::reduce_mean),
    Entry(MS, "QLinearSigmoid", 1, END, contrib::quant::unary),
    Entry(MS, "QLinearSoftmax", 1, END, contrib::quant::soft),
    Entry(MS, "QLinearWhere", 1, END, contrib::quant::where_),
    Entry(MS, "QuantizeLinear", 1, END, quant::quantize),
    Entry(MS, "QuickGelu", 1, END, contrib::activation::activation),
    Entry(MS, "Range", 1, END, contrib::views::range),
    Entry(MS, "RotaryEmbedding", 1, END, contrib::rotary::rotary),
    Entry(MS, "SimplifiedLayerNormalization", 1, END, contrib::norm::simplified),
    Entry(MS, "SkipGroupNorm", 1, END, contrib::norm::group),
    Entry(MS, "SkipLayerNormalization", 1, END, contrib::norm::skip),
    Entry(MS, "SkipSimplifiedLayerNormalization", 1, END, contrib::norm::skip),
    Entry(MS, "Tokenizer", 1, END, strings::tokenizer),
    Entry(MS, "TransposeMatMul", 1, END, contrib::fused::matmul),
    Entry(MS, "Trilu", 1, END, generate::trilu),
    Entry(MS, "Unique", 1, END, contrib::views::unique),
    // Classical models.
    Entry(TRAINING, "Adagrad", 1, END, training::adagrad),
    Entry(TRAINING, "Adam", 1, END, training::adam),
    Entry(TRAINING, "Momentum", 1, END, training::momentum),
    Entry(ML, "ArrayFeatureExtractor", 1, END, ml::array_feature_extractor),
    Entry(ML, "Binarizer", 1, END, ml::binarizer),
    Entry(ML, "CastMap", 1, END, maps::cast_map),
    Entry(ML, "CategoryMapper", 1, END, labels::category_mapper),
    Entry(ML, "DictVectorizer", 1, END, maps::dict_vectorizer),
    Entry(ML, "FeatureVectorizer", 1, END, ml::feature_vectorizer),
    Entry(ML, "Imputer", 1, END, ml::imputer),
    Entry(ML, "LabelEncoder", 1, END, labels::label_encoder),
    Entry(ML, "LinearClassifier", 1, END, linear::linear_classifier),
    Entry(ML, "LinearRegressor", 1, END, linear::linear_regressor),
    Entry(ML, "Normalizer", 1, END, ml::normalizer),
    Entry(ML, "OneHotEncoder", 1, END, labels::one_hot_encoder),
    Entry(ML, "Scaler", 1, END, ml::scaler),
    Entry(ML, "SVMClassifier", 1, END, svm::classifier),
    Entry(ML, "SVMRegressor", 1, END, svm::regressor),
    Entry(ML, "TreeEnsemble", 5, END, trees::ensemble),
    Entry(ML, "TreeEnsembleClassifier", 1, END, trees::classifier),
    Entry(ML, "TreeEnsembleRegressor", 1, END, trees::regressor),
    Entry(ML, "ZipMap", 1, END, maps::zip_map),
];

/// Operators that run graphs: domain, operator, first opset. `regions` makes them.
static REGIONS: &[(&str, &str, i64)] = &[
    ("", "If", 1),
    ("", "Loop", 1),
    ("", "Scan", 8),
    ("", "SequenceMap", 17),
    (PREVIEW, "FlexAttention", 1),
];

/// Operators that ONNX defines for complex numbers too, and that are handled for real ones alone.
static REAL_ONLY: &[&str] = &[
    "Col2Im",
    "GridSample",
    "NonZero",
    "Resize",
    "Unique",
    "Upsample",
];

/// Whether an operator takes elements of a type without arithmetic (8-bit floats, what is below a byte, complex
/// numbers): if ONNX lists the type for an input, at any version.
pub(crate) fn takes_storage(domain: &str, op: &str, dtype: DType) -> bool {
    if dtype.is_complex() && domain.is_empty() && REAL_ONLY.contains(&op) {
        return false;
    }
    let wanted = DataType::from_wire(dtype as i32);
    schema::versions(domain, op).any(|s| {
        let mut sets = s.inputs.iter().map(|p| s.types(p));
        sets.any(|set| {
            set.tensors().any(|t| Some(t) == wanted)
                || set.others().iter().any(|t| Some(t.element()) == wanted)
        })
    })
}

/// Whether an operator takes sequences, optionals or maps: if ONNX lists one for an input, at any version.
pub(crate) fn takes_containers(domain: &str, op: &str) -> bool {
    schema::versions(domain, op).any(|s| {
        let mut sets = s.inputs.iter().map(|p| s.types(p));
        sets.any(|set| !set.others().is_empty())
    })
}

/// Whether an operator runs graphs.
pub(crate) fn is_region(domain: &str, op: &str, opset: i64) -> Result<bool, Fail> {
    let Some((.., since)) = REGIONS.iter().find(|r| r.0 == domain && r.1 == op) else {
        return Ok(false);
    };
    check_opset(range(domain).unwrap_or(OPSETS), opset)?;
    if opset < *since {
        return Err(invalid(format!("{op} is not defined at opset {opset}")));
    }
    Ok(true)
}

fn check_opset(range: (i64, i64), opset: i64) -> Result<(), Fail> {
    if opset < range.0 || opset > range.1 {
        return Err(unsupported(format!(
            "opset {opset} (expected {} to {})",
            range.0, range.1
        ))
        .hint("convert the model with onnx.version_converter"));
    }
    Ok(())
}

/// What to do about an operator that is left out for good.
fn hint(op: &str) -> Option<&'static str> {
    match op {
        "ImageDecoder" => {
            Some("decode the picture in the application, and give its pixels to the model")
        }
        "Gradient" => Some("gradients are for training; export the model for inference"),
        _ => None,
    }
}

/// The rule for an operator at an opset.
pub(crate) fn find(domain: &str, op: &str, opset: i64) -> Result<Rule, Fail> {
    let Some(range) = range(domain) else {
        return Err(unsupported(format!("operators of the domain '{domain}'"))
            .hint("only ai.onnx, ai.onnx.ml, com.microsoft, functions inside the model, and operators of your own (--operators) are handled"));
    };
    check_opset(range, opset)?;
    let rules = || TABLE.iter().filter(|e| e.0 == domain && e.1 == op);
    if let Some(e) = rules().find(|e| (e.2..=e.3).contains(&opset)) {
        return Ok(e.4);
    }
    Err(match schema::look_up(domain, op, opset) {
        Lookup::Found(_) => match rules().map(|e| e.2).filter(|first| *first > opset).min() {
            Some(first) => {
                unsupported(format!("{op} of opset {opset} (expected {first} or later)"))
                    .hint("convert the model with onnx.version_converter")
            }
            None => match hint(op) {
                Some(hint) => unsupported("this operator is not implemented").hint(hint),
                None => unsupported("this operator is not implemented"),
            },
        },
        Lookup::Deprecated(since) => invalid(format!("{op} must not be used since opset {since}"))
            .hint("convert the model with onnx.version_converter"),
        Lookup::Later(since) => invalid(format!(
            "{op} is not defined at opset {opset}: it came with opset {since}"
        )),
        Lookup::NoOperator => invalid(format!("ONNX defines no operator '{op}'"))
            .hint("is it a custom operator without a domain?"),
        Lookup::NoDomain => unsupported("this operator is not implemented"),
    })
}

/// An operator that is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operator {
    /// Its domain; the default one is empty.
    pub domain: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The first version of the domain at which it is handled.
    pub first: i64,
    /// The last one.
    pub last: i64,
}

/// All operators that are handled, one entry for each range of versions with a rule of its own.
pub fn operators() -> impl Iterator<Item = Operator> {
    let rules = TABLE.iter().map(|e| (e.0, e.1, e.2, e.3));
    let regions = REGIONS.iter().map(|r| (r.0, r.1, r.2, END));
    rules
        .chain(regions)
        .map(|(domain, name, first, last)| Operator {
            domain,
            name,
            first,
            last: last.min(range(domain).map_or(END, |r| r.1)),
        })
}

/// Oldest and newest version of a domain.
fn range(domain: &str) -> Option<(i64, i64)> {
    match domain {
        "" => Some(OPSETS),
        ML => Some(ML_OPSETS),
        PREVIEW | TRAINING => Some(PREVIEW_OPSETS),
        MS => Some((1, schema::ONNXRUNTIME.1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operator_stands_once() {
        let mut all: Vec<_> = operators().map(|o| (o.domain, o.name)).collect();
        let n = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), n);
    }

    #[test]
    fn each_operator_with_a_rule_is_defined_when_its_rule_begins() {
        for Operator {
            domain,
            name: op,
            first,
            ..
        } in operators()
        {
            let found = schema::look_up(domain, op, first);
            // Operators of onnxruntime are in the schema table only as far as someone wrote them down.
            let defined = matches!(
                found,
                Lookup::Found(_) | Lookup::Deprecated(_) | Lookup::NoDomain
            );
            assert!(defined, "{domain} {op} {first}: {found:?}");
        }
    }

    #[test]
    fn what_an_operator_takes_is_what_onnx_lists() {
        let storage = |op, t| takes_storage("", op, t);
        assert!(storage("Transpose", DType::F8E4M3FN) && storage("Cast", DType::U4));
        assert!(storage("SequenceAt", DType::C64) && storage("Reshape", DType::C128));
        assert!(!storage("Add", DType::U4) && !storage("Unique", DType::C64));
        assert!(REAL_ONLY.iter().all(|op| {
            let sets = |s: schema::Schema| s.inputs.iter().map(|p| s.types(p)).collect::<Vec<_>>();
            let mut all = schema::versions("", op).flat_map(sets);
            all.any(|set| set.tensors().any(|t| t == DataType::Complex64))
        }));
        let containers = |op| takes_containers("", op);
        assert!(containers("Identity") && containers("SequenceLength") && containers("Optional"));
        assert!(!containers("Add") && !containers("SequenceConstruct"));
        assert!(takes_containers(ML, "DictVectorizer") && !takes_containers(ML, "ZipMap"));
    }

    #[test]
    fn errors_tell_unknown_from_unimplemented_operators() {
        let kind = |d, o, v| find(d, o, v).err().map(|f| f.found);
        assert_eq!(kind("", "Add", 13), None);
        assert!(kind("", "ImageDecoder", 20).is_some_and(|f| f.contains("not implemented")));
        assert!(kind("", "Frobnicate", 13).is_some_and(|f| f.contains("no operator")));
        assert!(kind("", "Add", 5).is_some_and(|f| f.contains("opset 5")));
        assert!(kind("", "Add", 29).is_some_and(|f| f.contains("opset 29")));
        assert!(kind("", "Gelu", 19).is_some_and(|f| f.contains("not defined")));
        assert!(kind("com.example", "Add", 1).is_some_and(|f| f.contains("domain")));
    }
}
