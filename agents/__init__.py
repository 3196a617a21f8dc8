"""How an agent decides and learns."""

from agents.a2c import A2C, A2CConfig
from agents.agent import Agent, AgentConfig
from agents.baselines import NoopPlayer, RandomPlayer
from agents.policy import Player, Policy, observation_specs
from agents.ppo import PPO, PPOConfig
from agents.reinforce import Reinforce, ReinforceConfig
from agents.sampler import Sampler

AGENTS: dict[str, tuple[type[AgentConfig], type[Agent]]] = {  # type: ignore[type-arg] # of any config
    "ppo": (PPOConfig, PPO),
    "a2c": (A2CConfig, A2C),
    "reinforce": (ReinforceConfig, Reinforce),
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
    "PPOConfig",
    "Player",
    "Policy",
    "RandomPlayer",
    "Reinforce",
    "ReinforceConfig",
    "Sampler",
    "observation_specs",
]
