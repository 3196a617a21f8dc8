"""Doom as a Gymnasium environment: the engine's process, its files, its actions, its scenarios."""

from envs.doom.env import DoomEnv
from envs.doom.scenarios import SCENARIOS, Scenario

__all__ = ["SCENARIOS", "DoomEnv", "Scenario"]
