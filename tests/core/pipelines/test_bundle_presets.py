from __future__ import annotations

import pytest
from lift3d.core.pipelines.bundle_presets import (
    PRESET_NAMES,
    load_control_preset,
    load_control_presets,
)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("image", ("tile", 0.6, 0.0, 0.65, 0.95, 0.5)),
        ("image_app", ("tile", 0.3, 0.0, 0.30, 0.95, 0.5)),
        ("mesh", ("tile", 0.1, 0.0, 0.20, 0.95, 0.0)),
    ],
)
def test_the_presets_are_the_published_rows(name, row):
    preset = load_control_preset(name)
    assert tuple(vars(preset).values()) == row


def test_an_unknown_preset_is_refused_with_the_known_ones():
    assert tuple(load_control_presets()) == PRESET_NAMES
    with pytest.raises(ValueError, match="Unknown control preset 'doll'; choose image, image_app"):
        load_control_preset("doll")
