"""Agents: how a policy acts, how rollouts are collected, and how a policy learns from them."""

from typing import Any

from agents.a2c import A2C, A2CConfig
from agents.agent import Agent, AgentConfig
from agents.baselines import NoopPlayer, RandomPlayer
from agents.errors import AgentError
from agents.objectives import OBJECTIVES, Objective, ObjectiveConfig, make_objectives
from agents.overlap import OverlappedSampler
from agents.policy import Player, Policy, build_policy, observation_specs
from agents.ppo import PPO, PPOConfig
from agents.reinforce import Reinforce, ReinforceConfig
from agents.sampler import Sampler
from agents.sb3 import (
    SB3A2C,
    SB3PPO,
    SB3A2CConfig,
    SB3PPOConfig,
    SB3RecurrentPPO,
    SB3RecurrentPPOConfig,
)
from agents.vtrace import VTrace, VTraceConfig

OUR_AGENTS: dict[str, tuple[type[AgentConfig], type[Agent[Any]]]] = {
    "ppo": (PPOConfig, PPO),
    "a2c": (A2CConfig, A2C),
    "reinforce": (ReinforceConfig, Reinforce),
    "vtrace": (VTraceConfig, VTrace),
}
"""This project's agents by name: configuration and class."""

SB3_AGENTS: dict[str, tuple[type[AgentConfig], type[Agent[Any]]]] = {
    "sb3-ppo": (SB3PPOConfig, SB3PPO),
    "sb3-a2c": (SB3A2CConfig, SB3A2C),
    "sb3-recurrent-ppo": (SB3RecurrentPPOConfig, SB3RecurrentPPO),
}
"""Agents that learn with Stable-Baselines3's code, by name: configuration and class."""

AGENTS = {**OUR_AGENTS, **SB3_AGENTS}
"""All agents by name: configuration and class."""


__all__ = [
    "A2C",
    "AGENTS",
    "OBJECTIVES",
    "OUR_AGENTS",
    "PPO",
    "SB3_AGENTS",
    "A2CConfig",
    "Agent",
    "AgentConfig",
    "AgentError",
    "NoopPlayer",
    "Objective",
    "ObjectiveConfig",
    "OverlappedSampler",
    "PPOConfig",
    "Player",
    "Policy",
    "RandomPlayer",
    "Reinforce",
    "ReinforceConfig",
    "Sampler",
    "VTrace",
    "VTraceConfig",
    "build_policy",
    "make_objectives",
    "observation_specs",
]
