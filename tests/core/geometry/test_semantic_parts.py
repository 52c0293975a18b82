import pytest
import torch
from lift3d.core.geometry.semantic_parts import (
    StdgenLabel,
    StdgenPart,
    labels_sdf,
    part_classes,
    part_sdf,
    stdgen_part_sdf,
)

PROBABILITIES = torch.tensor([0.10, 0.20, 0.05, 0.65])


def _field(sdf: float, probabilities: torch.Tensor, size: int = 1):
    grid = torch.full((size, size, size), sdf)
    return grid, probabilities.expand(size, size, size, 4).clone()


@pytest.mark.parametrize(
    ("sdf", "expected"),
    [(-0.3, [0.55, 0.45, 0.60, -0.30]), (0.2, [0.55, 0.45, 0.60, 0.20])],
)
def test_single_classes_have_the_values_of_equation_3(sdf, expected):
    values = [labels_sdf(torch.tensor(sdf), PROBABILITIES, [s]).item() for s in range(4)]
    assert values == pytest.approx(expected)


def test_a_class_that_is_not_the_likeliest_stays_outside_on_the_surface():
    probabilities = torch.tensor([0.5, 0.3, 0.1, 0.1])
    values = [labels_sdf(torch.tensor(0.0), probabilities, [s]).item() for s in range(4)]
    assert values == pytest.approx([0, 0.2, 0.4, 0.4])


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.10, 0.20, 0.05, 0.65], {1: -0.30, 2: 0.45, 3: -0.30}),
        ([0.40, 0.35, 0.05, 0.20], {1: 0.05, 2: 0.05, 3: 0.20}),
    ],
)
def test_part_codes_have_the_published_values(probabilities, expected):
    sdf, p = _field(-0.3, torch.tensor(probabilities))
    for code, value in expected.items():
        assert stdgen_part_sdf(sdf, p, StdgenPart(code)).item() == pytest.approx(value)
    hair = labels_sdf(sdf, p, [StdgenLabel.HAIR]).item()
    assert hair == pytest.approx(0.55 if probabilities[0] < 0.4 else -0.05)


def test_inside_exactly_one_of_a_set_and_its_complement_is_negative():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(50, 4, generator=generator).softmax(dim=-1)
    sdf = -torch.ones(50)
    first, second = labels_sdf(sdf, p, [0, 2]), labels_sdf(sdf, p, [1, 3])
    assert bool(((first < 0) != (second < 0)).all())


def test_clothes_keep_one_layer_of_face_neighbours():
    sdf, p = _field(-1.0, torch.tensor([0.6, 0.3, 0.1, 0.0]), size=5)
    p[2, 2, 2] = torch.tensor([0.0, 0.1, 0.1, 0.8])
    part = stdgen_part_sdf(sdf, p, StdgenPart.CLOTHES)
    inside = (part == -1).nonzero().tolist()
    assert len(inside) == 7 and int((part < 0).sum()) == 7
    assert all(sum(abs(a - 2) for a in place) <= 1 for place in inside)


def test_the_layer_does_not_wrap_round_the_grid():
    sdf, p = _field(-1.0, torch.tensor([0.0, 0.3, 0.1, 0.6]), size=4)
    p[0, 0, 0] = torch.tensor([0.9, 0.1, 0.0, 0.0])
    assert int((stdgen_part_sdf(sdf, p, StdgenPart.HAIR) < 0).sum()) == 4


def test_the_whole_is_the_field_itself():
    sdf, p = _field(-0.3, PROBABILITIES, size=2)
    assert torch.equal(stdgen_part_sdf(sdf, p, StdgenPart.WHOLE), sdf)


@pytest.mark.parametrize("kept", [[], [4], [-1]])
def test_unknown_classes_are_refused(kept):
    with pytest.raises(ValueError, match="kept must name classes 0..3"):
        labels_sdf(torch.tensor(0.0), PROBABILITIES, kept)


LABELS = ("hair", "face", "skin", "clothes")


@pytest.mark.parametrize(
    ("part", "classes"),
    [
        ("whole", {0, 1, 2, 3}),
        ("without_hair", {1, 2, 3}),
        ("body", {1, 2}),
        ("clothes", {3}),
        ("hair", {0}),
        ("face", {1}),
        ("hair+clothes", {0, 3}),
        (" hair + face", {0, 1}),
    ],
)
def test_parts_are_sets_of_classes(part, classes):
    assert part_classes(part, LABELS) == classes


def test_a_class_of_its_own_takes_the_name_of_a_sum():
    assert part_classes("body", ("body", "hat")) == {0}


def test_unknown_parts_are_refused_with_a_list_of_classes():
    with pytest.raises(ValueError, match="no part or class 'wings'.*hair, face, skin, clothes"):
        part_classes("hair+wings", LABELS)
    with pytest.raises(ValueError, match="has no class"):
        part_classes("body", ("hair", "clothes"))


def test_the_paper_form_is_equation_10_and_the_reference_form_thickens_single_classes():
    sdf, p = _field(-1.0, torch.tensor([0.6, 0.3, 0.1, 0.0]), size=5)
    p[2, 2, 2] = torch.tensor([0.0, 0.1, 0.1, 0.8])
    assert int((part_sdf(sdf, p, [3], "paper") < 0).sum()) == 1
    assert int((part_sdf(sdf, p, [3], "reference") < 0).sum()) == 7
    for kept in ([0, 3], [1, 2], [0, 1, 2, 3]):
        forms = [part_sdf(sdf, p, kept, form) for form in ("paper", "reference")]
        assert torch.equal(*forms)
        assert torch.equal(forms[0], labels_sdf(sdf, p, kept))


def test_unknown_forms_are_refused(unchecked_shapes):
    sdf, p = _field(-1.0, PROBABILITIES)
    with pytest.raises(ValueError, match="'paper' or 'reference'"):
        part_sdf(sdf, p, [3], "thick")
