"""Stable-Baselines3's algorithms as agents, and this project's perception in Stable-Baselines3."""

from agents.sb3.algorithms import (
    SB3A2C,
    SB3PPO,
    PerceptionExtractor,
    SB3A2CConfig,
    SB3Agent,
    SB3PPOConfig,
    SB3RecurrentPPO,
    SB3RecurrentPPOConfig,
    perception_kwargs,
)
from agents.sb3.sampler import SB3Sampler

__all__ = [
    "SB3A2C",
    "SB3PPO",
    "PerceptionExtractor",
    "SB3A2CConfig",
    "SB3Agent",
    "SB3PPOConfig",
    "SB3RecurrentPPO",
    "SB3RecurrentPPOConfig",
    "SB3Sampler",
    "perception_kwargs",
]
