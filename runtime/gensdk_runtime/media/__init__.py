"""Files of pictures and films: read as untrusted input, written all or nothing."""
