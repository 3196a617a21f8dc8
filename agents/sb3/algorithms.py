"""Agents that run the algorithms of Stable-Baselines3 (SB3), and perception for SB3's own policies.

The algorithms collect and learn with SB3's code, in this project's environments and with its
perception. SB3's policy shares its modules with a `Policy`, which is evaluated, saved and replayed
like any other.

Axes: B batch, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.a2c import A2CConfig
from agents.agent import Agent, AgentConfig, NotFiniteError
from agents.errors import AgentError
from agents.extras import import_extra
from agents.gradients import Metrics
from agents.objectives.objective import Objective
from agents.policy import Policy, PolicyOutput, Specs, observation_specs
from agents.ppo import PPOConfig
from agents.rollout import Minibatch, Rollout
from perception import ENCODERS, ImageSpec, Perception, PerceptionConfig
from perception.lookup import check_name
from perception.memory import NoMemoryConfig

ConfigT = TypeVar("ConfigT", bound=AgentConfig)


class PerceptionExtractor(BaseFeaturesExtractor):
    """`Perception` as a features extractor of SB3; see `perception_kwargs`.

    Args:
        observation_space: as SB3 passes it; images may be channels-first.
        specs: parts of an observation by name.
        config: encoders; the memory is not used, because SB3's recurrent policies have their own.
        normalize_obs: whether observations are normalised by running statistics.
        precision: see `Perception`.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        specs: Specs,
        config: PerceptionConfig[Any, Any],
        normalize_obs: bool = False,
        precision: torch.dtype = torch.float32,
    ) -> None:
        perception = Perception(specs, config, normalize_obs, precision)
        super().__init__(observation_space, perception.num_features)
        self.perception = perception
        self._specs = specs

    def forward(self, observations: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Encode observations as (B, F) float32.

        Args:
            observations: one part or several, each (B, ...) float32; images contain bytes as
                floating-point numbers of 0 to 255, and may be channels-first.
        """
        parts = {"obs": observations} if isinstance(observations, Tensor) else dict(observations)
        for name, spec in self._specs.items():
            part = parts[name]
            if isinstance(spec, ImageSpec):
                last = part if part.shape[1:] == spec.shape else part.movedim(1, -1)
                parts[name] = last.to(torch.uint8)
        return self.perception.encode(parts)


def perception_kwargs(vec_env: VecEnv, encoder: str = "nature", **options: Any) -> dict[str, Any]:
    """Return `policy_kwargs` with which an algorithm of SB3 uses this project's perception.

    Args:
        vec_env: the environments, from `envs.sb3.make_vec_env`.
        encoder: name of an image encoder in `ENCODERS`.
        **options: fields of the encoder's configuration, as in `features=256`.

    Raises:
        UnknownNameError: If there is no such encoder.
        ValueError: If observations are neither (H, W, C) uint8 images nor (D,) float32 vectors.
    """
    check_name(ENCODERS, encoder, "encoder")
    specs = observation_specs(vec_env.observation_space, vec_env.metadata)
    config: PerceptionConfig[Any, Any] = PerceptionConfig(encoder=ENCODERS[encoder][0](**options))
    return _extractor_kwargs(specs=specs, config=config)


def _extractor_kwargs(**kwargs: Any) -> dict[str, Any]:
    return {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": kwargs,
        "normalize_images": False,  # Images may be palette indices, which `Decoder` decodes.
    }


class SB3Agent(Agent[ConfigT]):
    """Trains a policy with an algorithm of SB3, from rollouts that `SB3Sampler` collects.

    Args:
        policy: the policy to train, already on its device; it gets the modules of SB3's policy.
        config: hyper-parameters.
        num_envs: N.
        total_updates: the number of updates over which the learning rate is annealed.
        objectives: not supported; None or empty.

    Attributes:
        name: name of the agent.
        memory: name of the memory that the algorithm needs.
        model: the algorithm; its policy shares modules with `policy`.

    Raises:
        AgentError: If the algorithm does not support the configuration.
        MissingExtraError: If the algorithm is not installed.
    """

    name: str
    memory = "none"

    def __init__(
        self,
        policy: Policy,
        config: ConfigT,
        *,
        num_envs: int,
        total_updates: int,
        objectives: Mapping[str, Objective[Any]] | None = None,
    ) -> None:
        if objectives:
            raise AgentError(f"{self.name} does not support objectives; use ppo or a2c")
        if config.loss_coef != 1:
            raise AgentError(f"{self.name} has no --loss-coef; use ppo or a2c")
        if not config.bootstrap_truncated:
            raise AgentError(f"{self.name} has no --no-bootstrap-truncated; use ppo or a2c")
        if config.encoder_learning_rate is not None:
            raise AgentError(
                f"{self.name} has one learning rate for all; leave out --encoder-learning-rate"
            )
        if (memory := policy.config.memory_name) != self.memory:
            raise AgentError(f"{self.name} needs --memory {self.memory}, not {memory}")
        options = {
            "n_steps": config.rollout_length,
            "gamma": config.gamma,
            "gae_lambda": config.gae_lambda,
            "ent_coef": config.entropy_coef,
            "vf_coef": config.value_coef,
            "max_grad_norm": config.max_grad_norm,
            "normalize_advantage": config.normalize_advantages,
            **self.options(config, num_envs),
        }
        self.model = self._make_model(policy, config, num_envs, options)
        self.model.policy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(policy, config, num_envs=num_envs, total_updates=total_updates)

    def algorithm(self) -> type[OnPolicyAlgorithm]:
        """Return the algorithm's class.

        Raises:
            MissingExtraError: If it is not installed.
        """
        raise NotImplementedError

    def options(self, config: ConfigT, num_envs: int) -> dict[str, Any]:
        """Return the options that only this algorithm has.

        Args:
            config: hyper-parameters.
            num_envs: N.

        Raises:
            AgentError: If the algorithm does not support the configuration.
        """
        raise NotImplementedError

    def policy_class(self) -> type[ActorCriticPolicy]:
        """Return the class of SB3's policy."""
        return ActorCriticPolicy

    def policy_kwargs(self, policy: Policy) -> dict[str, Any]:
        """Return arguments with which SB3's policy has modules of the same shapes as a policy's.

        Args:
            policy: the policy.
        """
        extractor = _extractor_kwargs(
            specs=policy.specs,
            config=replace(policy.config, memory=NoMemoryConfig()),
            normalize_obs=policy.normalize_obs,
            precision=policy.perception.precision,
        )
        return {**extractor, "net_arch": []}

    def _make_model(
        self, policy: Policy, config: ConfigT, num_envs: int, options: dict[str, Any]
    ) -> OnPolicyAlgorithm:
        # As when SB3 loads a model: without environments, which the sampler passes later.
        model = self.algorithm()(
            policy=self.policy_class(),
            env=None,  # type: ignore[arg-type] # SB3 accepts it, but does not annotate it
            learning_rate=lambda left: (
                config.learning_rate * left if config.anneal_learning_rate else config.learning_rate
            ),
            policy_kwargs=self.policy_kwargs(policy),
            device=policy.device,
            _init_setup_model=False,
            **options,
        )
        model.observation_space, model.action_space = _space(policy.specs), policy.action_space
        model.n_envs = num_envs
        model._setup_model()
        model.set_logger(Logger(folder=None, output_formats=[]))
        self._share(model.policy, policy)
        return model

    def _share(self, theirs: ActorCriticPolicy, ours: Policy) -> None:
        """Replace the modules of a `Policy` by those of SB3's policy."""
        extractor = theirs.features_extractor
        assert isinstance(extractor, PerceptionExtractor)
        ours.perception.encoders = extractor.perception.encoders
        ours.perception.norms = extractor.perception.norms
        ours.actor.layer, ours.critic = theirs.action_net, theirs.value_net
        if hasattr(ours.actor, "log_std"):
            ours.actor.log_std = theirs.log_std

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return SB3's optimiser."""
        return self.model.policy.optimizer

    def loss(self, output: PolicyOutput, batch: Minibatch) -> tuple[Tensor, Metrics]:
        """Raise NotImplementedError: SB3 computes its own loss in `_update`."""
        raise NotImplementedError

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """Update the policy from SB3's buffer, of which the rollout is a copy."""
        model = self.model
        model._current_progress_remaining = max(0.0, 1.0 - self.num_updates / self.total_updates)
        if not model._n_updates:  # After resuming, SB3 would count from the beginning.
            model._n_updates = (self.num_updates - 1) * getattr(model, "n_epochs", 1)
        try:
            model.train()
        except ValueError:  # Torch's distributions raise it for NaN.
            if self._has_finite_weights():
                raise
        if not self._has_finite_weights():
            raise NotFiniteError("the weights after the update are not finite")
        self.policy.observe(rollout.obs)
        recorded = model.logger.name_to_value
        metrics = {name.removeprefix("train/"): float(value) for name, value in recorded.items()}
        recorded.clear()
        return metrics

    def _has_finite_weights(self) -> bool:
        return all(bool(parameter.isfinite().all()) for parameter in self.policy.parameters())


@dataclass(frozen=True, kw_only=True)
class SB3A2CConfig(A2CConfig):
    """Hyper-parameters of SB3's A2C."""


@dataclass(frozen=True, kw_only=True)
class SB3PPOConfig(PPOConfig):
    """Hyper-parameters of SB3's PPO."""


@dataclass(frozen=True, kw_only=True)
class SB3RecurrentPPOConfig(PPOConfig):
    """Hyper-parameters of SB3's RecurrentPPO."""


class SB3A2C(SB3Agent[A2CConfig]):
    """`--agent sb3-a2c`."""

    name = "sb3-a2c"

    def algorithm(self) -> type[OnPolicyAlgorithm]:
        """See `SB3Agent.algorithm`."""
        return A2C

    def options(self, config: A2CConfig, num_envs: int) -> dict[str, Any]:
        """See `SB3Agent.options`."""
        if config.num_epochs != 1 or config.minibatch_size is not None:
            raise AgentError(
                "sb3-a2c learns once from a whole rollout; use --num-epochs 1 and no "
                "--minibatch-size"
            )
        return {}


class SB3PPO(SB3Agent[PPOConfig]):
    """`--agent sb3-ppo`."""

    name = "sb3-ppo"

    def algorithm(self) -> type[OnPolicyAlgorithm]:
        """See `SB3Agent.algorithm`."""
        return PPO

    def options(self, config: PPOConfig, num_envs: int) -> dict[str, Any]:
        """See `SB3Agent.options`."""
        if config.vtrace:
            raise AgentError(f"{self.name} has no --vtrace; use ppo")
        return {
            "batch_size": config.minibatch_size or config.rollout_length * num_envs,
            "n_epochs": config.num_epochs,
            "clip_range": config.clip_coef,
            "clip_range_vf": config.value_clip_coef,
            "target_kl": config.target_kl,
        }


class SB3RecurrentPPO(SB3PPO):
    """`--agent sb3-recurrent-ppo`: actor and critic share an LSTM; only the actor trains it."""

    name = "sb3-recurrent-ppo"
    memory = "lstm"

    def options(self, config: PPOConfig, num_envs: int) -> dict[str, Any]:
        """See `SB3Agent.options`."""
        options = super().options(config, num_envs)
        samples, size = config.rollout_length * num_envs, options["batch_size"]
        # The algorithm divides by the deviation of a minibatch's advantages, which is then NaN.
        if size == 1 or samples % size == 1:
            raise AgentError(
                f"{self.name} needs minibatches of two env steps or more, and one of {samples:,} "
                f"env steps in minibatches of {size:,} has a single one; change --minibatch-size"
            )
        return options

    def algorithm(self) -> type[OnPolicyAlgorithm]:
        """See `SB3Agent.algorithm`."""
        kind: type[OnPolicyAlgorithm] = import_extra("sb3_contrib", "sb3").RecurrentPPO
        return kind

    def policy_class(self) -> type[ActorCriticPolicy]:
        """See `SB3Agent.policy_class`."""
        module = import_extra("sb3_contrib.common.recurrent.policies", "sb3")
        kind: type[ActorCriticPolicy] = module.RecurrentActorCriticPolicy
        return kind

    def policy_kwargs(self, policy: Policy) -> dict[str, Any]:
        """See `SB3Agent.policy_kwargs`."""
        lstm = {"lstm_hidden_size": policy.config.memory.memory_size, "n_lstm_layers": 1}
        shared = {"shared_lstm": True, "enable_critic_lstm": False}
        if isinstance(policy.action_space, spaces.MultiBinary):
            raise AgentError(f"{self.name} does not support MultiBinary actions; use sb3-ppo")
        return {**super().policy_kwargs(policy), **lstm, **shared}

    def _share(self, theirs: ActorCriticPolicy, ours: Policy) -> None:
        super()._share(theirs, ours)
        ours.perception.memory.layer = theirs.lstm_actor


def _space(specs: Specs) -> spaces.Space[Any]:
    """Return the observation space that specs describe."""
    parts: dict[str, spaces.Space[Any]] = {
        name: spaces.Box(0, 255, spec.shape, np.uint8)
        if isinstance(spec, ImageSpec)
        else spaces.Box(-np.inf, np.inf, spec.shape, np.float32)
        for name, spec in specs.items()
    }
    return parts["obs"] if parts.keys() == {"obs"} else spaces.Dict(parts)
