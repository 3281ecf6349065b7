"""Measures of the quality of samples."""
