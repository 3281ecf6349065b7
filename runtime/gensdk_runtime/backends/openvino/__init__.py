"""OpenVINO, and what its compiler needs of a graph."""
