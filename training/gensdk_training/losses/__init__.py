"""Losses that two or more families share."""
