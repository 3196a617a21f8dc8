"""Doom with one thing changed, at the same seed and env step: the engine's part of interventions.

Three things can be changed without changing the rest of the game: how the engine draws
(`render_weapon`, `render_hud`), the textures of a scenario's map, and which actors exist, by
console commands before the last tic of an env step. Commands such as `remove CLASS` are cheats,
which the engine refuses at skill 5 unless it was started with `sv_cheats`; that alone changes
nothing.

The engine has no command that moves one actor or removes one of several of a class.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.doom.env import DoomEnv
from envs.doom.sight import class_map, class_of, shrunk
from envs.doom.wad import read_directory
from envs.errors import EnvError

WALLS = ("texturetop", "texturemiddle", "texturebottom")
"""Fields of UDMF that name the textures of a wall."""
FLATS = ("texturefloor", "textureceiling")
"""Fields of UDMF that name the textures of floors and ceilings."""
_CHEATS = "+sv_cheats 1"


class AlteredDoom(DoomEnv):
    """Doom whose drawing, map or actors can be changed; without a change, it is `DoomEnv`.

    It draws the buffers of which `kinds` and `visible` are read.

    Args:
        config: configuration of the environment.
        settings: settings of the scenario that are replaced, such as `render_weapon`.
        wad: a file that takes the place of the scenario's own.
    """

    def __init__(
        self,
        config: EnvConfig,
        *,
        settings: Mapping[str, Any] | None = None,
        wad: Path | None = None,
    ) -> None:
        super().__init__(replace(config, kind_targets=True, depth_targets=True))
        spec = self.game_spec
        self.game_spec = replace(
            spec,
            settings={**spec.settings, **(settings or {})},
            wad=wad or spec.wad,
            arguments=f"{spec.arguments} {_CHEATS}".strip(),
        )

    def advance_with(
        self, action: Any, commands: Sequence[str]
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step like `step`, and run console commands before the last tic of the env step.

        Everything but what the commands change is as after `step`: the tics before are simulated
        without being drawn, as `step` does.

        Args:
            action: an element of the action space.
            commands: console commands.
        """
        tics = self.frame_skip
        if self.time_limit is not None:
            tics = min(tics, self.time_limit - self._tics)
        if tics > 1:
            # What these tics pay is part of the reward of the last one, which updates the state.
            self._game.set_action(self._actions.buttons(action))
            self._game.advance_action(tics - 1, False)
            self._tics += tics - 1
        for command in commands:
            self._game.send_game_command(command)
        usual, self.frame_skip = self.frame_skip, 1
        try:
            return self.step(action)
        finally:
            self.frame_skip = usual

    def kinds(self) -> NDArray[np.uint8]:
        """Return the class of each observed pixel, (H, W) uint8, an index of `sight.CLASSES`."""
        buffer = shrunk(self._state.labels_buffer, self.config.height, self.config.width)
        return class_map(self._state.labels, buffer)

    def drawn_labels(self) -> list[Any]:
        """Return the engine's labels of the objects that have a pixel on the observed screen."""
        buffer = shrunk(self._state.labels_buffer, self.config.height, self.config.width)
        is_drawn = np.bincount(buffer.ravel(), minlength=256) > 0
        return [label for label in self._state.labels if is_drawn[label.value]]

    def visible(self) -> dict[int, tuple[str, ...]]:
        """Return the actors' classes in the engine, such as `DoomImp`, of each kind in view."""
        found: dict[int, set[str]] = {}
        for label in self.drawn_labels():
            found.setdefault(class_of(label.object_name, label.object_category), set()).add(
                label.object_name
            )
        return {kind: tuple(sorted(names)) for kind, names in found.items() if kind}


def retextured(wad: Path, out: Path, texture: str, fields: Sequence[str]) -> int:
    """Write a copy of a WAD in which walls, or floors and ceilings, have one other texture.

    Args:
        wad: the file, whose maps are in the UDMF format.
        out: the file to write.
        texture: name of the texture.
        fields: `WALLS` or `FLATS`.

    Returns:
        The number of textures that were replaced; surfaces without a texture keep none.

    Raises:
        EnvError: If the file cannot be read or is not a WAD.
    """
    content, lumps, count = wad.read_bytes(), [], 0
    pattern = re.compile(rb'\b(%s)\s*=\s*"(?!-")[^"]*"' % "|".join(fields).encode(), re.IGNORECASE)
    for name, start, size in read_directory(wad):
        data = content[start : start + size]
        if name == "TEXTMAP":
            data, replaced = pattern.subn(rb'\1 = "%s"' % texture.encode(), data)
            count += replaced
        lumps.append((name, data))
    body, directory = b"", b""
    for name, data in lumps:
        directory += struct.pack("<ii8s", 12 + len(body), len(data), name.encode())
        body += data
    try:
        out.write_bytes(
            struct.pack("<4sii", b"PWAD", len(lumps), 12 + len(body)) + body + directory
        )
    except OSError as error:
        raise EnvError(f"{out} cannot be written: {error.strerror}") from error
    return count
