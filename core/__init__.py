"""Lift3D's library: plain Python and torch, usable without ComfyUI.

Conventions (axes, units, colour spaces) are stated once in ``CONVENTIONS.md`` beside this file.
"""
