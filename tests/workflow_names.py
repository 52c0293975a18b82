"""Which of the shipped workflows run where."""

NATIVE_ONLY = frozenset({"text_to_3d_flux", "image_to_3d_flux"})
"""Workflows of ComfyUI's own nodes and published weights; the standalone runner refuses them."""
