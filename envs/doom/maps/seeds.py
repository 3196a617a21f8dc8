"""Which map an episode is played on: a function of the episode's seed.

An episode's map has the episode's own seed. Where the number of training maps is limited, episodes
of training (those with seeds from `TRAINING` on) share that many maps, whose seeds are in the range
of training, too. So no map of a training is ever one of an evaluation, or of a score.
"""

from __future__ import annotations

from envs.doom.maps.config import MapConfig

TRAINING = 2**30
"""First seed of the episodes of training, and of their maps."""


def map_seed(config: MapConfig, episode_seed: int) -> int:
    """Return the seed of the map of an episode.

    Args:
        config: options of the maps.
        episode_seed: seed of the episode.
    """
    if config.num_maps is None or episode_seed < TRAINING:
        return episode_seed
    return TRAINING + config.first_map + episode_seed % config.num_maps
