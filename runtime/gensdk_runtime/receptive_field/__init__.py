"""What a place of a translation model's result depends on, read off its graph."""
