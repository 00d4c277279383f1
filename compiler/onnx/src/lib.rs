//! The ONNX wire format: reading, external data, checking.
