"""Music as notes on a grid: files, pictures and sound of it."""
