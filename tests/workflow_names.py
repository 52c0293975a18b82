"""Which of the shipped workflows run where."""

NATIVE_ONLY = frozenset(
    {
        "text_to_3d_flux", "image_to_3d_flux", "text_to_splat_sd21", "image_to_splat_sv3d",
        "text_image_splat", "character_from_image", "character_edit_inpaint",
    }
)  # fmt: skip
"""Workflows of ComfyUI's own nodes and published weights; the standalone runner refuses them."""
