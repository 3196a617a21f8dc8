"""What differs from the defaults, world by world, and why.

Keys are names of configuration fields, which are also the names of flags. A preset is a default:
whatever is given on the command line wins.
"""

from __future__ import annotations

import re
from typing import Any

# Every agent on every world of Doom. Rollouts of 64 steps in 16 games see several episodes of the
# short scenarios, and enough time in the long ones.
_DOOM: dict[str, Any] = {"num_envs": 16, "num_groups": 2}

# Pixels of Atari: the settings of the 37-details article, with four gray frames of 84 x 84.
_ATARI: dict[str, Any] = {
    **{"observation": "gray", "height": 84, "width": 84, "frame_stack": 4, "num_envs": 8},
    **{"learning_rate": 2.5e-4, "entropy_coef": 0.01, "normalize_returns": True},
    **{"anneal_learning_rate": True, "total_env_steps": 10_000_000},
}

# Vectors: tanh layers, no images.
_CLASSIC: dict[str, Any] = {"num_envs": 8, "num_groups": 1, "total_env_steps": 200_000}

_FAMILIES: tuple[tuple[str, dict[str, Any]], ...] = (
    (r"ALE/", _ATARI),
    # A track is long and smooth: hold each action for two frames, see motion in two frames.
    (
        r"CarRacing",
        {
            **{"observation": "gray", "height": 64, "width": 64, "frame_skip": 2, "frame_stack": 2},
            **{"num_envs": 8, "normalize_returns": True, "total_env_steps": 2_000_000},
        },
    ),
    (r"MiniGrid-", {**_CLASSIC, "normalize_obs": True, "total_env_steps": 500_000}),
    (r"[A-Z]\w+-v\d+$|.+:\w+-v\d+$", _CLASSIC),
    (r".*", _DOOM),
)

_WORLDS: dict[str, dict[str, Any]] = {}

# What one agent needs on one family or world beyond that.
_AGENTS: dict[tuple[str, str], dict[str, Any]] = {}


def preset(env: str, agent: str) -> dict[str, Any]:
    """Give the fields in which a world's configuration differs from the defaults.

    Args:
        env: the world's canonical name.
        agent: the agent's name.
    """
    family = next(fields for pattern, fields in _FAMILIES if re.match(pattern, env))
    return {**family, **_WORLDS.get(env, {}), **_AGENTS.get((env, agent), {})}
