"""Sampling from bundles with numpy and a backend; never PyTorch."""
