"""PyTorch checkpoints of known networks."""
