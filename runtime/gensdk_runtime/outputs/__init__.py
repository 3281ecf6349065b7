"""What comes out: one file an output kind."""
