"""Contains rasterising kernels on raw tensors, one folder per way of running them."""
