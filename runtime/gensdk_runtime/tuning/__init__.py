"""What runs a model fastest on this machine: measured once, kept per user, and used to split batches."""
