"""What samples are written as: one file an output kind."""
