"""TensorRT-RTX and TensorRT engines: built from ONNX graphs, kept in the user's cache, run on the GPU."""
