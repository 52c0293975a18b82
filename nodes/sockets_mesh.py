"""Contains the converters between MESH link values and core meshes.

Read: ComfyUI's native MESH (a batch, zero-padded when it has counts), the MESH of 3D-Pack
(``v``, ``f``, ``vc``, ``vt``), a list of trimesh objects, and TRIMESH (``Trimesh`` or ``Scene``);
they share link names, so they are told apart by their attributes. Written: native MESH.
Vertex colours of a native MESH are linear, core's are sRGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.formats import color_space
from ..core.mesh import Material, Mesh
from ..core.pipelines.merge_parts import merge_parts
from ..standalone.comfy_api import MeshData
from .host import Types, accepts_fields, output_device


def srgb_to_linear(colors: Tensor) -> Tensor:
    """Display-referred sRGB to linear light, as the MESH link wants vertex colours."""
    return torch.from_numpy(color_space.srgb_to_linear(colors.detach().cpu().numpy()))


def linear_to_srgb(colors: Tensor) -> Tensor:
    """Linear light to display-referred sRGB, as core wants colours."""
    return torch.from_numpy(color_space.linear_to_srgb(colors.detach().cpu().numpy()))


KNOWN_KINDS = (
    "ComfyUI's MESH (vertices, faces), 3D-Pack's MESH (v, f), a trimesh object or a list of them"
)


def meshes_from_link(value: Any, name: str = "mesh") -> list[Mesh]:
    """All meshes of a MESH or TRIMESH link value, as own copies in the order of the batch.

    Raises:
        ValueError: the object is none of the known kinds; the message names its type.
    """
    if isinstance(value, (list, tuple)):
        meshes = [mesh for item in value for mesh in meshes_from_link(item, name)]
    elif hasattr(value, "geometry") and hasattr(value, "dump"):  # trimesh.Scene
        meshes = [_from_trimesh(part) for part in value.dump(concatenate=False)]
    elif hasattr(value, "vertices") and hasattr(value, "faces"):
        batched = getattr(value.vertices, "ndim", 0) == 3
        meshes = _from_native(value) if batched else [_from_trimesh(value)]
    elif hasattr(value, "v") and hasattr(value, "f"):
        meshes = [_from_3d_pack(value)]
    else:
        raise ValueError(
            f"{name} is a {type(value).__module__}.{type(value).__qualname__}, which Lift3D does "
            f"not know; expected {KNOWN_KINDS}."
        )
    if not meshes:
        raise ValueError(f"{name} holds no mesh at all; check the node that made it.")
    return meshes


def mesh_from_link(value: Any, name: str = "mesh") -> Mesh:
    """The mesh of a link value; a batch of several becomes one mesh with vertex colours."""
    return merge_parts(meshes_from_link(value, name))


def mesh_to_link(meshes: Mesh | Sequence[Mesh]) -> Any:
    """Native MESH value of one mesh or a batch; with counts when the sizes differ.

    What this host's MESH has no field for is kept in the extra attributes ``lift3d_names``,
    ``lift3d_materials`` and ``lift3d_textured``, which the nodes of this pack read back.
    """
    batch = [meshes] if isinstance(meshes, Mesh) else list(meshes)
    if not batch:
        raise ValueError("There is no mesh to hand on.")
    batch = [_with_baked_factor(mesh.to("cpu")) for mesh in batch]
    fields = {
        "vertices": _padded([mesh.vertices for mesh in batch]),
        "faces": _padded([mesh.faces for mesh in batch]),
        "uvs": _padded_or_none([mesh.uvs for mesh in batch]),
        "vertex_colors": _padded_or_none([_linear_colors(mesh) for mesh in batch], fill=1.0),
        "texture": _stacked_textures([mesh.texture for mesh in batch]),
        "metallic_roughness": _stacked_textures([mesh.metallic_roughness for mesh in batch]),
        "normals": _padded_or_none([mesh.vertex_normals for mesh in batch]),
        "unlit": all(mesh.material.unlit for mesh in batch),
    }
    if len({(mesh.num_vertices, mesh.num_faces) for mesh in batch}) > 1:
        fields["vertex_counts"] = torch.tensor([mesh.num_vertices for mesh in batch])
        fields["face_counts"] = torch.tensor([mesh.num_faces for mesh in batch])
    return _make_native(fields, batch)


def _make_native(fields: dict[str, Any], batch: Sequence[Mesh]) -> Any:
    cls = getattr(Types, "MESH", None)
    if not accepts_fields(cls, "uvs", "vertex_colors", "texture", "vertex_counts"):
        cls = MeshData  # an old core: same names, read by attribute there
    device = output_device()
    given = {
        name: value.detach().to(device, copy=True) if isinstance(value, Tensor) else value
        for name, value in fields.items()
        if accepts_fields(cls, name)
    }
    native = cls(**given)  # type: ignore[misc]
    native.lift3d_names = tuple(mesh.name for mesh in batch)
    native.lift3d_materials = tuple(mesh.material for mesh in batch)
    native.lift3d_textured = tuple(mesh.texture is not None for mesh in batch)
    return native


def _with_baked_factor(mesh: Mesh) -> Mesh:
    """Mesh on the CPU whose colour factor is white: a native MESH cannot carry one.

    Factors multiply in linear light (glTF 2.0, 3.9.2).
    """
    factor = torch.tensor(mesh.material.base_color, dtype=torch.float32)
    if bool((factor == 1).all()):
        return mesh
    linear = srgb_to_linear(factor)
    material = replace(mesh.material, base_color=(1.0, 1.0, 1.0))
    if mesh.texture is not None:
        texture = linear_to_srgb(srgb_to_linear(mesh.texture) * linear)
        return replace(mesh, texture=texture, material=material)
    colors = mesh.vertex_colors
    if colors is None:
        colors = torch.ones_like(mesh.vertices)
    colors = linear_to_srgb(srgb_to_linear(colors) * linear)
    return replace(mesh, vertex_colors=colors, material=material)


def _linear_colors(mesh: Mesh) -> Tensor | None:
    return None if mesh.vertex_colors is None else srgb_to_linear(mesh.vertex_colors)


def _padded(parts: Sequence[Tensor], fill: float = 0.0) -> Tensor:
    longest = max(part.shape[0] for part in parts)
    padded = parts[0].new_full((len(parts), longest, parts[0].shape[1]), fill)
    for row, part in zip(padded, parts, strict=True):
        row[: part.shape[0]] = part
    return padded


def _padded_or_none(parts: Sequence[Tensor | None], fill: float = 0.0) -> Tensor | None:
    """Padded batch; parts that lack the attribute get ``fill``, None when all lack it."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    empty = present[0].new_zeros((0, present[0].shape[1]))
    return _padded([empty if part is None else part for part in parts], fill)


def _stacked_textures(textures: Sequence[Tensor | None]) -> Tensor | None:
    """Batch of textures at the size of the largest; white where a part has none."""
    present = [texture for texture in textures if texture is not None]
    if not present:
        return None
    height = max(texture.shape[0] for texture in present)
    width = max(texture.shape[1] for texture in present)
    white = present[0].new_ones((height, width, 3))
    return torch.stack(
        [white if texture is None else _resized(texture, height, width) for texture in textures]
    )


def _resized(texture: Tensor, height: int, width: int) -> Tensor:
    if texture.shape[:2] == (height, width):
        return texture
    resized = torch.nn.functional.interpolate(
        texture.permute(2, 0, 1)[None], size=(height, width), mode="bilinear", align_corners=False
    )
    return resized[0].permute(1, 2, 0)


# -- the four kinds --------------------------------------------------------------------------


def _from_native(value: Any) -> list[Mesh]:
    count = int(value.vertices.shape[0])
    names = getattr(value, "lift3d_names", None) or tuple(
        "mesh" if count == 1 else f"part {index + 1}" for index in range(count)
    )
    materials = getattr(value, "lift3d_materials", None) or (
        (Material(unlit=bool(getattr(value, "unlit", False))),) * count
    )
    return [_native_item(value, index, names[index], materials[index]) for index in range(count)]


def _native_item(value: Any, index: int, name: str, material: Material) -> Mesh:
    vertex_counts = getattr(value, "vertex_counts", None)
    vertex_end = None if vertex_counts is None else int(vertex_counts[index])
    face_end = None if vertex_counts is None else int(value.face_counts[index])

    def item(attribute: str, end: int | None = None) -> Tensor | None:
        tensor = getattr(value, attribute, None)
        if tensor is None:
            return None
        row = tensor[index if tensor.shape[0] > 1 else 0]
        return row[:end].clone().float()

    colors = item("vertex_colors", vertex_end)
    uvs, texture = item("uvs", vertex_end), item("texture")
    if texture is not None and not getattr(value, "lift3d_textured", (True,) * (index + 1))[index]:
        texture = None  # white, because other parts of the batch have one
    return Mesh(
        vertices=value.vertices[index, :vertex_end].clone().float(),
        faces=value.faces[index, :face_end].clone().long(),
        vertex_colors=None if colors is None else linear_to_srgb(colors[:, :3].clamp(0, 1)),
        uvs=uvs,
        texture=None if texture is None or uvs is None else texture[..., :3].clamp(0, 1),
        metallic_roughness=item("metallic_roughness"),
        vertex_normals=item("normals", vertex_end),
        material=material,
        name=name,
    )


def _from_3d_pack(value: Any) -> Mesh:
    """MESH of ComfyUI-3D-Pack: unbatched, sRGB colours, uvs indexed by their own faces."""
    vertices, faces = _tensor(value.v).float(), _tensor(value.f).long()
    colors = _tensor_or_none(getattr(value, "vc", None))
    uvs, uv_faces = (_tensor_or_none(getattr(value, name, None)) for name in ("vt", "ft"))
    texture = _tensor_or_none(getattr(value, "albedo", None))
    if uvs is not None and uv_faces is not None:
        vertices, faces, colors, uvs = _unify_corners(vertices, faces, colors, uvs, uv_faces.long())
    textured = texture is not None and uvs is not None
    return Mesh(
        vertices=vertices,
        faces=faces,
        vertex_colors=None if colors is None else colors[:, :3].float().clamp(0, 1),
        uvs=None if uvs is None else uvs.float(),
        texture=texture[..., :3].float().clamp(0, 1) if textured else None,  # type: ignore[index]
    )


def _unify_corners(
    vertices: Tensor, faces: Tensor, colors: Tensor | None, uvs: Tensor, uv_faces: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """One vertex per distinct (position, texture coordinate) pair of a face corner."""
    pairs = torch.stack([faces.reshape(-1), uv_faces.reshape(-1)], dim=1)
    unique, inverse = torch.unique(pairs, dim=0, return_inverse=True)
    new_colors = None if colors is None else colors[unique[:, 0]]
    return vertices[unique[:, 0]], inverse.reshape(-1, 3), new_colors, uvs[unique[:, 1]]


def _from_trimesh(value: Any) -> Mesh:
    """``trimesh.Trimesh``: 8-bit sRGB colours; its uvs have their origin at the bottom left."""
    vertices = torch.from_numpy(np.array(value.vertices, dtype=np.float32))
    faces = torch.from_numpy(np.array(value.faces, dtype=np.int64)).reshape(-1, 3)
    visual = getattr(value, "visual", None)
    kind = getattr(visual, "kind", None)
    colors = uvs = texture = None
    if kind in ("vertex", "face"):
        rgba = np.array(visual.vertex_colors, dtype=np.float32)
        colors = torch.from_numpy(rgba[:, :3] / 255)
    elif kind == "texture" and getattr(visual, "uv", None) is not None:
        uvs = torch.from_numpy(np.array(visual.uv, dtype=np.float32)[:, :2])
        uvs = torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=1)
        texture = _trimesh_texture(visual.material)
    name = str(getattr(value, "metadata", {}).get("name", "mesh"))
    return Mesh(vertices, faces, vertex_colors=colors, uvs=uvs, texture=texture, name=name)


def _trimesh_texture(material: Any) -> Tensor | None:
    image = getattr(material, "baseColorTexture", None)
    if image is None:
        image = getattr(material, "image", None)
    if image is None:
        return None
    pixels = np.array(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels)


def mesh_to_trimesh(mesh: Mesh) -> Any:
    """``trimesh.Trimesh`` with vertex colours or texture."""
    try:
        import trimesh
    except ImportError as error:
        raise ValueError("TRIMESH needs the package trimesh: pip install trimesh") from error
    from PIL import Image

    vertices, faces = mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy()
    visual = None
    if mesh.texture is not None and mesh.uvs is not None:
        uvs = mesh.uvs.detach().cpu().numpy()
        pixels = (mesh.texture.detach().clamp(0, 1) * 255).round().byte().cpu().numpy()
        visual = trimesh.visual.TextureVisuals(
            uv=np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=1),
            material=trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(pixels)),
        )
    elif mesh.vertex_colors is not None:
        colors = (mesh.vertex_colors.detach().clamp(0, 1) * 255).round().byte().cpu().numpy()
        visual = trimesh.visual.ColorVisuals(vertex_colors=colors)
    return trimesh.Trimesh(
        vertices, faces, visual=visual, process=False, metadata={"name": mesh.name}
    )


def _tensor(value: Any) -> Tensor:
    return value.detach().cpu().clone() if isinstance(value, Tensor) else torch.tensor(value)


def _tensor_or_none(value: Any) -> Tensor | None:
    return None if value is None else _tensor(value)
