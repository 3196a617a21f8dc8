"""Which map an episode is played on: a function of the episode's seed.

An episode's map has the episode's own seed. Where the number of training maps is limited, episodes
of training (those with seeds from `TRAINING` on) share that many maps, whose seeds are in the range
of training, too. So no seed of a map of training is ever one of an evaluation, or of a score. Two
seeds of a kind with few layouts, `two_colours` or `key`, may still give the same layout with other
textures and light.
"""

from __future__ import annotations

import random

from envs.doom.maps.config import MapConfig

TRAINING = 2**30
"""First seed of the episodes of training, and of their maps."""


def map_seed(config: MapConfig, episode_seed: int) -> int:
    """Return the seed of the map of an episode.

    As many successive episodes as there are training maps have each of them once.

    Args:
        config: options of the maps.
        episode_seed: seed of the episode.
    """
    if config.num_maps is None or episode_seed < TRAINING:
        return episode_seed
    turn, place = divmod(episode_seed - TRAINING, config.num_maps)
    # Otherwise, each of N environments, which has every Nth seed, would see few of the maps.
    shift = random.Random(f"turn {turn}").randrange(config.num_maps)
    return TRAINING + config.first_map + (place + shift) % config.num_maps
