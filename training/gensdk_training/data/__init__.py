"""Data sets by name, folder or file."""
