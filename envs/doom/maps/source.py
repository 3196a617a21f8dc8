"""Gives an engine the map of each episode, and writes maps into WADs that are kept.

An engine reads a map from its WAD whenever an episode starts. So it needs no WAD with thousands of
maps: it gets one with a single place for a map, in its scratch folder, and before each episode that
episode's map is written into this place. The place has a fixed size, because the engine reads the
WAD's directory only when it starts; what a map leaves free is filled with spaces.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from envs.doom.maps import MAPS, MapConfig, kind_of
from envs.doom.maps.kind import Kind
from envs.doom.maps.level import Level
from envs.doom.maps.looks import decorate
from envs.doom.maps.seeds import TRAINING, map_seed
from envs.doom.maps.udmf import text, wad
from envs.errors import EnvError

WAD_NAME = "maps.wad"
_EXPORTED = 32  # maps, as many as Doom II has
_MOST = 99  # MAP01 to MAP99
_PLACE = 2**19  # Bytes; the largest maps that options allow need about half of that.
_HEADER = 12  # Bytes before the first lump of a WAD.


class MapSource:
    """The maps of an environment.

    Args:
        env: the environment's name, `maps:KIND`.
        config: options of its maps.

    Attributes:
        config: options of its maps.
    """

    def __init__(self, env: str, config: MapConfig) -> None:
        kind = kind_of(env)
        assert kind is not None
        self.config = config
        self._kind: Kind[MapConfig] = MAPS[kind][1](config)

    def level(self, episode_seed: int) -> Level:
        """Return the map of an episode."""
        return self._kind.level(map_seed(self.config, episode_seed))

    def text(self, episode_seed: int) -> bytes:
        """Return the map of an episode as UDMF."""
        return text(self.level(episode_seed)).encode()

    def place(self, path: Path) -> None:
        """Write the WAD with which an engine starts, in which there is a place for a map.

        Some map is in this place, because the engine ends if it starts without one.
        """
        # The place comes first: its offset does not depend on the other lumps.
        path.write_bytes(wad(self._lumps([self.text(0).ljust(_PLACE)])))

    def put(self, path: Path, episode_seed: int) -> Level:
        """Write the map of an episode into an engine's WAD, and return it.

        Args:
            path: the WAD that `place` wrote.
            episode_seed: seed of the episode.

        Raises:
            EnvError: If the map is too large, or cannot be written.
        """
        level = self.level(episode_seed)
        content = text(level).encode()
        if len(content) > _PLACE:
            raise EnvError(
                f"the map of seed {episode_seed} needs {len(content):,} bytes, at most {_PLACE:,} "
                "are possible; choose a smaller --size"
            )
        try:
            with path.open("r+b") as file:
                file.seek(_HEADER)
                file.write(content.ljust(_PLACE))
        except OSError as error:
            raise EnvError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from error
        return level

    def export(self, path: Path, first_seed: int) -> int:
        """Write the maps of a training into a WAD that Doom's programs can read.

        Args:
            path: the WAD.
            first_seed: seed of the training's first episode; without `num_maps`, the maps of its
                first episodes are written.

        Returns:
            The number of maps.
        """
        first, count = first_seed, _EXPORTED
        if self.config.num_maps is not None:
            first, count = TRAINING + self.config.first_map, min(self.config.num_maps, _MOST)
        texts = [text(self._kind.level(first + i)).encode() for i in range(count)]
        path.write_bytes(wad(self._lumps(texts)))
        return count

    def _lumps(self, texts: list[bytes]) -> list[tuple[str, bytes]]:
        lumps = []
        for number, content in enumerate(texts, start=1):
            lumps += [(f"MAP{number:02d}", b""), ("TEXTMAP", content), ("ENDMAP", b"")]
        redefined = decorate(getattr(self.config, "monster_look", "zombie"))
        return [*lumps, *([("DECORATE", redefined)] if redefined else [])]


@functools.lru_cache(maxsize=1024)
def map_hash(env: str, config: MapConfig, episode_seed: int) -> str:
    """Return the SHA-256 of an episode's map, as UDMF."""
    return hashlib.sha256(MapSource(env, config).text(episode_seed)).hexdigest()
