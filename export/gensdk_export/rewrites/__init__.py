"""Modules rewritten, before export, as every runtime can run them."""
