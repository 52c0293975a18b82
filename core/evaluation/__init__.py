"""Contains metrics that compare meshes and renders."""
