"""What one call comes down to: which graphs run, on what, in which batches."""
