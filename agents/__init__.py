"""How an agent decides and learns."""

from agents.a2c import A2C, A2CConfig
from agents.agent import Agent, AgentConfig
from agents.baselines import NoopPlayer, RandomPlayer
from agents.commandline import UsageError
from agents.overlap import OverlappedSampler
from agents.policy import Player, Policy, build_policy, observation_specs
from agents.ppo import PPO, PPOConfig
from agents.reinforce import Reinforce, ReinforceConfig
from agents.sampler import Sampler
from agents.sb3 import SB3A2C, SB3PPO, SB3RecurrentPPO
from agents.vtrace import VTrace, VTraceConfig

OUR_AGENTS: dict[str, tuple[type[AgentConfig], type[Agent]]] = {  # type: ignore[type-arg] # of any config
    "ppo": (PPOConfig, PPO),
    "a2c": (A2CConfig, A2C),
    "reinforce": (ReinforceConfig, Reinforce),
    "vtrace": (VTraceConfig, VTrace),
}
"""Learning agents by name: their configuration and their class."""

SB3_AGENTS: dict[str, tuple[type[AgentConfig], type[Agent]]] = {  # type: ignore[type-arg] # of any config
    "sb3-ppo": (PPOConfig, SB3PPO),
    "sb3-a2c": (A2CConfig, SB3A2C),
    "sb3-recurrent-ppo": (PPOConfig, SB3RecurrentPPO),
}
"""Those that learn by Stable-Baselines3's code."""

AGENTS = {**OUR_AGENTS, **SB3_AGENTS}
"""All of them."""


def check_agent(name: str) -> None:
    """Refuse a name that is not in `AGENTS`.

    Raises:
        UsageError: If it is not.
    """
    if name not in AGENTS:
        raise UsageError(f"there is no agent {name!r}; there are {', '.join(AGENTS)}")


__all__ = [
    "A2C",
    "AGENTS",
    "OUR_AGENTS",
    "PPO",
    "SB3_AGENTS",
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
    "build_policy",
    "check_agent",
    "observation_specs",
]
