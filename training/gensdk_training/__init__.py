"""Training of generative models in PyTorch. Needs the extra: ``pip install "gensdk[training]"``."""
