"""The whole sampler as one ONNX graph."""
