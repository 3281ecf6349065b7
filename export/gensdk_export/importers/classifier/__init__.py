"""Classifiers in ONNX files, as bundles that dream."""
