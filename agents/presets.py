"""What differs from the defaults, world by world, and why.

Keys are names of configuration fields, which are also the names of flags. A preset is a default:
whatever is given on the command line wins.
"""

from __future__ import annotations

import re
from typing import Any

# Every agent on every world of Doom. A screen of 80 x 60 is half the engine's smallest one in each
# direction: enough to see what these scenarios ask for, and half the work of 128 x 72. The narrow
# network keeps two CPU cores busy with games rather than with convolutions.
_DOOM: dict[str, Any] = {
    **{"height": 60, "width": 80, "conv_channels": (16, 32, 32), "features": 256},
    **{"num_envs": 16, "num_groups": 2},
}
# PPO learns from 64 steps of 16 games at a time: several episodes of the short scenarios, enough of
# the long ones. With memory, minibatches are whole sequences: of short ones, more run side by side.
_DOOM_PPO: dict[str, Any] = {
    **{"learning_rate": 5e-4, "anneal_learning_rate": True, "rollout_length": 64},
}
_RECURRENT_PPO: dict[str, Any] = {**_DOOM_PPO, "rollout_length": 32}
_RECURRENT: dict[str, Any] = {"memory": "lstm"}

# Atari as in the 37-details article (Huang et al. 2022): its nine details of Atari, and below the
# hyper-parameters of its ppo_atari.py. Rewards are clipped and a lost life is an end in learning
# alone; what is reported is of whole games, at their native reward. Not the article's is what the
# id `ALE/...-v5` says of the game itself (Machado et al. 2018): the emulator repeats the action
# before with a probability of 0.25, where the article's `...NoFrameskip-v4` does so never, and a
# game is cut off after 108,000 frames. The actions are the smallest set of the game, in both.
_ATARI: dict[str, Any] = {
    **{"observation": "gray", "height": 84, "width": 84, "frame_stack": 4},
    **{"frame_skip": 4, "max_pool": True, "noop_max": 30, "fire_reset": True},
    **{"terminal_on_life_loss": True, "clip_rewards": True},
    **{"num_envs": 8, "anneal_learning_rate": True, "total_env_steps": 10_000_000},
}
# Our loss of the critic is Stable-Baselines3's: the squared error, after clipping. The article's is
# half of it, hence half its weight of 0.5, and the larger of the clipped and the unclipped one.
_ATARI_PPO: dict[str, Any] = {
    **{"rollout_length": 128, "learning_rate": 2.5e-4, "num_epochs": 4, "minibatch_size": 256},
    **{"clip_coef": 0.1, "value_clip_coef": 0.1, "value_coef": 0.25, "entropy_coef": 0.01},
    **{"gamma": 0.99, "gae_lambda": 0.95, "normalize_advantages": True, "max_grad_norm": 0.5},
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
    # A level of Freedoom may take an hour; learning needs to see an end within five minutes.
    (r"freedoom\d:", {**_DOOM, "time_limit": 10_500}),
    (r"(?i).*\.(cfg|wad)$", _DOOM),
    # Whatever else is named by an id, or by its module and an id.
    (r".*(:|-v\d+$)", _CLASSIC),
    (r".*", _DOOM),
)

# Rewards of hundreds are scaled to about 1, so that the critic's loss does not drown the policy's.
_HUNDREDS: dict[str, Any] = {"reward_scale": 0.01}

_WORLDS: dict[str, dict[str, Any]] = {
    # Short episodes and one monster: solved within 100,000 env steps.
    "basic": {**_HUNDREDS, "total_env_steps": 150_000},
    "simpler_basic": {**_HUNDREDS, "total_env_steps": 150_000},
    "learning": {**_HUNDREDS, "total_env_steps": 150_000},
    "rocket_basic": {**_HUNDREDS, "total_env_steps": 500_000},
    "basic_audio": _HUNDREDS,
    "basic_notifications": _HUNDREDS,
    # To run until one is shot is worth 400 and learned at once; to stand and shoot pays much later.
    # More entropy and a longer horizon lead there before the policy has settled.
    "deadly_corridor": {
        **{**_HUNDREDS, "normalize_obs": True, "gamma": 0.997, "entropy_coef": 0.02},
        **{"total_env_steps": 1_000_000, "eval_every": 50_000, "eval_episodes": 50},
    },
    # Ammunition is short and not on the screen: who cannot see it spends it all in the first turn.
    "defend_the_center": {"variables": True, "total_env_steps": 400_000},
    # Health is not on the screen: who cannot see it cannot tell how much longer it will live.
    "health_gathering": {**_HUNDREDS, "variables": True, "total_env_steps": 150_000},
    # There, what was seen round the last corner matters too.
    "health_gathering_supreme": {
        **_HUNDREDS,
        **_RECURRENT,
        **{"variables": True, "total_env_steps": 2_000_000},
    },
    "take_cover": {**_HUNDREDS, "total_env_steps": 400_000},
    # A maze is left by remembering where one has been.
    "my_way_home": {**_RECURRENT, "total_env_steps": 2_000_000},
    # A rocket takes a second to arrive: where its target is and which way it goes must be seen, of
    # a few pixels in a dark room. Strides of 2 do not step over them, normalising brings them out,
    # and twice the height would tell no more. One hit in ten episodes is little to learn from and
    # to judge by: more entropy keeps chance from deciding what is not learned yet.
    "predict_position": {
        **{"frame_stack": 2, "height": 30, "conv_strides": (2, 2, 1), "normalize_obs": True},
        **{"actions": "groups", "reward_scale": 5.0, "entropy_coef": 0.015},
        **{"num_envs": 32, "num_groups": 4, "total_env_steps": 1_600_000},
        **{"eval_every": 50_000, "eval_episodes": 100},
    },
    # Monsters come from all sides of a large place.
    "deathmatch": {**_RECURRENT, "total_env_steps": 5_000_000},
}

_FEW_HITS: dict[str, Any] = {"num_epochs": 8, "minibatch_size": 128, "learning_rate": 3e-4}

# What one agent needs on one world beyond that.
_AGENTS: dict[tuple[str, str], dict[str, Any]] = {
    # Few hits tell where to aim, so each is learned from more often. What matters is on the screen:
    # an LSTM learns this too, but needs more env steps.
    ("defend_the_line", "ppo"): _FEW_HITS,
    # One small problem: large steps are safe and save time.
    ("basic", "ppo"): {"learning_rate": 1e-3},
    ("simpler_basic", "ppo"): {"learning_rate": 1e-3},
    ("learning", "ppo"): {"learning_rate": 1e-3},
    # Returns of 50 are scaled to about 1, for the critic's loss; large steps are fast, and without
    # a limit on them what was learned is lost again.
    ("CartPole-v1", "ppo"): {
        **{"rollout_length": 64, "minibatch_size": 128, "num_epochs": 10, "learning_rate": 2e-3},
        **{"anneal_learning_rate": True, "gae_lambda": 0.95, "gamma": 0.98, "entropy_coef": 0.0},
        **{"reward_scale": 0.05, "target_kl": 0.02, "total_env_steps": 80_000},
    },
}


def preset(env: str, agent: str) -> dict[str, Any]:
    """Give the fields in which a world's configuration differs from the defaults.

    Args:
        env: the world's canonical name.
        agent: the agent's name.
    """
    family = next(fields for pattern, fields in _FAMILIES if re.match(pattern, env))
    world = {**family, **_WORLDS.get(env, {})}
    # Stable-Baselines3's agents are given what ours are; whether they have a memory is settled.
    kind = agent.removeprefix("sb3-").removeprefix("recurrent-")
    if kind != agent:
        world["memory"] = "lstm" if "recurrent" in agent else "none"
    if kind == "ppo" and "conv_channels" in family:  # a world of Doom
        world |= _DOOM_PPO if world.get("memory", "none") == "none" else _RECURRENT_PPO
    if kind == "ppo" and family is _ATARI:
        world |= _ATARI_PPO
    return {**world, **_AGENTS.get((env, kind), {})}
