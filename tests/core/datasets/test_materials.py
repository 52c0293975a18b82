from __future__ import annotations

import numpy as np
import pytest
from lift3d.core.datasets.materials import (
    HUE_COLORS,
    HUES,
    TONES,
    hue_shares,
    jitter_color,
    make_scheme,
    name_hues,
    srgb_to_oklab,
    tint,
)


def test_oklab_of_white_and_red_is_the_published_one():
    lab = srgb_to_oklab(np.array([(1.0, 1.0, 1.0), (1.0, 0.0, 0.0)]))
    np.testing.assert_allclose(lab[0], [1.0, 0.0, 0.0], atol=1e-4)
    np.testing.assert_allclose(lab[1], [0.62796, 0.22486, 0.12585], atol=1e-4)


def test_every_palette_colour_has_its_own_name_also_when_jittered_or_lit_dimly():
    rng = np.random.default_rng(0)
    for index, hue in enumerate(HUES):
        jittered = np.array([jitter_color(HUE_COLORS[hue], rng) for _ in range(200)])
        for shade in (1.0, 0.9, 0.8):
            assert (name_hues(jittered * shade) == index).mean() > 0.99, (hue, shade)


def test_greys_have_no_hue():
    greys = np.linspace(0, 1, 11)[:, None].repeat(3, axis=1)
    assert (name_hues(greys) == -1).all()
    neutral = np.array([TONES[name] for name in ("dark", "gray", "metal", "white")])
    assert (name_hues(neutral) == -1).all()


def test_hue_shares_are_sorted_and_ignore_greys():
    colors = np.array([HUE_COLORS["red"]] * 3 + [HUE_COLORS["blue"]] + [(0.5, 0.5, 0.5)] * 9)
    assert hue_shares(colors) == {"red": 0.75, "blue": 0.25}
    assert hue_shares(np.zeros((4, 3))) == {}


def test_tints_move_towards_white_and_black():
    assert tint((0.5, 0.5, 0.5), 0.5) == (0.75, 0.75, 0.75)
    assert tint((0.5, 0.5, 0.5), -0.5) == (0.25, 0.25, 0.25)


def test_scheme_takes_the_second_hue_or_the_natural_colour():
    rng = np.random.default_rng(1)
    named = make_scheme("red", "blue", "wood", rng)
    assert hue_shares(np.array([named.color("accent")])) == {"blue": 1.0}
    natural = make_scheme("red", None, "metal", rng)
    assert natural.color("accent") == natural.color("metal")
    shaded = make_scheme("red", None, "primary_dark", rng)
    assert shaded.color("accent") == tint(shaded.primary, -0.25)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="Unknown hue 'mauve'"):
        make_scheme("mauve", None, "wood", np.random.default_rng(0))
    scheme = make_scheme("red", None, "wood", np.random.default_rng(0))
    with pytest.raises(ValueError, match="Unknown colour role 'chrome'"):
        scheme.color("chrome")
