"""What a sample is asked to be."""
