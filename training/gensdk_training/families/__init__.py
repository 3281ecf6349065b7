"""One file a family; each registers itself."""
