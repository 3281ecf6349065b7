"""Bundles from models that somebody else trained: one file for each kind of file that comes in."""
