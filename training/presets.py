"""What differs from the defaults, by environment and agent, and why.

Keys are dotted names of configuration fields; `encoder` and `memory` are names in registries. A
preset is a default: whatever is given on the command line takes precedence. Of several entries that
fit, later ones take precedence: the environment's family, the environment, the agent in the family,
and the agent in the environment.
"""

from __future__ import annotations

import re
from typing import Any

# Every agent in every environment of Doom. A screen of 80 x 60 is half the engine's smallest one in
# each direction: it shows what these scenarios need, at half the work of 128 x 72. The narrow
# network leaves two CPU cores to the environments rather than to convolutions.
_DOOM: dict[str, Any] = {
    "env.height": 60,
    "env.width": 80,
    "perception.encoder.conv_channels": (16, 32, 32),
    "perception.encoder.features": 256,
    "num_envs": 16,
    "num_groups": 2,
}
# PPO learns from 64 steps of 16 environments at a time: several episodes of the short scenarios,
# and enough of the long ones. With memory, minibatches are whole sequences: of shorter ones, more
# fit.
_DOOM_PPO: dict[str, Any] = {
    "agent.learning_rate": 5e-4,
    "agent.anneal_learning_rate": True,
    "agent.rollout_length": 64,
}
_RECURRENT_PPO: dict[str, Any] = {**_DOOM_PPO, "agent.rollout_length": 32}
_RECURRENT: dict[str, Any] = {"memory": "lstm"}

# Atari as in the 37-details article (Huang et al. 2022): its nine details of Atari, and below the
# hyper-parameters of its ppo_atari.py. Rewards are clipped, and a lost life is an end, for learning
# only; results are of whole games at their native reward. Different from the article is what the id
# `ALE/...-v5` defines (Machado et al. 2018): the emulator repeats the previous action with a
# probability of 0.25, which the article's `...NoFrameskip-v4` never does, and a game is truncated
# after 108,000 frames. The actions are the game's minimal set in both.
_ATARI: dict[str, Any] = {
    "env.observation": "gray",
    "env.height": 84,
    "env.width": 84,
    "env.frame_stack": 4,
    "env.frame_skip": 4,
    "env.max_pool": True,
    "env.noop_max": 30,
    "env.fire_reset": True,
    "env.terminal_on_life_loss": True,
    "agent.clip_rewards": True,
    "agent.anneal_learning_rate": True,
    "num_envs": 8,
    "total_env_steps": 10_000_000,
}
# Our value loss is Stable-Baselines3's: the squared error, after clipping. The article's is half of
# it, hence half its weight of 0.5, and the larger of the clipped and the unclipped one.
_ATARI_PPO: dict[str, Any] = {
    "agent.rollout_length": 128,
    "agent.learning_rate": 2.5e-4,
    "agent.num_epochs": 4,
    "agent.minibatch_size": 256,
    "agent.clip_coef": 0.1,
    "agent.value_clip_coef": 0.1,
    "agent.value_coef": 0.25,
    "agent.entropy_coef": 0.01,
    "agent.gamma": 0.99,
    "agent.gae_lambda": 0.95,
    "agent.normalize_advantages": True,
    "agent.max_grad_norm": 0.5,
}

# Where what was seen matters long after, the gradient must reach back to it; rare rewards need
# larger batches, since a rollout without any holds little but noise.
_RARE_PPO: dict[str, Any] = {"agent.rollout_length": 128, "agent.minibatch_size": 512}

# What an objective needs of Doom, which is only reported if it is asked for. Whether an enemy is in
# view is the most useful of the variables to predict.
_DOOM_OBJECTIVES: dict[str, dict[str, Any]] = {
    "variables": {"env.enemy_in_view": True},
    "depth": {"env.depth_targets": True},
    # Little is drawn for them, and what is learned depends on how many images have labels.
    "labels": {"env.kind_targets": True, "env.targets_every": 2},
}

# What is set only where images are observed.
_IMAGES = {"env.height", "env.width"}

# Vectors: tanh layers, no images.
_CLASSIC: dict[str, Any] = {"num_envs": 8, "num_groups": 1, "total_env_steps": 200_000}

# A track is long and smooth: an action is held for four of 50 frames a second, and stacked frames
# show motion. Drawing takes most of the time, so each env step is used for more epochs.
_CAR_RACING: dict[str, Any] = {
    "env.env_kwargs": ("continuous=False",),
    "env.observation": "gray",
    "env.height": 64,
    "env.width": 64,
    "env.frame_skip": 4,
    "env.frame_stack": 4,
    "agent.normalize_obs": True,
    "agent.normalize_returns": True,
    "agent.anneal_learning_rate": True,
    "num_envs": 16,
    "total_env_steps": 150_000,
}
_CAR_RACING_PPO: dict[str, Any] = {
    "agent.rollout_length": 128,
    "agent.num_epochs": 8,
    "agent.learning_rate": 5e-4,
}

# The cells of a grid are numbers of objects, colours and states, which mean nothing as quantities:
# one-hot, they are learned within fewer env steps. Rewards are rare and noisy, and may depend on
# what was seen long before: hence large batches of long sequences, and more entropy.
_GRID: dict[str, Any] = {
    **_CLASSIC,
    "env.wrappers": ("minigrid.wrappers:OneHotPartialObsWrapper",),
    "num_envs": 64,
    "total_env_steps": 1_000_000,
}
_GRID_PPO: dict[str, Any] = {
    "agent.rollout_length": 64,
    "agent.minibatch_size": 1024,
    "agent.learning_rate": 1e-3,
    "agent.entropy_coef": 0.02,
    "agent.target_kl": 0.03,  # Single updates went much farther, and undid what was learned.
}

# Vectors with memory. An update goes through its sequences env step by env step, which
# takes hardly longer for many sequences than for a few: as many env steps of four times as many
# environments take much less time.
_RECURRENT_CLASSIC: dict[str, Any] = {"num_envs": 32}
_RECURRENT_CLASSIC_PPO: dict[str, Any] = {"agent.rollout_length": 32, "agent.minibatch_size": 256}

_FAMILIES: tuple[tuple[str, dict[str, Any]], ...] = (
    (r"ALE/", _ATARI),
    (r"CarRacing", _CAR_RACING),
    # Which way to turn was shown at the start, and a window of 64 env steps holds whole episodes.
    (r"MiniGrid-Memory", {**_GRID, "memory": "attention"}),
    (r"MiniGrid-", _GRID),
    # Every episode is on another map, so learning takes longer than on one.
    (r"maps:", {**_DOOM, "total_env_steps": 2_000_000}),
    # Every match takes several engines. Ammunition and health are not on the screen, and a player
    # who went behind a wall is still there.
    (
        r"players:",
        {
            **_DOOM,
            "env.variables": True,
            "memory": "lstm",
            "num_envs": 8,
            "total_env_steps": 2_000_000,
        },
    ),
    # A level of Freedoom may take an hour; learning needs episodes that end within five minutes.
    (r"freedoom\d:", {**_DOOM, "env.time_limit": 10_500}),
    (r"(?i).*\.(cfg|wad)(:\w+)?$", _DOOM),
    # Any other Gymnasium id, also with its module.
    (r".*(:|-v\d+$)", _CLASSIC),
    (r".*", _DOOM),
)

# Rewards of hundreds are scaled to about 1, so that the value loss does not dominate the policy's.
_HUNDREDS: dict[str, Any] = {"agent.reward_scale": 0.01}

# Long episodes that differ much, by their rooms, by where things lie, or by who attacks: of 16
# environments, batches would differ too much.
_LONG: dict[str, Any] = {
    "agent.normalize_obs": True,
    "agent.gamma": 0.995,
    "num_envs": 32,
    "total_env_steps": 250_000,
}

# Pixels of a dark room are small numbers, from which a new network computes small features.
_BASIC: dict[str, Any] = {
    **_HUNDREDS,
    "agent.normalize_obs": True,
    "total_env_steps": 150_000,
}

_ENVS: dict[str, dict[str, Any]] = {
    # Short episodes and one monster: solved within 50,000 env steps. PPO's learning rate is below.
    "basic": _BASIC,
    "simpler_basic": _BASIC,
    "learning": _BASIC,
    "rocket_basic": _BASIC,
    # The monster is heard, not seen.
    "basic_audio": {**_BASIC, "env.sound": True},
    # The message that names the target is there for one env step.
    "basic_notifications": {
        **_BASIC,
        "memory": "gru",
        "env.notifications": True,
        "total_env_steps": 250_000,
    },
    # Running until one is shot yields 400 and is learned at once; standing and shooting yields
    # more, much later. More entropy and a longer horizon lead there before the policy has settled.
    "deadly_corridor": {
        **_HUNDREDS,
        "agent.normalize_obs": True,
        "agent.gamma": 0.997,
        "agent.entropy_coef": 0.02,
        "total_env_steps": 1_000_000,
        "eval_every": 50_000,
        "eval_episodes": 50,
    },
    # Ammunition is scarce and not on the screen: a policy that cannot see it wastes it. A wasted
    # bullet is missed hundreds of env steps later, which the default discount hides.
    "defend_the_center": {
        "env.variables": True,
        "agent.gamma": 0.999,
        "total_env_steps": 500_000,
    },
    # Good within 100,000 env steps; what is missing to the best policies takes millions.
    "defend_the_line": {**_LONG, "env.variables": True},
    # Health is not on the screen: a policy that cannot see it does not know how long it will live.
    "health_gathering": {
        **_HUNDREDS,
        **_LONG,
        "env.variables": True,
        "total_env_steps": 150_000,
    },
    # What was seen behind the last corner matters too; memory has not been tried with the rest.
    "health_gathering_supreme": {
        **_HUNDREDS,
        **_LONG,
        "env.variables": True,
        "total_env_steps": 600_000,
    },
    # One frame does not show where a fireball flies.
    "take_cover": {**_HUNDREDS, **_LONG, "env.frame_stack": 2, "total_env_steps": 300_000},
    # Each room looks different, so that no memory is needed. An action that is held for 8 tics, a
    # quarter of a second, leads farther, and the vest is fewer decisions away.
    "my_way_home": {
        "env.frame_skip": 8,
        "agent.normalize_obs": True,
        "agent.gamma": 0.995,
        "num_envs": 32,
        "total_env_steps": 600_000,
    },
    # A rocket takes a second to arrive: the policy must see where the target is and which way it
    # moves, from a few pixels in a dark room. Strides of 2 do not skip them, normalisation makes
    # them visible, and twice the height would add nothing. One hit in ten episodes is little to
    # learn from and to select by: more entropy keeps chance from deciding what has not been learned
    # yet.
    "predict_position": {
        "env.frame_stack": 2,
        "env.height": 30,
        "env.actions": "groups",
        "perception.encoder.conv_strides": (2, 2, 1),
        "agent.normalize_obs": True,
        "agent.reward_scale": 5.0,
        "agent.entropy_coef": 0.015,
        "num_envs": 32,
        "num_groups": 4,
        "total_env_steps": 1_600_000,
        "eval_every": 50_000,
        "eval_episodes": 100,
    },
    # At corners that look alike, it must know which way it came.
    "maps:maze": _RECURRENT,
    # Health is not on the screen, and a tic pays 1: as in health_gathering. Where medikits are left
    # could be remembered, but without memory, much more is learned in as much time.
    "maps:gather": {**_HUNDREDS, **_LONG, "env.variables": True},
    # Ammunition and health are not on the screen.
    "maps:arena": {**_LONG, "env.variables": True},
    # Where the items are seen, what tells the right one is not: without memory, the mean return is
    # at most 0.8. The reward comes 100 env steps after the cue, so it is discounted less.
    "maps:two_colours": {**_RECURRENT, "agent.gamma": 0.995, "total_env_steps": 1_000_000},
    # A door that was seen before the key was must be found again, hundreds of env steps later.
    "maps:key": {**_RECURRENT, "agent.gamma": 0.995, "total_env_steps": 5_000_000},
    # A monster that went behind a wall is still there. Ammunition and health are not on the screen.
    "maps:corridors": {**_RECURRENT, "env.variables": True},
    # Most of its 20 buttons only get in the way of learning: looking up and down, say, or choosing
    # a weapon, where a better one is used as soon as it is picked up. Kills come late, damage at
    # once.
    "deathmatch": {
        **_LONG,
        "env.buttons": (
            "ATTACK",
            "MOVE_BACKWARD",
            "MOVE_FORWARD",
            "MOVE_LEFT",
            "MOVE_RIGHT",
            "TURN_LEFT",
            "TURN_RIGHT",
        ),
        "env.shaping": ("damage",),
        "env.variables": True,
        "agent.gamma": 0.99,
        "agent.reward_scale": 0.2,
        "total_env_steps": 1_000_000,
    },
}

_FAST: dict[str, Any] = {"agent.learning_rate": 1e-3}

# What one agent needs in one environment beyond that.
_AGENTS: dict[tuple[str, str], dict[str, Any]] = {
    **{
        (env, "ppo"): _RARE_PPO
        for env in (
            *("my_way_home", "maps:two_colours", "maps:key"),
            *("players:duel", "players:deathmatch", "players:cooperation"),
        )
    },
    **{
        (env, "ppo"): {"agent.minibatch_size": 512}
        for env in (
            *("health_gathering", "health_gathering_supreme", "defend_the_line", "take_cover"),
            *("deathmatch", "maps:gather", "maps:arena"),
        )
    },
    # One small problem: large steps are safe and save time.
    ("basic", "ppo"): _FAST,
    ("basic_audio", "ppo"): _FAST,
    # One message names the monster to shoot; a gradient does not reach beyond the rollout.
    ("basic_notifications", "ppo"): {**_FAST, "agent.rollout_length": 64},
    ("simpler_basic", "ppo"): _FAST,
    ("learning", "ppo"): _FAST,
    # Returns of 50 are scaled to about 1, for the value loss. Large steps speed up learning, but
    # without a limit on them, the policy collapses later.
    ("CartPole-v1", "ppo"): {
        "agent.rollout_length": 64,
        "agent.minibatch_size": 128,
        "agent.num_epochs": 10,
        "agent.learning_rate": 2e-3,
        "agent.anneal_learning_rate": True,
        "agent.gae_lambda": 0.95,
        "agent.gamma": 0.98,
        "agent.entropy_coef": 0.0,
        "agent.reward_scale": 0.05,
        "agent.target_kl": 0.02,
        "total_env_steps": 80_000,
    },
}


def observes_little(env: str) -> bool:
    """Return whether an environment observes vectors or grids, as most of Gymnasium's do.

    Args:
        env: the environment's canonical name.
    """
    return _family(env).keys() >= _CLASSIC.keys() and not _family(env).keys() & _IMAGES


def _family(env: str) -> dict[str, Any]:
    return next(values for pattern, values in _FAMILIES if re.match(pattern, env))


def preset(
    env: str, agent: str, objectives: tuple[str, ...] = (), memory: str | None = None
) -> dict[str, Any]:
    """Return the fields in which a configuration differs from the defaults, by dotted name.

    Args:
        env: the environment's canonical name.
        agent: the agent's name.
        objectives: names of objectives.
        memory: the memory's name. None: the preset's.
    """
    family = _family(env)
    is_doom = family.keys() >= _DOOM.keys()
    values = {**family, **_ENVS.get(env, {})}
    if is_doom:
        for name in objectives:
            values |= _DOOM_OBJECTIVES.get(name, {})
    # Stable-Baselines3's agents get the presets of ours; whether they have a memory is fixed.
    ours = agent.removeprefix("sb3-").removeprefix("recurrent-")
    if ours != agent:
        values["memory"] = "lstm" if "recurrent" in agent else "none"
    if ours == "ppo" and is_doom:
        values |= _DOOM_PPO if values.get("memory", "none") == "none" else _RECURRENT_PPO
    if ours == "ppo" and family is _ATARI:
        values |= _ATARI_PPO
    if ours == "ppo" and family is _CAR_RACING:
        values |= _CAR_RACING_PPO
    is_grid = family.keys() >= _GRID.keys()
    if ours == "ppo" and is_grid:
        values |= _GRID_PPO
    values |= _AGENTS.get((env, ours), {})
    has_memory = (memory or values.get("memory", "none")) != "none"
    if has_memory and observes_little(env) and not is_grid:
        values |= _RECURRENT_CLASSIC | (_RECURRENT_CLASSIC_PPO if ours == "ppo" else {})
    return values
