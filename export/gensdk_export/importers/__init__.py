"""Bundles from third-party models: one room for each kind of file that comes in."""
