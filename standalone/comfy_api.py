"""Contains the part of ComfyUI's V3 node interface that Lift3D's nodes use.

An own implementation of the public interface (names and arguments only), so that one source of
nodes runs in both places. A schema here answers the same questions as there: inputs, their link
types, limits and tooltips, and outputs.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from . import folders


class Input:
    """One input of a node; without a widget it takes its value from a link."""

    io_type = "*"
    is_widget = False

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        extra_dict: dict[str, Any] | None = None,
        **options: Any,
    ):
        self.id = id
        self.display_name = display_name
        self.optional = optional
        self.tooltip = tooltip
        self.options = {name: value for name, value in options.items() if value is not None}
        self.options.update(extra_dict or {})

    def get_io_type(self) -> str:
        """Link types that this input accepts, separated by commas."""
        return self.io_type

    @property
    def default(self) -> Any:
        """Value of a fresh widget; None when the schema names none."""
        return self.options.get("default")


class WidgetInput(Input):
    """An input with a widget: its value is stored in the workflow unless a link brings it."""

    is_widget = True

    def __init__(self, id: str, *args: Any, **options: Any):
        super().__init__(id, *args, **options)
        if self.options.get("force_input"):
            self.is_widget = False


class Output:
    """One output of a node."""

    io_type = "*"

    def __init__(
        self,
        id: str | None = None,
        display_name: str | None = None,
        tooltip: str | None = None,
        is_output_list: bool = False,
    ):
        self.id = id
        self.display_name = display_name or id or self.io_type
        self.tooltip = tooltip
        self.is_output_list = is_output_list


def make_link_type(io_type: str, widget: bool = False) -> type:
    """Class with the members `Input` and `Output` for one link type."""
    base = WidgetInput if widget else Input
    members = {
        "io_type": io_type,
        "Input": type("Input", (base,), {"io_type": io_type}),
        "Output": type("Output", (Output,), {"io_type": io_type}),
    }
    return type(io_type, (), members)


class ComboInput(WidgetInput):
    """A choice from a list of texts."""

    io_type = "COMBO"

    def __init__(self, id: str, options: Sequence[str] | None = None, **settings: Any):
        super().__init__(id, **settings)
        self.options["options"] = list(options or [])
        if "default" not in self.options and self.options["options"]:
            self.options["default"] = self.options["options"][0]


class MultiTypeInput(Input):
    """An input that accepts several link types; given an input with a widget, it keeps that."""

    def __init__(self, id: str | Input, types: Sequence[Any], **settings: Any):
        names = [kind.io_type for kind in types]
        if isinstance(id, Input):
            settings = {"optional": id.optional, "tooltip": id.tooltip, **settings, **id.options}
            names.insert(0, id.get_io_type())
            self.is_widget = id.is_widget
            id = id.id
        super().__init__(id, **settings)
        self.io_type = ",".join(dict.fromkeys(names))


class Hidden(str, Enum):
    """Values that the host passes to a node beside its inputs."""

    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"


@dataclass
class Schema:
    """Description of a node: its id, texts, inputs and outputs."""

    node_id: str
    display_name: str | None = None
    category: str = "Lift3D"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    search_aliases: list[str] = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    not_idempotent: bool = False


class NodeOutput:
    """The values of a node's outputs and, optionally, what its face shows."""

    def __init__(self, *args: Any, ui: Any = None):
        self.args = args
        self.ui = ui

    @property
    def result(self) -> tuple[Any, ...]:
        """Values in the order of the schema's outputs."""
        return self.args


class ComfyNode(ABC):
    """Base of all nodes: class methods only, no state."""

    hidden = SimpleNamespace(unique_id=None, prompt=None, extra_pnginfo=None)

    @classmethod
    @abstractmethod
    def define_schema(cls) -> Schema:
        """Description of the node."""

    @classmethod
    @abstractmethod
    def execute(cls, **inputs: Any) -> NodeOutput:
        """Do the node's work."""


class ComfyExtension(ABC):
    """The list of nodes of a pack."""

    @abstractmethod
    async def get_node_list(self) -> list[type[ComfyNode]]:
        """Node classes in the order of the menu."""


_LINK_TYPES = {
    "Image": "IMAGE", "Mask": "MASK", "Latent": "LATENT", "Mesh": "MESH", "Splat": "SPLAT",
    "Voxel": "VOXEL", "AnyType": "*", "Load3DCamera": "LOAD3D_CAMERA", "File3DAny": "FILE_3D",
    "File3DGLB": "FILE_3D_GLB", "File3DGLTF": "FILE_3D_GLTF", "File3DOBJ": "FILE_3D_OBJ",
    "File3DSTL": "FILE_3D_STL", "File3DPLY": "FILE_3D_PLY", "File3DSPLAT": "FILE_3D_SPLAT",
    "File3DSPZ": "FILE_3D_SPZ", "File3DSplatAny": "FILE_3D_SPLAT_ANY",
    "File3DPointCloudAny": "FILE_3D_POINT_CLOUD_ANY",
    "Model": "MODEL", "Clip": "CLIP", "Vae": "VAE", "ClipVision": "CLIP_VISION",
    "StyleModel": "STYLE_MODEL", "ControlNet": "CONTROL_NET", "Conditioning": "CONDITIONING",
    "Sigmas": "SIGMAS",
}  # fmt: skip
_WIDGET_TYPES = {"Int": "INT", "Float": "FLOAT", "String": "STRING", "Boolean": "BOOLEAN"}

io = SimpleNamespace(
    Schema=Schema,
    ComfyNode=ComfyNode,
    NodeOutput=NodeOutput,
    Hidden=Hidden,
    Input=Input,
    Output=Output,
    Custom=make_link_type,
    Combo=type("Combo", (), {"io_type": "COMBO", "Input": ComboInput}),
    MultiType=type("MultiType", (), {"Input": MultiTypeInput}),
    **{name: make_link_type(link) for name, link in _LINK_TYPES.items()},
    **{name: make_link_type(link, widget=True) for name, link in _WIDGET_TYPES.items()},
)


class PreviewImage:
    """Pictures for the face of a node; without ComfyUI they are written to the preview folder."""

    def __init__(self, image: Tensor, cls: type | None = None, **_: Any):
        self.image = image

    def as_dict(self) -> dict[str, list[Any]]:
        """Write the pictures and name them."""
        return {"images": folders.save_images(self.image, "preview/preview")}


class PreviewText:
    """Text for the face of a node."""

    def __init__(self, value: str, **_: Any):
        self.value = value

    def as_dict(self) -> dict[str, list[Any]]:
        """The text, as the host expects it."""
        return {"text": [self.value]}


ui = SimpleNamespace(PreviewImage=PreviewImage, PreviewText=PreviewText)


@dataclass
class MeshData:
    """Value of a MESH link: a batch of meshes, zero-padded when counts are given.

    Colours are linear, textures sRGB; uvs have their origin in the top-left corner (glTF).
    """

    vertices: Tensor  # [batch, vertex, 3]
    faces: Tensor  # [batch, face, 3]
    uvs: Tensor | None = None
    vertex_colors: Tensor | None = None
    texture: Tensor | None = None  # [batch, height, width, 3]
    metallic_roughness: Tensor | None = None
    vertex_counts: Tensor | None = None
    face_counts: Tensor | None = None
    unlit: bool = False
    normals: Tensor | None = None


@dataclass
class SplatData:
    """Value of a SPLAT link: activated Gaussians in the 3DGS frame (Y down, Z forward)."""

    positions: Tensor  # [batch, gaussian, 3]
    scales: Tensor
    rotations: Tensor  # wxyz
    opacities: Tensor  # [batch, gaussian, 1]
    sh: Tensor  # [batch, gaussian, coefficient, 3]
    counts: Tensor | None = None


class File3D:
    """Value of a FILE_3D link: a file on disk."""

    def __init__(self, source: str, file_format: str = ""):
        self._source = str(source)
        self.format = file_format or Path(source).suffix.lstrip(".").lower()

    @property
    def is_disk_backed(self) -> bool:
        """Always true here: nothing is kept in memory."""
        return True

    def get_source(self) -> str:
        """Path of the file."""
        return self._source

    def get_bytes(self) -> bytes:
        """Content of the file."""
        return Path(self._source).read_bytes()

    def save_to(self, path: str) -> str:
        """Copy the file to ``path``."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._source, path)
        return path


Types = SimpleNamespace(MESH=MeshData, SPLAT=SplatData, File3D=File3D)
