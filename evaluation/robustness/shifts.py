"""Natural shifts: changes of the screen that no attacker computes.

A shift changes what is drawn, never depth or labels, nor vectors beside the screen.

Axes: N environments, H, W, C an image as observed, P its planes as pixels, G colours of a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from envs import EnvConfig
from envs.doom.cfg import BUNDLED, game_spec
from envs.doom.scenarios import SCENARIOS
from perception import ImageSpec

_NOT_DRAWN = ("depth", "labels")
_RGB = ("red", "green", "blue")
_MISSING = (1.0, 0.0, 1.0)  # Magenta, in which engines draw what they do not find.
_RAMP = 16  # Neighbouring indices of Doom's palette that are shades of one colour.


@dataclass(frozen=True, kw_only=True)
class Planes:
    """Which planes of an image's pixels are drawn.

    Attributes:
        drawn: of all that is drawn.
        colours: (red, green, blue) of each frame, in the order of the planes.
        palette_channels: the channel, as observed, of each of the colours that are a palette's.
    """

    drawn: tuple[int, ...]
    colours: tuple[tuple[int, int, int], ...]
    palette_channels: tuple[int, ...]

    @classmethod
    def of(cls, spec: ImageSpec) -> Planes:
        """Return those of an image: colours of its palette channels come first."""
        channels = spec.channels or ("",) * spec.shape[2]
        palettes = spec.index_channels
        first = 3 * len(palettes)
        colours = [(i, i + 1, i + 2) for i in range(0, first, 3)]
        others = [name for i, name in enumerate(channels) if i not in palettes]
        for place, names in enumerate(zip(others, others[1:], others[2:], strict=False)):
            if names == _RGB:
                colours.append((first + place, first + place + 1, first + place + 2))
        kept = [first + i for i, name in enumerate(others) if name not in _NOT_DRAWN]
        return cls(drawn=(*range(first), *kept), colours=tuple(colours), palette_channels=palettes)


Change = Callable[[Tensor, Planes, torch.Generator], Tensor]
"""Changes the (N, H, W, P) pixels of an image."""


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A natural shift.

    Attributes:
        text: what it does, for tables.
        change: changes pixels; None if the environment or the player does it.
        needs_colours: whether it exists only where frames have colours.
        needs_palette: whether it exists only where indices of a palette are observed.
        only_scenarios: whether it exists only in ViZDoom's scenarios.
    """

    text: str
    change: Change | None = None
    needs_colours: bool = False
    needs_palette: bool = False
    only_scenarios: bool = False

    def exists(self, config: EnvConfig, spec: ImageSpec) -> bool:
        """Return whether an environment can be shifted so.

        Args:
            config: the environment.
            spec: the image that is observed.
        """
        planes = Planes.of(spec)
        has = (
            bool(planes.colours) or not self.needs_colours,
            bool(planes.palette_channels) or not self.needs_palette,
            config.env in SCENARIOS or not self.only_scenarios,
        )
        return all(has)


def _drawn(compute: Callable[[Tensor], Tensor]) -> Change:
    """Return a change of all planes that are drawn, alike."""

    def change(pixels: Tensor, planes: Planes, generator: torch.Generator) -> Tensor:
        drawn = compute(pixels[..., list(planes.drawn)]).clamp(0.0, 1.0)
        return _put(pixels, planes.drawn, drawn)

    return change


def _noise(pixels: Tensor, planes: Planes, generator: torch.Generator) -> Tensor:
    drawn = pixels[..., list(planes.drawn)]
    noise = torch.randn(drawn.shape, generator=generator).to(drawn.device)
    return _put(pixels, planes.drawn, (drawn + 16.0 / 255.0 * noise).clamp(0.0, 1.0))


def _coloured(compute: Callable[[Tensor], Tensor]) -> Change:
    """Return a change of the (N, H, W, G, 3) colours of all frames."""

    def change(pixels: Tensor, planes: Planes, generator: torch.Generator) -> Tensor:
        places = [plane for colour in planes.colours for plane in colour]
        colours = pixels[..., places].unflatten(-1, (-1, 3))
        return _put(pixels, places, compute(colours).flatten(-2))

    return change


def _red(colours: Tensor) -> Tensor:
    return torch.lerp(colours, colours.new_tensor((1.0, 0.0, 0.0)), 0.25)


def _blurred(drawn: Tensor) -> Tensor:
    """Return (N, H, W, P) planes, each pixel the mean of the 3 x 3 around it."""
    planes = F.pad(drawn.movedim(-1, 1), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(planes, 3, stride=1).movedim(1, -1)


def _put(pixels: Tensor, places: tuple[int, ...] | list[int], planes: Tensor) -> Tensor:
    changed = pixels.clone()
    changed[..., list(places)] = planes
    return changed


SHIFTS: dict[str, Shift] = {
    "darker": Shift(text="brightness times 0.7", change=_drawn(lambda p: 0.7 * p)),
    "brighter": Shift(text="brightness times 1.3", change=_drawn(lambda p: 1.3 * p)),
    "gamma": Shift(text="brightness to the power of 1.5", change=_drawn(lambda p: p**1.5)),
    "tint": Shift(text="a quarter red", change=_coloured(_red), needs_colours=True),
    "palette": Shift(
        text="red, green and blue exchanged",
        change=_coloured(lambda colours: colours.roll(1, -1)),
        needs_colours=True,
    ),
    "noise": Shift(text="normal noise of deviation 16/255", change=_noise),
    "blur": Shift(text="mean of 3 x 3 pixels", change=_drawn(_blurred)),
    "texture": Shift(
        text="the most frequent colour of the first frame, in all shades, is magenta",
        needs_palette=True,
    ),
    "hud": Shift(
        text="the status bar is shown, above it a smaller view; or hidden, if it was shown",
        only_scenarios=True,
    ),
    "foreign": Shift(text="one second of another scenario's frames", only_scenarios=True),
}
"""Natural shifts by name."""


class MissingTexture:
    """Paints what has the most frequent colour of an episode's first frame, in all its shades.

    This is what most of the screen shows, as a rule floor or walls; whatever else has its colour is
    painted, too.

    Args:
        planes: the planes of the image.
    """

    def __init__(self, planes: Planes) -> None:
        self._planes = planes
        self._ramps: Tensor | None = None

    def __call__(self, frames: Tensor, pixels: Tensor, episode_starts: Tensor) -> Tensor:
        """Return (N, H, W, P) pixels, painted.

        Args:
            frames: (N, H, W, C) uint8, as observed.
            pixels: (N, H, W, P), what they are decoded to.
            episode_starts: (N,) bool.
        """
        channels = list(self._planes.palette_channels)
        ramps = frames[..., channels] // _RAMP  # (N, H, W, G)
        first = ramps[..., -1].flatten(1).long()
        counts = F.one_hot(first, 256 // _RAMP).sum(1)
        frequent = counts.argmax(1)
        if self._ramps is not None:
            frequent = torch.where(episode_starts, frequent, self._ramps)
        self._ramps = frequent
        painted = pixels.clone()
        colour = pixels.new_tensor(_MISSING)
        for place in range(len(channels)):
            is_missing = (ramps[..., place] == frequent[:, None, None])[..., None]
            planes = slice(3 * place, 3 * place + 3)
            painted[..., planes] = torch.where(is_missing, colour, pixels[..., planes])
        return painted


def with_other_hud(config: EnvConfig, folder: Path) -> EnvConfig:
    """Return a scenario with its status bar, or without it if it has one.

    Args:
        config: the environment, a scenario of ViZDoom's.
        folder: where the scenario's .cfg is written with this change; it is read when an engine
            starts.
    """
    spec = game_spec(config.env)
    assert spec is not None
    shown = bool(spec.settings.get("render_hud", False))
    text = (BUNDLED / f"{config.env}.cfg").read_text()
    # The last of several values counts.
    path = folder / f"{config.env}.cfg"
    path.write_text(f"{text}\nrender_hud = {str(not shown).lower()}\n")
    return replace(config, env=str(path), time_limit=config.time_limit or spec.time_limit)


def existing(names: tuple[str, ...], config: EnvConfig, spec: ImageSpec) -> Iterator[str]:
    """Yield the names of the shifts that exist in an environment."""
    for name in names:
        if SHIFTS[name].exists(config, spec):
            yield name
