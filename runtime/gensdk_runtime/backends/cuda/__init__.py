"""NVIDIA GPUs through CUDA: memory, streams, buffers of graphs, noise. What executes graphs works over these."""
