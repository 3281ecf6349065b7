"""Folders of diffusers."""
