"""How samples come out of graphs."""
