"""Plans and runs one call: which graphs run, on what, in which batches."""
