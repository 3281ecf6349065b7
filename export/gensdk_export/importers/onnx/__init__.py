"""Image models in ONNX files that somebody else made."""
