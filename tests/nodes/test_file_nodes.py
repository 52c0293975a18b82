"""Nodes that load and save files: what is written comes back, bad paths are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lift3d.core.formats import read_mesh, read_splats, write_mesh
from lift3d.core.mesh import Mesh
from lift3d.nodes import (
    assets,
)
from lift3d.nodes.sockets_mesh import mesh_from_link, mesh_to_link, meshes_from_link
from lift3d.nodes.sockets_splat import cloud_from_link, cloud_to_link
from node_calls import outputs

pytestmark = pytest.mark.usefixtures("as_in_comfyui")


@pytest.fixture
def mesh_link(tetrahedron: Mesh):
    return mesh_to_link(tetrahedron)


@pytest.fixture
def splat_link(cloud):
    return cloud_to_link(cloud)


def test_a_sample_loads_normalised() -> None:
    (link,) = outputs(assets.LoadMesh, path="sample: mug")
    mesh = mesh_from_link(link)
    low, high = mesh.bounds()
    assert float((high - low).max()) == pytest.approx(1.8, abs=1e-4)
    assert mesh.name == "mug" and mesh.vertex_colors is not None


@pytest.mark.parametrize("format", ["glb", "obj", "ply"])
def test_meshes_saved_by_a_node_load_again(mesh_link, tetrahedron, out: Path, format: str) -> None:
    file, relative = outputs(assets.SaveMesh, mesh=mesh_link, format=format)
    assert (out / relative).is_file() and file.get_source() == str(out / relative)
    (link,) = outputs(assets.LoadMesh, path=str(out / relative), normalize=False)
    assert mesh_from_link(link).num_faces == tetrahedron.num_faces
    if format != "obj":
        colors = mesh_from_link(link).vertex_colors
        assert torch.allclose(
            colors.sort(0).values, tetrahedron.vertex_colors.sort(0).values, atol=1 / 255
        )


def test_a_batch_is_saved_as_named_parts_and_loaded_as_either(
    tetrahedron, textured_quad, out
) -> None:
    link = mesh_to_link([tetrahedron, textured_quad])
    _, relative = outputs(assets.SaveMesh, mesh=link)
    assert [part.name for part in read_mesh(out / relative)] == ["tetra", "quad"]
    (separate,) = outputs(assets.LoadMesh, path=str(out / relative), parts="separate")
    assert [part.name for part in meshes_from_link(separate)] == ["tetra", "quad"]
    (merged,) = outputs(assets.LoadMesh, path=str(out / relative))
    assert len(meshes_from_link(merged)) == 1


def test_separate_parts_are_normalised_together(tetrahedron, textured_quad, tmp_path: Path) -> None:
    path = tmp_path / "two.glb"
    write_mesh(path, [tetrahedron, textured_quad.with_vertices(textured_quad.vertices + 5)])
    (link,) = outputs(assets.LoadMesh, path=str(path), parts="separate")
    corners = [corner for part in meshes_from_link(link) for corner in part.bounds()]
    extent = torch.stack(corners).amax(0) - torch.stack(corners).amin(0)
    assert float(extent.max()) == pytest.approx(1.8, abs=1e-4)


def test_a_linked_file_is_read_instead_of_the_path(mesh_link, out: Path) -> None:
    file, _ = outputs(assets.SaveMesh, mesh=mesh_link)
    (link,) = outputs(assets.LoadMesh, path="sample: mug", model_3d=file)
    assert mesh_from_link(link).num_faces == 4


def test_a_linked_file_in_memory_is_read(mesh_link, out: Path) -> None:
    class InMemory:
        format, is_disk_backed = "glb", False

        def get_bytes(self) -> bytes:
            return data

    file, _ = outputs(assets.SaveMesh, mesh=mesh_link)
    data = Path(file.get_source()).read_bytes()
    (link,) = outputs(assets.LoadMesh, path="sample: mug", model_3d=InMemory())
    assert mesh_from_link(link).num_faces == 4


@pytest.mark.parametrize("format", ["ply", "splat", "spz"])
@pytest.mark.parametrize("frame", ["3dgs", "world"])
def test_splats_saved_by_a_node_load_again(splat_link, cloud, out, format: str, frame: str) -> None:
    _, relative = outputs(assets.SaveSplat, splat=splat_link, format=format, frame=frame)
    (link,) = outputs(assets.LoadSplat, path=str(out / relative), frame=frame)
    loaded = cloud_from_link(link).means  # writers may change the order
    assert float(torch.cdist(cloud.means, loaded).amin(dim=1).max()) < 1e-2
    assert read_splats(out / relative, frame=frame).num_gaussians == cloud.num_gaussians


def test_saving_under_one_name_twice_overwrites_nothing(mesh_link, out: Path) -> None:
    names = {outputs(assets.SaveMesh, mesh=mesh_link)[1] for _ in range(3)}
    assert len(names) == 3


def test_saving_outside_the_output_folder_is_refused(mesh_link, out: Path) -> None:
    with pytest.raises(ValueError, match="leads out of the output folder"):
        outputs(assets.SaveMesh, mesh=mesh_link, filename_prefix="../../evil")


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("", "No file is named"),
        ("missing.glb", "does not exist"),
        ("picture.png", "cannot be read here"),
        ("sample: dragon", "no sample 'dragon'"),
    ],
)
def test_bad_paths_are_refused_before_and_while_running(out, path: str, part: str) -> None:
    assert part in str(assets.LoadMesh.validate_inputs(path))
    with pytest.raises(ValueError, match=part):
        outputs(assets.LoadMesh, path=path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.glb"
    path.write_bytes(b"glTF\x02\x00\x00\x00" + b"\xff" * 40)
    with pytest.raises(ValueError, match=r"broken\.glb"):
        outputs(assets.LoadMesh, path=str(path))


def test_a_changed_file_runs_again(tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(b"1")
    first = assets.LoadMesh.fingerprint_inputs(str(path), normalize=True)
    path.write_bytes(b"22")
    assert first != assets.LoadMesh.fingerprint_inputs(str(path), normalize=True)
    assert assets.LoadMesh.fingerprint_inputs("sample: mug") == "sample: mug"
