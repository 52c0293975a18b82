"""Lift3D: ComfyUI nodes that turn 2D diffusion models into 3D makers.

The pack is written against ComfyUI's V3 API only. Nothing is imported until ComfyUI asks for the
nodes, so that this folder is also an ordinary Python package without ComfyUI.
"""

WEB_DIRECTORY = "./web"

__version__ = "0.1.0"


async def comfy_entrypoint():
    """Called by ComfyUI: returns the extension that lists the nodes."""
    import logging

    try:
        from .nodes import Lift3DExtension
    except Exception:
        # ComfyUI logs a failed entry point as one line; the traceback is needed to help a user.
        logging.getLogger(__name__).exception("Lift3D could not load its nodes.")
        raise
    return Lift3DExtension()
