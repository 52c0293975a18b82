"""A rigged character opens in Blender with its parts and an armature that deforms them.

Needs the package ``bpy`` (``pip install bpy``, 300 MB); it runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from lift3d.core.datasets.characters import character_meshes, make_character
from lift3d.core.geometry.skeleton import HUMANOID
from lift3d.core.pipelines.rig_character import rig_character, write_rigged

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bpy") is None, reason="needs Blender as a module: pip install bpy"
)

IN_BLENDER = """
import json, sys, bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[-1])
armature = next(item for item in bpy.data.objects if item.type == "ARMATURE")
parts = [item for item in bpy.data.objects if item.type == "MESH" and item.modifiers]

def places():
    graph = bpy.context.evaluated_depsgraph_get()
    found = {}
    for part in parts:
        copy = part.evaluated_get(graph)
        found[part.name] = [copy.matrix_world @ vertex.co for vertex in copy.to_mesh().vertices]
    return found

rest = places()
bone = armature.pose.bones["leftUpperArm"]
bone.rotation_mode = "XYZ"
bone.rotation_euler = (0.8, 0, 0)
bpy.context.view_layer.update()
posed = places()
moved = {n: max((a - b).length for a, b in zip(rest[n], posed[n])) for n in rest}
print("RESULT" + json.dumps({"bones": [b.name for b in armature.data.bones], "moved": moved}))
"""


def test_a_rigged_character_deforms_in_blender(tmp_path: Path) -> None:
    parts = character_meshes(make_character(0), cell=0.03)
    path = write_rigged(tmp_path / "doll.glb", rig_character(list(parts.values())))
    run = subprocess.run(
        [sys.executable, "-c", IN_BLENDER, str(path)], capture_output=True, text=True, timeout=300
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, run.stdout + run.stderr
    seen = json.loads(lines[0].removeprefix("RESULT"))
    assert set(seen["bones"]) == set(HUMANOID)
    assert set(seen["moved"]) == {"body", "clothes", "hair"}
    assert seen["moved"]["body"] > 0.2 and seen["moved"]["clothes"] > 0.1
    assert seen["moved"]["hair"] < 1e-4  # hangs over the shoulder, but on the head
