"""What is exported: the modules behind graphs, and the plans that name them."""
