"""Contains optional CUDA backends: gsplat and nvdiffrast, when they can be imported."""
