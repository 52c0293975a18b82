"""Contains the nodes that paint characters: in A-pose, and from six sides level by level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..core.diffusion.character_files import LINK
from ..core.diffusion.character_views_model import (
    LEVELS,
    VIEW_WORDS,
    CharacterViewsModel,
    load_character_views,
)
from ..core.diffusion.pose_canonicalizer import PoseCanonicalizer, load_pose_canonicalizer
from ..core.pipelines.canonicalize_pose import PoseParams, canonicalize_pose
from ..core.pipelines.character_framing import HEIGHT_PX
from ..core.pipelines.character_picture import HEIGHT_STEP_PX
from ..core.pipelines.image_to_character_views import (
    CharacterViewsParams,
    image_to_character_views,
)
from .characters import CATEGORY
from .host import ADVANCED, io, make_progress, make_schema, network_placement
from .model_files import (
    diffusers_folders,
    missing_verdict,
    model_input,
    resolve_diffusers_folder,
    weights_fingerprint,
)
from .multiview import chosen_precision, precision_input
from .sockets import RigSocket, images_to_link, single_image_from_link
from .widgets import choice, number, seed_input, steps_input

PoseModelSocket = io.Custom("LIFT3D_POSE_MODEL")
ViewsModelSocket = io.Custom("LIFT3D_CHARACTER_VIEWS")
POSE_FOLDER = "StdGEN-canonicalize-1024"
VIEWS_FOLDER = "StdGEN-multiview-1024"
MARKER = "unet/config.json"
"""By what their folders are found: not all of them have an index."""
LARGEST_HEIGHT_PX = 2048
LICENCE = "StdGEN's weights are for research only."


def folder_input(published: str) -> Any:
    """Choice of a model's folder."""
    return model_input(
        "folder",
        diffusers_folders(MARKER),
        [published],
        tooltip=f"Folder in models/lift3d or models/diffusers with the content of {published} of "
        f"{LINK}. {LICENCE}",
    )


def sampling_inputs(guidance: float, follows: str) -> list[Any]:
    """Widgets that both paintings have."""
    return [
        steps_input("steps", 40, "Sampling steps; 40 as published.", least=1, most=1000),
        number(
            "guidance",
            guidance,
            0.0,
            20.0,
            f"How closely {follows}; {guidance:g} as published. Up to 1 halves the time.",
            step=0.1,
        ),
        seed_input("Seed of all noise: the same seed gives the same result.", default=42),
    ]


def size_inputs() -> list[Any]:
    """Height of what is painted, and how much memory it may take."""
    return [
        io.Int.Input(
            "height_px",
            default=HEIGHT_PX,
            min=HEIGHT_STEP_PX,
            max=LARGEST_HEIGHT_PX,
            step=HEIGHT_STEP_PX,
            tooltip="Height in pixels; the models were made for 1024.",
            **ADVANCED,
        ),
        io.Boolean.Input(
            "low_memory",
            default=False,
            tooltip="Ask with and without the picture one after the other instead of together: "
            "half the memory, hardly slower, the same result.",
            **ADVANCED,
        ),
    ]


class _LoadsFolder:
    """What both loaders share; each says with ``read`` how its folder is read."""

    read: ClassVar[Callable[..., PoseCanonicalizer | CharacterViewsModel]]

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        """Missing weights are named with the place and the link, before anything runs."""
        checks = [] if folder is None else [lambda: resolve_diffusers_folder(folder, LINK)]
        return missing_verdict(*checks)

    @classmethod
    def fingerprint_inputs(cls, folder: str, precision: str) -> str:
        """Run again when the folder changes."""
        return f"{weights_fingerprint(folder)} {precision}"

    @classmethod
    def execute(cls, folder: str, precision: str) -> Any:
        model = cls.read(resolve_diffusers_folder(folder, LINK), dtype=chosen_precision(precision))
        return io.NodeOutput(model, model.report)


class LoadPoseModel(_LoadsFolder, io.ComfyNode):
    """Loads the A-pose model."""

    read = staticmethod(load_pose_canonicalizer)

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_LoadPoseModel",
            display_name="Load A-Pose Model",
            category=CATEGORY,
            description="Loads StdGEN's model that paints a character anew in A-pose. Every key "
            "must fit; the report says what was not needed.",
            search_aliases=["stdgen", "canonicalize", "a-pose", "charactergen", "reference net"],
            inputs=[
                folder_input(POSE_FOLDER),
                precision_input("auto", "Type of the weights; 'auto' is float16 on a card."),
            ],
            outputs=[
                PoseModelSocket.Output("pose_model", tooltip="The model."),
                io.String.Output("report", tooltip="Keys, and what was not needed."),
            ],
        )


class CanonicalizePose(io.ComfyNode):
    """Paints a character in A-pose."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_CanonicalizePose",
            display_name="Canonicalize Pose",
            category=CATEGORY,
            description="Paints a character anew in A-pose, from the front, on white: what "
            "Character Views expects. A picture that has the pose already may skip this.",
            search_aliases=["stdgen", "a-pose", "t-pose", "repose", "character sheet"],
            inputs=[
                io.Image.Input("image", tooltip="A portrait of 5 : 8, as of Frame Character."),
                *sampling_inputs(5.0, "the character follows the picture"),
                io.Boolean.Input(
                    "keep_pose",
                    default=False,
                    tooltip="Hand the picture on as it is; the model is not loaded then.",
                ),
                *size_inputs(),
                PoseModelSocket.Input(
                    "pose_model",
                    optional=True,
                    lazy=True,
                    tooltip="A model of Load A-Pose Model; not needed if the pose is kept.",
                ),
            ],
            outputs=[io.Image.Output("image", tooltip="The character in A-pose on white.")],
        )

    @classmethod
    def check_lazy_status(cls, keep_pose: bool, pose_model: Any = None, **settings: Any) -> Any:
        """The model is asked for only if it is used."""
        return [] if keep_pose or pose_model is not None else ["pose_model"]

    @classmethod
    def execute(cls, image: Any, keep_pose: bool, pose_model: Any = None, **settings: Any) -> Any:
        picture = single_image_from_link(image)
        if keep_pose:
            return io.NodeOutput(images_to_link(picture))
        with network_placement() as placement:
            made = canonicalize_pose(
                _pose_model_from_link(pose_model),
                picture,
                PoseParams(**settings),
                placement=placement,
                on_progress=make_progress(),
            )
        return io.NodeOutput(images_to_link(made))


class LoadCharacterViews(_LoadsFolder, io.ComfyNode):
    """Loads the model of character views."""

    read = staticmethod(load_character_views)

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_LoadCharacterViews",
            display_name="Load Character Views Model",
            category=CATEGORY,
            description="Loads StdGEN's model that paints six views of a character with normal "
            "maps. Every key must fit.",
            search_aliases=["stdgen", "era3d", "multi-view diffusion", "normal maps"],
            inputs=[
                folder_input(VIEWS_FOLDER),
                precision_input("auto", "Type of the weights; 'auto' is float16 on a card."),
            ],
            outputs=[
                ViewsModelSocket.Output("views_model", tooltip="The model."),
                io.String.Output("report", tooltip="Number of keys."),
            ],
        )


class GenerateCharacterViews(io.ComfyNode):
    """Paints one level of a character from six sides."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_GenerateCharacterViews",
            display_name="Character Views",
            category=CATEGORY,
            description="Paints a character from six sides with normal maps: whole, without hair, "
            "or the body alone. Use one node per level with the same seed, so that all start from "
            "the same noise.",
            search_aliases=["stdgen", "era3d", "multiview", "novel views", "normal maps", "layers"],
            inputs=[
                ViewsModelSocket.Input(
                    "views_model", tooltip="A model of Load Character Views Model."
                ),
                io.Image.Input(
                    "image", tooltip="A character in A-pose on white, as of Canonicalize Pose."
                ),
                choice(
                    "level",
                    list(LEVELS),
                    LEVELS[0],
                    "What the views show: the whole character, the character without hair, or the "
                    "body alone.",
                ),
                *sampling_inputs(3.0, "the views follow the picture"),
                number(
                    "eta",
                    1.0,
                    0.0,
                    1.0,
                    "Share of fresh noise in each step; 1 as published.",
                    **ADVANCED,
                ),
                *size_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    "images", tooltip=f"Square views on white: {', '.join(VIEW_WORDS)}."
                ),
                io.Image.Output(
                    "normals",
                    tooltip="Normal maps of the views on white: (n + 1) / 2 in the frame of the "
                    "front view.",
                ),
                RigSocket.Output("rig", tooltip="The cameras of the views."),
            ],
        )

    @classmethod
    def execute(cls, views_model: Any, image: Any, level: str, **settings: Any) -> Any:
        with network_placement() as placement:
            made = image_to_character_views(
                _views_model_from_link(views_model),
                single_image_from_link(image),
                level,
                CharacterViewsParams(**settings),
                placement=placement,
                on_progress=make_progress(),
            )
        return io.NodeOutput(images_to_link(made.images), images_to_link(made.normals), made.rig)


def _pose_model_from_link(value: Any) -> PoseCanonicalizer:
    if not isinstance(value, PoseCanonicalizer):
        raise ValueError(
            f"pose_model must come from Load A-Pose Model, got a {type(value).__name__}; connect "
            "one, or switch keep_pose on."
        )
    return value


def _views_model_from_link(value: Any) -> CharacterViewsModel:
    if not isinstance(value, CharacterViewsModel):
        raise ValueError(
            f"views_model must come from Load Character Views Model, got a {type(value).__name__}."
        )
    return value


NODES = [LoadPoseModel, CanonicalizePose, LoadCharacterViews, GenerateCharacterViews]
