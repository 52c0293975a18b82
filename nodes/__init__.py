"""Contains ComfyUI's view of Lift3D: the list of nodes, in the order of the menu."""

from __future__ import annotations

from typing import Any

from .host import ComfyExtension, register_model_folder


class Lift3DExtension(ComfyExtension):
    """The nodes of this pack."""

    async def get_node_list(self) -> list[Any]:
        """Node classes, by theme."""
        from . import (
            assets,
            bundle,
            camera_schedule,
            cameras,
            character_generation,
            character_views,
            characters,
            convert,
            diffusion,
            distill,
            edit_bundle,
            generate,
            health,
            inspect,
            lrm,
            multiview,
            native,
            objective,
            optimize,
            orbit_splats,
            reconstruct,
            refine_character,
            rig_character,
            splat_tools,
            splats,
            texture,
            video,
            views,
        )

        register_model_folder()
        themes = (
            assets, diffusion, bundle, generate, edit_bundle, native, multiview, video,
            orbit_splats, lrm, character_generation, characters, character_views, refine_character,
            rig_character, reconstruct, texture, cameras, views, distill, objective,
            camera_schedule, optimize, splats, splat_tools, inspect, convert, health,
        )  # fmt: skip
        return [node for theme in themes for node in theme.NODES]
