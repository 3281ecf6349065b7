"""ONNX files read without the onnx package: what must be known before a backend may load one."""
