"""Stable-Baselines3's A2C, PPO and RecurrentPPO in our training, and our perception in theirs.

They collect and learn by their own code, from our environments and with our perception. The modules
they learn are those of a `Policy`, which is evaluated, saved and replayed like any other.

Axes: T rollout length, N environments, B batch, S and M rows and width of the memory's state.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from agents.agent import Agent, AgentConfig, Metrics, NotFiniteError
from agents.commandline import UsageError, import_extra
from agents.policy import Policy, Specs, observation_specs
from agents.ppo import PPOConfig
from agents.rollout import Minibatch, Rollout
from perception import ImageSpec, Perception, PerceptionConfig

ConfigT = TypeVar("ConfigT", bound=AgentConfig)


class PerceptionExtractor(BaseFeaturesExtractor):
    """Our perception as a features extractor of Stable-Baselines3; see `perception_kwargs`.

    Args:
        observation_space: as SB3 shows it: images may have their channels first.
        specs: parts of an observation by name.
        config: which encoder; without memory, which is the algorithm's affair.
        normalize_obs: whether what is seen is normalised by running statistics.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        specs: Specs,
        config: PerceptionConfig,
        normalize_obs: bool = False,
    ) -> None:
        perception = Perception(specs, config, normalize_obs)
        super().__init__(observation_space, perception.num_features)
        self.perception = perception
        self._specs = specs

    def forward(self, observations: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Encode (B, ...) float32 observations, screens among them as bytes, to (B, F) float32."""
        parts = {"obs": observations} if isinstance(observations, Tensor) else dict(observations)
        for name, spec in self._specs.items():
            part = parts[name]
            if isinstance(spec, ImageSpec):
                last = part if part.shape[1:] == spec.shape else part.movedim(1, -1)
                parts[name] = last.to(torch.uint8)
        return self.perception.encode(parts)


def perception_kwargs(vec_env: VecEnv, **options: Any) -> dict[str, Any]:
    """Give the `policy_kwargs` with which an algorithm of Stable-Baselines3 sees as ours do.

    Args:
        vec_env: what is played, as `envs.sb3.make_vec_env` makes it.
        **options: fields of `PerceptionConfig`, as in encoder="impala".

    Raises:
        ValueError: If observations are neither (H, W, C) bytes nor flat float32 numbers.
    """
    specs = observation_specs(vec_env.observation_space, vec_env.metadata)
    return _extractor_kwargs(specs=specs, config=PerceptionConfig(**options))


def _extractor_kwargs(**kwargs: Any) -> dict[str, Any]:
    return {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": kwargs,
        "normalize_images": False,  # Bytes may be indices; what they are is decoded here.
    }


class SB3Agent(Agent[ConfigT]):
    """Lets an algorithm of Stable-Baselines3 learn a policy from what it has collected itself.

    Attributes:
        model: the algorithm; its modules are the policy's.
    """

    name: str
    memory = "none"

    def __init__(
        self, policy: Policy, config: ConfigT, *, num_envs: int, total_updates: int
    ) -> None:
        if policy.config.memory != self.memory:
            raise UsageError(f"{self.name} has --memory {self.memory}, not {policy.config.memory}")
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
        """Give SB3's algorithm.

        Raises:
            UsageError: If it is not installed.
        """
        raise NotImplementedError

    def options(self, config: ConfigT, num_envs: int) -> dict[str, Any]:
        """Give the algorithm's own options.

        Raises:
            UsageError: If it has none for what is configured.
        """
        raise NotImplementedError

    def policy_class(self) -> type[ActorCriticPolicy]:
        """Give SB3's class of policy."""
        return ActorCriticPolicy

    def policy_kwargs(self, policy: Policy) -> dict[str, Any]:
        """Give what makes SB3's policy one of the same modules as ours."""
        config = PerceptionConfig(encoder=policy.config.encoder, layers=policy.config.layers)
        extractor = _extractor_kwargs(
            specs=policy.specs, config=config, normalize_obs=policy.normalize_obs
        )
        return {**extractor, "net_arch": []}

    def _make_model(
        self, policy: Policy, config: ConfigT, num_envs: int, options: dict[str, Any]
    ) -> OnPolicyAlgorithm:
        # As SB3 does when it loads one: environments come later, with the first rollout.
        model = self.algorithm()(
            policy=self.policy_class(),
            env=None,  # type: ignore[arg-type] # SB3's own way, though not annotated
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
        """Put the modules that SB3 has made in the place of ours, which they equal."""
        extractor = theirs.features_extractor
        assert isinstance(extractor, PerceptionExtractor)
        extractor.perception.precision = ours.perception.precision
        ours.perception.normalizers = extractor.perception.normalizers
        ours.perception.encoders = extractor.perception.encoders
        ours.actor.layer, ours.critic = theirs.action_net, theirs.value_net
        if hasattr(ours.actor, "log_std"):
            ours.actor.log_std = theirs.log_std

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Give SB3's optimiser."""
        return self.model.policy.optimizer

    def loss(self, batch: Minibatch) -> tuple[Tensor, Metrics]:
        """Nobody asks: SB3 computes its own."""
        raise NotImplementedError

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """Let SB3 learn from its buffer, which the rollout is a copy of."""
        model = self.model
        model._current_progress_remaining = max(0.0, 1.0 - self.num_updates / self.total_updates)
        try:
            model.train()
        except ValueError:  # What torch's distributions make of NaN.
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


class SB3A2C(SB3Agent[A2CConfig]):
    """`--agent sb3-a2c`."""

    name = "sb3-a2c"

    def algorithm(self) -> type[OnPolicyAlgorithm]:
        """See `SB3Agent.algorithm`."""
        return A2C

    def options(self, config: A2CConfig, num_envs: int) -> dict[str, Any]:
        """See `SB3Agent.options`."""
        if config.num_epochs != 1 or config.minibatch_size is not None:
            raise UsageError("sb3-a2c learns once from a whole rollout: --num-epochs 1, and no "
                             "--minibatch-size")  # fmt: skip
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
            raise UsageError(f"{self.name} has no --vtrace")
        return {
            "batch_size": config.minibatch_size or config.rollout_length * num_envs,
            "n_epochs": config.num_epochs,
            "clip_range": config.clip_coef,
            "clip_range_vf": config.value_clip_coef,
            "target_kl": config.target_kl,
        }


class SB3RecurrentPPO(SB3PPO):
    """`--agent sb3-recurrent-ppo`: actor and critic share an LSTM, which the actor alone trains."""

    name = "sb3-recurrent-ppo"
    memory = "lstm"

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
        lstm = {"lstm_hidden_size": policy.config.memory_size, "n_lstm_layers": 1}
        shared = {"shared_lstm": True, "enable_critic_lstm": False}
        if isinstance(policy.action_space, spaces.MultiBinary):
            raise UsageError(f"{self.name} cannot learn from switches (MultiBinary actions); "
                             "sb3-ppo can")  # fmt: skip
        return {**super().policy_kwargs(policy), **lstm, **shared}

    def _share(self, theirs: ActorCriticPolicy, ours: Policy) -> None:
        super()._share(theirs, ours)
        ours.perception.memory.layer = theirs.lstm_actor


def _space(specs: Specs) -> spaces.Space[Any]:
    """Give the observation space that specs describe."""
    parts: dict[str, spaces.Space[Any]] = {
        name: spaces.Box(0, 255, spec.shape, np.uint8)
        if isinstance(spec, ImageSpec)
        else spaces.Box(-np.inf, np.inf, (spec.size,), np.float32)
        for name, spec in specs.items()
    }
    return parts["obs"] if parts.keys() == {"obs"} else spaces.Dict(parts)
