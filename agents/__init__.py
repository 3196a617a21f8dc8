"""How an agent decides and learns."""

from agents.a2c import A2C, A2CConfig
from agents.agent import Agent, AgentConfig
from agents.baselines import NoopPlayer, RandomPlayer
from agents.overlap import OverlappedSampler
from agents.policy import Player, Policy, observation_specs
from agents.ppo import PPO, PPOConfig
from agents.reinforce import Reinforce, ReinforceConfig
from agents.sampler import Sampler
from agents.vtrace import VTrace, VTraceConfig

AGENTS: dict[str, tuple[type[AgentConfig], type[Agent]]] = {  # type: ignore[type-arg] # of any config
    "ppo": (PPOConfig, PPO),
    "a2c": (A2CConfig, A2C),
    "reinforce": (ReinforceConfig, Reinforce),
    "vtrace": (VTraceConfig, VTrace),
}
"""Learning agents by name: their configuration and their class."""

__all__ = [
    "A2C",
    "AGENTS",
    "PPO",
    "A2CConfig",
    "Agent",
    "AgentConfig",
    "NoopPlayer",
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
    "observation_specs",
]
