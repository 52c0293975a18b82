"""Workflow files are checked completely before anything runs; all problems come in one message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lift3d.standalone.specs import InputSpec, NodeSpec, spec_from_info, types_match, value_problem
from lift3d.standalone.workflow_file import WorkflowError, parse_workflow, read_workflow
from lift3d.standalone.workflow_steps import compile_steps


def widget(name: str, io_type: str, **options) -> InputSpec:
    return InputSpec(name, io_type, True, True, options)


def socket(name: str, io_type: str, required: bool = True) -> InputSpec:
    return InputSpec(name, io_type, required, False, {})


SPECS = {
    spec.node_id: spec
    for spec in (
        NodeSpec(
            "Source",
            "Source",
            (
                widget("path", "COMBO", options=["a", "b"]),
                widget("count", "INT", min=1, max=9),
                widget("seed", "INT", min=0, max=99, control_after_generate=True),
                widget("scale", "FLOAT", min=0.0, max=2.0),
            ),
            ("MESH", "IMAGE"),
        ),
        NodeSpec("Filter", "Filter", (socket("image", "IMAGE"),), ("IMAGE",)),
        NodeSpec(
            "Both", "Both", (socket("mesh", "MESH,TRIMESH"), socket("rig", "RIG", False)), ("MESH",)
        ),
        NodeSpec("Save", "Save", (socket("mesh", "MESH"), widget("prefix", "STRING")), (), True),
        NodeSpec("Show", "Show", (socket("images", "IMAGE"),), (), True),
    )
}
GOOD = ("a", 3, 7, "randomize", 1.0)


def steps_of(builder, *settings: str):
    return compile_steps(parse_workflow(builder.document()), SPECS, settings=settings)


def problems_of(builder, *settings: str) -> list[str]:
    with pytest.raises(WorkflowError) as caught:
        steps_of(builder, *settings)
    return caught.value.problems


def save_chain(builder, values=GOOD):
    source = builder.node("Source", values, outputs=("MESH", "IMAGE"))
    save = builder.node("Save", ["name"])
    builder.link(source, 0, save, "mesh", "MESH")
    return source, save


def test_steps_come_sources_first_with_values_by_name(builder) -> None:
    save = builder.node("Save", ["name"])
    source = builder.node("Source", GOOD, outputs=("MESH", "IMAGE"))
    builder.link(source, 0, save, "mesh", "MESH")
    first, second = steps_of(builder)
    assert (first.type, second.type) == ("Source", "Save")
    assert first.values == {"path": "a", "count": 3, "seed": 7, "scale": 1.0}
    assert second.values == {"prefix": "name"} and second.links == {"mesh": ("2", 0)}


def test_nodes_that_no_output_needs_are_left_out(builder) -> None:
    save_chain(builder)
    builder.node("Source", GOOD)
    assert len(steps_of(builder)) == 2


def test_reroutes_bypassed_and_primitive_nodes_are_followed(builder) -> None:
    source = builder.node("Source", GOOD, outputs=("MESH", "IMAGE"))
    reroute = builder.node("Reroute", outputs=("IMAGE",))
    skipped = builder.node("Filter", inputs=(("image", "IMAGE"),), outputs=("IMAGE",), mode=4)
    show = builder.node("Show")
    primitive = builder.node("PrimitiveNode", [5, "fixed"], outputs=("INT",))
    builder.link(source, 1, reroute, "", "*")
    builder.link(reroute, 0, skipped, "image", "IMAGE")
    builder.link(skipped, 0, show, "images", "IMAGE")
    builder.link(primitive, 0, source, "count", "INT")
    first, second = steps_of(builder)
    assert second.links == {"images": ("1", 1)}
    assert first.values["count"] == 5


def test_a_bypassed_node_without_a_matching_input_leaves_its_target_unconnected(builder) -> None:
    source = builder.node("Source", GOOD, outputs=("MESH", "IMAGE"), mode=4)
    show = builder.node("Show")
    builder.link(source, 1, show, "images", "IMAGE")
    assert problems_of(builder) == [
        "'images' of node 'Show' (Show, id 2): nothing is connected to it."
    ]


def test_muted_nodes_and_notes_drop_out(builder) -> None:
    save_chain(builder)
    muted = builder.node("Show", mode=2)
    builder.link(1, 1, muted, "images", "IMAGE")
    builder.node("Note", ["some text"])
    builder.node("MarkdownNote", ["some text"])
    assert [step.type for step in steps_of(builder)] == ["Source", "Save"]


def test_settings_replace_values_by_title_or_id(builder) -> None:
    save_chain(builder)
    first, second = steps_of(builder, "Source.count=4", "2.prefix=a=b.c", "Source.scale=0.5")
    assert first.values["count"] == 4 and first.values["scale"] == 0.5
    assert second.values["prefix"] == "a=b.c"


def test_settings_replace_links_of_widgets(builder) -> None:
    source, _ = save_chain(builder)
    primitive = builder.node("PrimitiveNode", [5], outputs=("INT",))
    builder.link(primitive, 0, source, "count", "INT")
    assert steps_of(builder, "Source.count=8")[0].values["count"] == 8


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("Source.count", "not of the form"),
        ("=4", "not of the form"),
        ("Nobody.count=4", "no node titled 'Nobody'"),
        ("Source.colour=4", "has only the values path, count, seed, scale"),
        ("Source.count=many", "invalid literal"),
        ("Source.count=99", "must lie within 1..9"),
        ("Source.path=c", "must be one of a, b"),
        ("Save.mesh=x", "has only the values prefix"),
    ],
)
def test_bad_settings_are_refused(builder, setting: str, part: str) -> None:
    save_chain(builder)
    assert any(part in problem for problem in problems_of(builder, setting))


def test_an_ambiguous_title_asks_for_the_id(builder) -> None:
    save_chain(builder)
    save_chain(builder)
    assert "2 nodes (use the id instead)" in problems_of(builder, "Source.count=4")[0]


def test_unknown_nodes_are_named(builder) -> None:
    save_chain(builder)
    builder.node("KSampler")
    builder.node("Lift3D_FromTheFuture")
    problems = problems_of(builder)
    assert "'KSampler'" in problems[0] and "run this workflow in ComfyUI" in problems[0]
    assert "update Lift3D" in problems[1]


def test_links_of_wrong_types_are_refused(builder) -> None:
    source = builder.node("Source", GOOD, outputs=("MESH", "IMAGE"))
    save = builder.node("Save", ["name"])
    builder.link(source, 1, save, "mesh", "IMAGE")
    assert problems_of(builder) == [
        "'mesh' of node 'Save' (Save, id 2) takes MESH, but is linked to IMAGE of node 'Source' "
        "(Source, id 1)."
    ]


def test_links_to_outputs_that_do_not_exist_are_refused(builder) -> None:
    source = builder.node("Source", GOOD)
    save = builder.node("Save", ["name"])
    builder.link(source, 5, save, "mesh", "MESH")
    assert "which has 2 outputs" in problems_of(builder)[0]


def test_links_from_nowhere_are_refused(builder) -> None:
    save = builder.node("Save", ["name"])
    builder.link(42, 0, save, "mesh", "MESH")
    assert any("hangs on a broken link" in problem for problem in problems_of(builder))


def test_cycles_are_named_by_their_path(builder) -> None:
    first = builder.node("Both", title="A", outputs=("MESH",))
    second = builder.node("Both", title="B", outputs=("MESH",))
    save = builder.node("Save", ["name"])
    builder.link(first, 0, second, "mesh", "MESH")
    builder.link(second, 0, first, "mesh", "MESH")
    builder.link(second, 0, save, "mesh", "MESH")
    assert problems_of(builder) == ["The links form a cycle: B -> A -> B."]


def test_a_cycle_of_reroutes_ends(builder) -> None:
    first = builder.node("Reroute", outputs=("*",))
    second = builder.node("Reroute", outputs=("*",))
    show = builder.node("Show")
    builder.link(first, 0, second, "")
    builder.link(second, 0, first, "")
    builder.link(second, 0, show, "images")
    assert any("broken link" in problem for problem in problems_of(builder))


def test_missing_values_and_connections_are_all_named(builder) -> None:
    builder.node("Source", ["a"], outputs=("MESH", "IMAGE"))
    builder.node("Save", [None])
    problems = problems_of(builder)
    assert [problem.split(" of ")[0] for problem in problems] == [
        "'count'",
        "'seed'",
        "'scale'",
        "'mesh'",
        "'prefix'",
    ]
    assert "its value is missing" in problems[0] and "nothing is connected" in problems[3]


def test_too_many_values_are_refused(builder) -> None:
    save_chain(builder, (*GOOD, "extra"))
    assert "more than its widgets" in problems_of(builder)[0]


def test_values_stored_by_name_are_accepted(builder) -> None:
    save_chain(builder, {"path": "b", "count": 1, "seed": 2, "scale": 0.0, "viewer": "x"})
    assert steps_of(builder)[0].values["path"] == "b"


def test_a_workflow_without_an_output_node_is_refused(builder) -> None:
    builder.node("Source", GOOD)
    assert problems_of(builder) == [
        "No node of the workflow saves or shows anything; add one that does."
    ]


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (("c", 3, 7, "fixed", 1.0), "must be one of a, b; got 'c'"),
        (("a", 0, 7, "fixed", 1.0), "must lie within 1..9, got 0"),
        (("a", 2.5, 7, "fixed", 1.0), "must be a whole number"),
        (("a", True, 7, "fixed", 1.0), "must be a whole number"),
        (("a", 3, 7, "fixed", "big"), "must be a number"),
        (("a", 3, 7, "fixed", float("nan")), "must be finite"),
    ],
)
def test_values_outside_the_schema_are_refused(builder, values, part: str) -> None:
    save_chain(builder, values)
    assert part in problems_of(builder)[0]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "is no JSON file"),
        ("[]", "a list called 'nodes' is missing"),
        ('{"1": {"class_type": "X", "inputs": {}}}', "API-format prompt"),
        ('{"nodes": [], "version": 1}', "expected 0.4"),
        ('{"nodes": [], "version": 0.4, "definitions": {"subgraphs": [{}]}}', "subgraphs"),
        ('{"nodes": [{"type": "X"}], "version": 0.4}', "malformed"),
        (
            '{"nodes": [{"id": 1, "type": "X"}, {"id": 1, "type": "X"}], "version": 0.4}',
            "repeat: 1",
        ),
        ('{"nodes": [], "links": [[1, 2]], "version": 0.4}', "malformed"),
    ],
)
def test_files_that_are_no_workflow_are_refused(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(WorkflowError, match=part):
        read_workflow(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="cannot be read"):
        read_workflow(tmp_path / "nothing.json")


def test_links_as_objects_are_read(builder) -> None:
    save_chain(builder)
    document = json.loads(json.dumps(builder.document()))
    link = document["links"][0]
    document["links"] = [
        {"id": link[0], "origin_id": link[1], "origin_slot": link[2], "target_id": link[3]}
    ]
    steps = compile_steps(parse_workflow(document), SPECS)
    assert steps[1].links == {"mesh": ("1", 0)}


def test_types_match_by_any_member_of_the_lists() -> None:
    assert types_match("MESH", "MESH,TRIMESH") and types_match("FILE_3D", "*")
    assert not types_match("MESH", "TRIMESH")


def test_boolean_and_text_values_are_checked() -> None:
    assert value_problem(widget("x", "BOOLEAN"), 1) and not value_problem(
        widget("x", "BOOLEAN"), True
    )
    assert value_problem(widget("x", "STRING"), 1) and not value_problem(widget("x", "STRING"), "")


def test_object_info_of_comfyui_gives_the_same_spec() -> None:
    info = {
        "input": {
            "required": {
                "mesh": ("MESH,TRIMESH", {}),
                "mode": (["x", "y"], {"default": "x"}),
                "count": ("INT", {"min": 1, "max": 3}),
                "file": ("STRING,FILE_3D", {"widgetType": "STRING"}),
                "text": ("STRING", {"forceInput": True}),
            },
            "optional": {"rig": ("LIFT3D_RIG",)},
        },
        "output": ["MESH"],
        "output_node": True,
        "display_name": "Thing",
    }
    spec = spec_from_info("Thing", info)
    assert [item.name for item in spec.widgets] == ["mode", "count", "file"]
    assert spec.input("mode").options["options"] == ["x", "y"]
    assert not spec.input("rig").required and spec.is_output_node
