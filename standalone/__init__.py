"""Runs Lift3D's nodes and workflows without ComfyUI: a first look, CI and scripts."""
