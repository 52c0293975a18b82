from __future__ import annotations

import pytest
import torch
from lift3d.core.semantic_field import SemanticField

NAMES = ("hair", "body", "clothes")


def make_field(**change) -> SemanticField:
    values = {"sdf": torch.zeros(4, 5, 6), "logits": torch.zeros(4, 5, 6, 3), "label_names": NAMES}
    return SemanticField(**{**values, **change})


def test_labels_are_the_most_likely_class() -> None:
    logits = torch.zeros(4, 5, 6, 3)
    logits[0, 0, 0, 2] = 1.0
    field = make_field(logits=logits)
    assert int(field.labels[0, 0, 0]) == field.label_index("clothes") == 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sdf": torch.zeros(1, 5, 6), "logits": torch.zeros(1, 5, 6, 3)}, "at least 2 samples"),
        ({"logits": torch.zeros(4, 5, 6, 2)}, r"logits must have shape \[4, 5, 6, 3\]"),
        ({"label_names": ("a", "a", "b")}, "must differ"),
        ({"sdf": torch.full((4, 5, 6), float("inf"))}, "infinite"),
        ({"lower": (1.0, 0.0, 0.0), "upper": (0.0, 1.0, 1.0)}, "must be below"),
        ({"rgb": torch.zeros(4, 5, 6, 4)}, "rgb must have shape"),
    ],
)
def test_broken_fields_are_refused(change: dict, message: str, unchecked_shapes) -> None:
    with pytest.raises(ValueError, match=message):
        make_field(**change)


def test_unknown_class_is_named() -> None:
    with pytest.raises(ValueError, match="No class 'shoes'"):
        make_field().label_index("shoes")
