"""Video files and network streams, through PyAV."""
