"""The policy: perception, a head for actions and a head for values.

Axes: T time, N environments, F features, S and M rows and width of the memory's state, A choices or
numbers of an action, D draws of an action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.distributions import ActionHead, Distribution, num_draws
from perception import (
    ImageSpec,
    Perception,
    PerceptionConfig,
    SoundSpec,
    Spec,
    TextSpec,
    VectorSpec,
)
from perception.encoders import orthogonal

Obs = Mapping[str, Tensor]
Specs = Mapping[str, Spec]


class PolicyOutput(NamedTuple):
    """The output of a policy for a sequence.

    Attributes:
        distribution: distributions over actions, (T, N).
        values: (T, N) float32, of the observations.
        features: (T, N, F) float32, from which distributions and values are computed.
        memory_state: (S, N, M) float32, after the last step.
    """

    distribution: Distribution
    values: Tensor
    features: Tensor
    memory_state: Tensor


class Decision(NamedTuple):
    """The actions of a policy in N environments.

    Attributes:
        actions: (N,) or (N, A), int64, or float32 if continuous.
        logprobs: (N,) float32, of the actions, in nats.
        values: (N,) float32, of the observations.
        probabilities: (N, A) float32, of all choices; A is 0 if actions are continuous.
        memory_state: (S, N, M) float32, for the next step.
    """

    actions: Tensor
    logprobs: Tensor
    values: Tensor
    probabilities: Tensor
    memory_state: Tensor


class Player(Protocol):
    """Anything that chooses actions: a trained policy, or a baseline."""

    def initial_state(self, num_envs: int) -> Tensor:
        """Return the memory's state at the start of episodes, (S, N, M) float32."""

    def act(
        self,
        obs: Obs,
        memory_state: Tensor,
        episode_starts: Tensor,
        draws: Tensor | None,
    ) -> Decision:
        """Choose actions; see `Policy.act`."""


class Policy(nn.Module):
    """An actor and a critic that share perception.

    Args:
        specs: parts of an observation by name, from `observation_specs`.
        action_space: Discrete, MultiDiscrete, MultiBinary or a flat Box.
        config: encoders and memory.
        normalize_obs: whether observations are normalised by running statistics, which are saved
            with the policy.
        precision: precision of the products in image encoders and memory, see `Perception`.

    Raises:
        PerceptionError: If images are too small for the encoder.
        ValueError: If the action space is of another kind.
    """

    def __init__(
        self,
        specs: Specs,
        action_space: spaces.Space[Any],
        config: PerceptionConfig[Any, Any],
        normalize_obs: bool = False,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.specs = dict(specs)
        self.action_space = action_space
        self.config = config
        self.normalize_obs = normalize_obs
        self.perception = Perception(specs, config, normalize_obs, precision)
        self.actor = ActionHead(action_space, self.perception.num_features)
        self.critic = orthogonal(nn.Linear(self.perception.num_features, 1), 1.0)

    @property
    def is_recurrent(self) -> bool:
        """Whether there is a memory."""
        return self.perception.memory.is_recurrent

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    def initial_state(self, num_envs: int) -> Tensor:
        """Return the memory's state at the start of episodes, (S, N, M) float32, on `device`."""
        return self.perception.memory.initial_state(num_envs).to(self.device)

    def forward(self, obs: Obs, memory_state: Tensor, episode_starts: Tensor) -> PolicyOutput:
        """Evaluate a sequence.

        Args:
            obs: parts by name, each (T, N, ...).
            memory_state: (S, N, M) float32, the state before the first step.
            episode_starts: (T, N) bool; where true, the memory is cleared before that step.
        """
        return self._output(*self.perception(obs, memory_state, episode_starts))

    def _output(self, features: Tensor, memory_state: Tensor) -> PolicyOutput:
        return PolicyOutput(
            distribution=self.actor(features),
            values=self.critic(features).squeeze(-1),
            features=features,
            memory_state=memory_state,
        )

    @torch.no_grad()
    def act(
        self,
        obs: Obs,
        memory_state: Tensor,
        episode_starts: Tensor,
        draws: Tensor | None,
    ) -> Decision:
        """Choose actions for one step.

        Args:
            obs: parts by name, each (N, ...).
            memory_state: (S, N, M) float32, before the step.
            episode_starts: (N,) bool; where true, the memory is cleared first.
            draws: (N, D) float32, uniform in [0, 1), from which actions are sampled, where D is
                `num_draws` of the action space. None: the most likely actions are chosen.
        """
        output = self._output(*self.perception.step(obs, memory_state, episode_starts))
        distribution = output.distribution
        actions = distribution.mode() if draws is None else distribution.sample(draws)
        return Decision(
            actions=actions,
            logprobs=distribution.log_prob(actions),
            values=output.values,
            probabilities=distribution.probabilities(),
            memory_state=output.memory_state,
        )

    @torch.no_grad()
    def value(self, obs: Obs, memory_state: Tensor, episode_starts: Tensor) -> Tensor:
        """Return the values of (N, ...) observations, (N,) float32; arguments as for `act`."""
        features, _ = self.perception.step(obs, memory_state, episode_starts)
        values: Tensor = self.critic(features).squeeze(-1)
        return values

    def predict(
        self,
        observation: Any,
        state: NDArray[np.float32] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Choose actions with the interface of Stable-Baselines3's models.

        With this method, a policy can be passed to Stable-Baselines3's `evaluate_policy`.

        Args:
            observation: observation of one environment or of N, as this project's environments
                return it; a dictionary if it has several parts.
            state: (S, N, M) float32, the memory's state that the last call returned; None at first.
            episode_start: (N,) bool; where true, the memory is cleared first.
            deterministic: whether to choose the most likely actions; otherwise, actions are sampled
                with PyTorch's global generator.

        Returns:
            Actions, () or (A,) for one environment, and (N,) or (N, A) for N; and the memory's
            state, (S, N, M) float32.
        """
        arrays = observation if isinstance(observation, Mapping) else {"obs": observation}
        obs = {name: torch.as_tensor(arrays[name], device=self.device) for name in self.specs}
        name, spec = next(iter(self.specs.items()))
        single = obs[name].dim() == len(spec.shape)
        if single:
            obs = {name: part[None] for name, part in obs.items()}
        num_envs = len(obs[name])
        memory_state = self.initial_state(num_envs) if state is None else torch.from_numpy(state)
        starts = torch.zeros(num_envs, dtype=torch.bool)
        if episode_start is not None:
            starts |= torch.as_tensor(episode_start, dtype=torch.bool)
        draws = None if deterministic else torch.rand(num_envs, num_draws(self.action_space))
        decision = self.act(
            obs,
            memory_state.to(self.device),
            starts.to(self.device),
            None if draws is None else draws.to(self.device),
        )
        actions = decision.actions.cpu().numpy()
        return actions[0] if single else actions, decision.memory_state.cpu().numpy()

    def observe(self, obs: Obs) -> None:
        """Update the statistics for normalisation with parts of observations, each (T, N, ...)."""
        self.perception.observe({name: obs[name].flatten(0, 1) for name in self.specs})


def build_policy(
    specs: Specs,
    action_space: spaces.Space[Any],
    config: PerceptionConfig[Any, Any],
    *,
    normalize_obs: bool = False,
    device: torch.device | None = None,
    precision: torch.dtype = torch.float32,
) -> Policy:
    """Return a new policy with weights in the fastest memory format.

    Args:
        specs: parts of an observation by name, from `observation_specs`.
        action_space: see `Policy`.
        config: encoders and memory.
        normalize_obs: see `Policy`.
        device: device of its parameters. None: the CPU.
        precision: see `Policy`.

    Raises:
        PerceptionError: If images are too small for the encoder.
        ValueError: If the action space is of another kind.
    """
    policy = Policy(specs, action_space, config, normalize_obs, precision)
    # Channels-last, the format of decoded frames; PyTorch's annotations lack this overload.
    policy.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return policy


def observation_specs(space: spaces.Space[Any], metadata: Mapping[str, Any]) -> Specs:
    """Return the specifications of the parts of an observation, by name.

    Args:
        space: a Box, or a Dict of them. An (H, W, C) uint8 Box is an image, a (D,) float32 Box a
            vector, a (L, E) float32 Box a sound, and a (K,) int32 Box a text, as tokens. A Box that
            is not in a Dict is the part `obs`.
        metadata: metadata of the environment; `channels` and `palette` are those of `ImageSpec`.

    Raises:
        ValueError: If a part is of another kind.
    """
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"obs": space}
    specs: dict[str, Spec] = {}
    for name, part in parts.items():
        if isinstance(part, spaces.Box) and len(part.shape) == 3 and part.dtype == "uint8":
            height, width, channels = part.shape
            palette = metadata.get("palette", ())
            specs[name] = ImageSpec(
                shape=(height, width, channels),
                channels=tuple(metadata.get("channels", ())),
                palette=tuple((int(r), int(g), int(b)) for r, g, b in palette),
            )
        elif isinstance(part, spaces.Box) and len(part.shape) == 1 and part.dtype == "float32":
            specs[name] = VectorSpec(size=part.shape[0])
        elif isinstance(part, spaces.Box) and len(part.shape) == 2 and part.dtype == "float32":
            specs[name] = SoundSpec(num_samples=part.shape[0], num_ears=part.shape[1])
        elif isinstance(part, spaces.Box) and len(part.shape) == 1 and part.dtype == "int32":
            specs[name] = TextSpec(length=part.shape[0], vocabulary=int(part.high.max()) + 1)
        else:
            raise ValueError(
                f"observations {part} are not supported; (H, W, C) uint8 images and (D,) float32 "
                "vectors are"
            )
    return specs
