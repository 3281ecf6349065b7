"""Proof that a bundle gives here what PyTorch gave when it was made."""
