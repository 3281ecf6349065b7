"""From a trained run to a bundle: ONNX, FP16, engines, and the proof that they equal the original."""
