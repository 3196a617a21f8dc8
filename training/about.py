"""What a policy file says about the training that it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.agent import Agent
from storage.policy_file import About

if TYPE_CHECKING:
    from training.config import AnyTrainConfig


def about_policy(
    config: AnyTrainConfig, agent: Agent[Any], env_steps: int, seconds: float = 0.0
) -> About:
    """Return what the file of a policy that is saved now says about its training.

    Args:
        config: configuration of the training.
        agent: the agent.
        env_steps: so far.
        seconds: spent collecting and learning.
    """
    return About(
        agent=config.agent_name,
        seed=config.seed,
        env_steps=env_steps,
        seconds=seconds,
        gamma=config.agent.gamma,
        value_unit=agent.value_unit,
    )
