"""Contains procedural data: deterministic, made by this project, no external files."""
