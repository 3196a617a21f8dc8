"""Tests of `evaluation.robustness.shifts`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs import EnvConfig, make
from envs.doom.cfg import game_spec
from evaluation.robustness.shifts import (
    SHIFTS,
    MissingTexture,
    Planes,
    existing,
    with_other_hud,
)
from perception import ImageSpec
from perception.decode import Decoder
from tests.agents.synthetic import PALETTE

STACKED = ImageSpec(
    shape=(8, 10, 4), channels=("palette", "depth", "palette", "labels"), palette=PALETTE
)
RGB = ImageSpec(shape=(8, 10, 4), channels=("red", "green", "blue", "depth"))
GRAY = ImageSpec(shape=(8, 10, 2), channels=("gray", "gray"))
ON_PIXELS = {name: shift.change for name, shift in SHIFTS.items() if shift.change}


def decoded(spec, seed=0):
    frames = np.random.default_rng(seed).integers(256, size=(3, *spec.shape), dtype=np.uint8)
    frames = torch.from_numpy(frames)
    return frames, Decoder(spec).pixels(frames)


def test_planes_are_those_of_the_decoder():
    assert Planes.of(STACKED) == Planes(
        drawn=(0, 1, 2, 3, 4, 5), colours=((0, 1, 2), (3, 4, 5)), palette_channels=(0, 2)
    )
    assert Planes.of(RGB) == Planes(drawn=(0, 1, 2), colours=((0, 1, 2),), palette_channels=())
    assert Planes.of(GRAY) == Planes(drawn=(0, 1), colours=(), palette_channels=())
    assert Planes.of(ImageSpec(shape=(8, 8, 4))).drawn == (0, 1, 2, 3)


@pytest.mark.parametrize("name", ON_PIXELS)
@pytest.mark.parametrize("spec", [STACKED, RGB, GRAY], ids=["palette", "rgb", "gray"])
def test_a_shift_changes_what_is_drawn_and_nothing_else(name, spec):
    if not SHIFTS[name].exists(EnvConfig(), spec):
        assert spec is GRAY
        return
    _, pixels = decoded(spec)
    before = pixels.clone()
    planes = Planes.of(spec)
    shifted = ON_PIXELS[name](pixels, planes, torch.Generator().manual_seed(0))
    assert torch.equal(pixels, before)
    assert 0 <= shifted.min() <= shifted.max() <= 1
    hidden = [plane for plane in range(pixels.shape[-1]) if plane not in planes.drawn]
    assert torch.equal(shifted[..., hidden], pixels[..., hidden])
    assert not torch.equal(shifted, pixels)


def test_shifts_are_what_their_texts_say():
    _, pixels = decoded(RGB)
    planes, generator = Planes.of(RGB), torch.Generator().manual_seed(0)
    colours = pixels[..., :3]

    def shifted(name):
        return ON_PIXELS[name](pixels, planes, generator)[..., :3]

    torch.testing.assert_close(shifted("darker"), 0.7 * colours)
    torch.testing.assert_close(shifted("gamma"), colours**1.5)
    assert torch.equal(shifted("palette"), colours[..., [2, 0, 1]])
    torch.testing.assert_close(shifted("tint")[..., 0], 0.75 * colours[..., 0] + 0.25)
    torch.testing.assert_close(shifted("tint")[..., 1:], 0.75 * colours[..., 1:])
    mean = colours[:, 2:5, 3:6].mean((1, 2))
    torch.testing.assert_close(shifted("blur")[:, 3, 4], mean)
    inside = (colours > 0.3) & (colours < 0.7)
    assert float((shifted("noise") - colours)[inside].std()) == pytest.approx(16 / 255, rel=0.15)


def test_the_texture_of_an_episodes_first_frame_is_missing_in_all_its_frames():
    spec = ImageSpec(shape=(4, 4, 1), channels=("palette",), palette=PALETTE)
    first = torch.full((2, 4, 4, 1), 40, dtype=torch.uint8)
    first[0, 0] = 47  # Another shade of the same colour.
    first[1] = 200
    later = torch.full((2, 4, 4, 1), 200, dtype=torch.uint8)
    later[:, 0] = 33
    texture, decoder = MissingTexture(Planes.of(spec)), Decoder(spec)

    def is_missing(frames, *starts):
        pixels = texture(frames, decoder.pixels(frames), torch.tensor(starts))
        return (pixels == torch.tensor([1.0, 0.0, 1.0])).all(-1)

    assert is_missing(first, True, True).all()
    missing = is_missing(later, False, False)
    assert missing[0, 0].all()
    assert not missing[0, 1:].any()
    assert not missing[1, 0].any()
    assert missing[1, 1:].all()
    assert is_missing(later, True, False)[0, 1:].all()  # A new episode.


def test_shifts_exist_where_they_make_sense():
    names = tuple(SHIFTS)
    assert tuple(existing(names, EnvConfig(env="basic"), STACKED)) == names
    on_rgb = set(existing(names, EnvConfig(env="freedoom2:MAP01"), RGB))
    assert on_rgb == set(names) - {"texture", "hud", "foreign"}
    on_gray = set(existing(names, EnvConfig(env="ALE/Pong-v5"), GRAY))
    assert on_gray == {"darker", "brighter", "gamma", "noise", "blur"}


def test_only_the_status_bar_of_a_scenario_is_changed(tmp_path):
    config = EnvConfig(env="defend_the_center")
    other = with_other_hud(config, tmp_path)
    before, after = game_spec(config.env), game_spec(other.env)
    assert after.settings.pop("render_hud") != before.settings.pop("render_hud")
    assert after.settings == before.settings
    for name in ("wad", "iwad", "map", "buttons", "variables", "arguments"):
        assert getattr(after, name) == getattr(before, name)
    assert other.time_limit == before.time_limit
    # The bar is at the bottom of the screen, and what is above it is smaller.
    screens = []
    for each in (config, other):
        env = make(each)
        screens.append(env.reset(seed=0)[0])
        env.close()
    differ = (screens[0] != screens[1])[..., 0].any(1)
    assert differ[-8:].all()
