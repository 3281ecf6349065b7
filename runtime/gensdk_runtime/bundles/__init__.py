"""Bundles: read as untrusted input, written all or nothing, and those that come with gensdk."""
