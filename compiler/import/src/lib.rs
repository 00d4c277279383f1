//! From ONNX to the graph level.
