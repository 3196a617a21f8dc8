"""The policy: perception, a head for actions and a head for values.

Axes: T time, N environments, S and M rows and width of the memory's state, A choices.
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
from perception import ImageSpec, Perception, PerceptionConfig, VectorSpec
from perception.encoders import orthogonal

Obs = Mapping[str, Tensor]
Specs = Mapping[str, ImageSpec | VectorSpec]


class Decision(NamedTuple):
    """What a policy decides for N environments.

    Attributes:
        actions: (N,) or (N, A).
        logprobs: (N,) float32, in nats.
        values: (N,) float32.
        probabilities: (N, A) float32 of every choice; A is 0 where actions are continuous.
        memory_state: (S, N, M) float32, to be given back at the next step.
    """

    actions: Tensor
    logprobs: Tensor
    values: Tensor
    probabilities: Tensor
    memory_state: Tensor


class Player(Protocol):
    """Whoever can play: a trained policy, a random one, one that does nothing."""

    def initial_state(self, num_envs: int) -> Tensor:
        """Give the memory's state at an episode's start, (S, N, M) float32."""

    def act(
        self,
        obs: Obs,
        memory_state: Tensor,
        episode_starts: Tensor,
        draws: Tensor | None,
    ) -> Decision:
        """Decide; see `Policy.act`."""


class Policy(nn.Module):
    """An actor and a critic that see and remember together.

    Args:
        specs: parts of an observation by name, from `observation_specs`.
        action_space: Discrete, MultiDiscrete, MultiBinary or a flat Box.
        config: which encoder and memory.
        normalize_obs: whether what is seen is normalised by running statistics, which are saved
            with the policy.
    """

    def __init__(
        self,
        specs: Specs,
        action_space: spaces.Space[Any],
        config: PerceptionConfig,
        normalize_obs: bool = False,
    ) -> None:
        super().__init__()
        self.specs = dict(specs)
        self.action_space = action_space
        self.config = config
        self.normalize_obs = normalize_obs
        self.perception = Perception(specs, config, normalize_obs)
        self.actor = ActionHead(action_space, self.perception.num_features)
        self.critic = orthogonal(nn.Linear(self.perception.num_features, 1), 1.0)

    @property
    def is_recurrent(self) -> bool:
        """Whether anything is carried from one step to the next."""
        return self.perception.memory.is_recurrent

    @property
    def device(self) -> torch.device:
        """Where the policy's parameters are."""
        return next(self.parameters()).device

    def initial_state(self, num_envs: int) -> Tensor:
        """Return the memory's state at an episode's start, (S, N, M) float32, on `device`."""
        return self.perception.memory.initial_state(num_envs).to(self.device)

    def forward(
        self, obs: Obs, memory_state: Tensor, episode_starts: Tensor
    ) -> tuple[Distribution, Tensor, Tensor]:
        """Judge a sequence.

        Args:
            obs: parts by name, each (T, N, ...).
            memory_state: (S, N, M) float32, the state before the first step.
            episode_starts: (T, N) bool; where true, memory is cleared before that step.

        Returns:
            The distribution over (T, N) actions, (T, N) float32 values, and the state afterwards.
        """
        features, memory_state = self.perception(obs, memory_state, episode_starts)
        return self.actor(features), self.critic(features).squeeze(-1), memory_state

    @torch.no_grad()
    def act(
        self,
        obs: Obs,
        memory_state: Tensor,
        episode_starts: Tensor,
        draws: Tensor | None,
    ) -> Decision:
        """Decide for one step.

        Args:
            obs: parts by name, each (N, ...).
            memory_state: (S, N, M) float32.
            episode_starts: (N,) bool; where true, memory is cleared first.
            draws: (N, D) float32, uniform in [0, 1), that choose the actions; None: take the most
                likely ones. D is `num_draws` of the action space.
        """
        sequence = {name: part[None] for name, part in obs.items()}
        distribution, values, memory_state = self(sequence, memory_state, episode_starts[None])
        actions = distribution.mode() if draws is None else distribution.sample(draws[None])
        return Decision(
            actions=actions[0],
            logprobs=distribution.log_prob(actions)[0],
            values=values[0],
            probabilities=distribution.probabilities()[0],
            memory_state=memory_state,
        )

    @torch.no_grad()
    def value(self, obs: Obs, memory_state: Tensor, episode_starts: Tensor) -> Tensor:
        """Value (N, ...) observations, (N,) float32; arguments as for `act`."""
        sequence = {name: part[None] for name, part in obs.items()}
        values: Tensor = self(sequence, memory_state, episode_starts[None])[1]
        return values[0]

    def predict(
        self,
        observation: Any,
        state: NDArray[np.float32] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Decide as Stable-Baselines3's models do, for `evaluate_policy` and its callbacks.

        Args:
            observation: of one environment or of N, as environments here give it; a dict of parts
                where it has several.
            state: (S, N, M) float32 memory, as returned by the last call; None at the start.
            episode_start: (N,) bool, where memory is cleared first.
            deterministic: take the most likely actions; draws come from torch's generator.

        Returns:
            Actions, of one environment or of N, and the memory's state.
        """
        arrays = observation if isinstance(observation, Mapping) else {"obs": observation}
        obs = {name: torch.as_tensor(arrays[name], device=self.device) for name in self.specs}
        name, spec = next(iter(self.specs.items()))
        single = obs[name].dim() == (len(spec.shape) if isinstance(spec, ImageSpec) else 1)
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
        """Take (T, N, ...) observations into the statistics that normalise them."""
        self.perception.observe({name: obs[name].flatten(0, 1) for name in self.specs})


def build_policy(
    specs: Specs,
    action_space: spaces.Space[Any],
    config: PerceptionConfig,
    *,
    normalize_obs: bool = False,
    device: torch.device | None = None,
    precision: torch.dtype = torch.float32,
) -> Policy:
    """Return a new policy, arranged in memory as it is fastest.

    Args:
        specs: parts of an observation by name, from `observation_specs`.
        action_space: see `Policy`.
        config: which encoder and memory.
        normalize_obs: see `Policy`.
        device: where its parameters are; default: the CPU.
        precision: of image encoders and of the memory's products, see `Perception`.
    """
    policy = Policy(specs, action_space, config, normalize_obs)
    # Weights lie as decoded frames do; the overload is missing in torch's annotations.
    policy.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    policy.perception.precision = precision
    return policy


def observation_specs(space: spaces.Space[Any], metadata: Mapping[str, Any]) -> Specs:
    """Describe an observation space to perception.

    Args:
        space: a Box, or a Dict of them; (H, W, C) uint8 is an image, (D,) float32 a vector.
        metadata: of the environment; `channels` and `palette` say what an image's bytes mean.

    Raises:
        ValueError: If a part is of another kind.
    """
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"obs": space}
    specs: dict[str, ImageSpec | VectorSpec] = {}
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
        else:
            raise ValueError(
                f"observations {part} are not supported; (H, W, C) uint8 images and (D,) float32 "
                "vectors are"
            )
    return specs
