"""Third-party image models in ONNX files."""
