"""The collector of the SB3 agents: Stable-Baselines3 (SB3) collects, and the result is a `Rollout`.

Axes: T rollout length, N environments, A choices, S and M rows and width of the memory's state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from agents.collector import (
    Collected,
    GroupedEnvs,
    check_state,
    current_obs,
    episodes_in_progress,
    next_episode_seed,
    repeat_episodes,
)
from agents.errors import AgentError
from agents.rollout import Rollout
from agents.sampler import allocate
from agents.sb3.algorithms import SB3Agent
from agents.stopwatch import Stopwatch
from agents.traces import Traces


class _LearnedRewards(VecEnvWrapper):
    """Passes scaled rewards to SB3, keeps the native ones, and measures the environments' time.

    Attributes:
        native: (N,) float32, the native rewards of the last env step.
    """

    def __init__(self, venv: VecEnv, agent: SB3Agent[Any], stopwatch: Stopwatch) -> None:
        super().__init__(venv)
        self._agent, self._stopwatch = agent, stopwatch
        self.native: NDArray[np.float32] = np.zeros(venv.num_envs, np.float32)

    def reset(self) -> Any:
        """See `VecEnv.reset`."""
        return self.venv.reset()

    def step_wait(self) -> Any:
        """See `VecEnv.step_wait`."""
        self._stopwatch.lap("inference")
        obs, self.native, dones, infos = self.venv.step_wait()
        self._stopwatch.lap("environments")
        device = self._agent.policy.device
        native, ended = (torch.from_numpy(array)[None].to(device) for array in (self.native, dones))
        # A copy, because SB3 adds bootstrapped values to the array.
        return obs, self._agent.scale(native, ended)[0].cpu().numpy().copy(), dones, infos


class _Tape(BaseCallback):
    """Records the results of each env step that SB3's buffer does not contain.

    Attributes:
        native: (N,) float32 native rewards of each step.
        learned: (N,) float32 rewards of each step, as scaled for learning.
        dones: (N,) bool for each step, whether an episode ended.
        truncated: N bools for each step, whether time ran out.
        probabilities: (N, A) float32 for each step, probabilities of all choices.
        ended: for each episode that ended, its last env step in the rollout, its environment, its
            seed and its statistics.
    """

    def __init__(self, envs: GroupedEnvs, vec_env: _LearnedRewards) -> None:
        super().__init__()
        self._envs, self._vec_env = envs, vec_env
        self.clear()

    def clear(self) -> None:
        """Delete all records, before a new rollout."""
        self.native: list[NDArray[np.float32]] = []
        self.learned: list[NDArray[np.float32]] = []
        self.dones: list[NDArray[np.bool_]] = []
        self.truncated: list[list[bool]] = []
        self.probabilities: list[Tensor] = []
        self.ended: list[tuple[int, int, int, dict[str, float]]] = []

    def _on_step(self) -> bool:
        infos, t = self.locals["infos"], len(self.native)
        self.native.append(self._vec_env.native.copy())
        self.learned.append(self.locals["rewards"].copy())
        self.dones.append(self.locals["dones"].copy())
        self.truncated.append([info.get("TimeLimit.truncated", False) for info in infos])
        self.probabilities.append(_probabilities(self.model.policy.action_dist))
        seeds = self._envs.episode_seeds - self._envs.num_envs  # The next episodes have started.
        self.ended += [
            (t, i, int(seeds[i]), info["episode"])
            for i, info in enumerate(infos)
            if "episode" in info
        ]
        return True


def _probabilities(distribution: Any) -> Tensor:
    """Return the (N, A) probabilities of all choices, as `Distribution.probabilities` does."""
    parts = distribution.distribution
    if isinstance(parts, list):
        return torch.cat([part.probs for part in parts], dim=-1)
    if isinstance(parts, torch.distributions.Normal):
        return parts.mean[..., :0]
    probabilities: Tensor = parts.probs
    return probabilities


class SB3Sampler:
    """Collects rollouts with the code of SB3. See `Collector`.

    Args:
        envs: the environments; nothing else may step them from now on.
        vec_env: the same environments, with SB3's interface.
        agent: the agent.
        seed: seed of the first episodes, and of all random numbers.

    Attributes:
        envs: as above.
        stopwatch: see `Collector`; its phases are `environments` and `inference`.
    """

    def __init__(
        self, envs: GroupedEnvs, vec_env: VecEnv, agent: SB3Agent[Any], *, seed: int
    ) -> None:
        self.envs = envs
        self.stopwatch = Stopwatch()
        self._agent, self._is_collecting = agent, False
        self._vec_env = _LearnedRewards(vec_env, agent, self.stopwatch)
        self._tape = _Tape(envs, self._vec_env)
        self._tape.init_callback(agent.model)
        np.random.seed(seed)  # noqa: NPY002 # SB3 shuffles with NumPy's global generator
        vec_env.seed(seed)
        agent.model._last_obs = self._vec_env.reset()
        agent.model._last_episode_starts = np.ones(envs.num_envs, bool)
        # SB3's statistics of episodes are not used.
        agent.model.ep_info_buffer = agent.model.ep_success_buffer = deque(maxlen=0)
        choices, state = agent.policy.actor.num_choices, self._memory_state()
        self._traces = Traces(allocate(envs, (1, envs.num_envs), state, choices))

    def collect(self, version: int = 0) -> Collected:
        """See `Collector.collect`."""
        model, tape = self._agent.model, self._tape
        tape.clear()
        self._is_collecting = True
        memory_state = self._memory_state().clone()
        model.collect_rollouts(self._vec_env, tape, model.rollout_buffer, model.n_steps)
        self._is_collecting = False
        rollout = self._rollout(memory_state)
        episodes = self._traces.episodes(rollout, tape.ended)
        self.stopwatch.lap("inference")
        return Collected(
            rollout=rollout,
            episodes=episodes,
            next_episode_seed=next_episode_seed(self.envs),
            version=version,
        )

    def state(self) -> dict[str, Tensor]:
        """See `Collector.state`; empty if a rollout was interrupted."""
        if self._is_collecting:
            return {}
        _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
        return {
            "numpy_keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "numpy_position": torch.tensor(position),
            "starts": torch.from_numpy(np.asarray(self._agent.model._last_episode_starts, bool)),
            "memory_state": self._memory_state(),
            **episodes_in_progress(self.envs),
            **self._traces.state(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> int:
        """See `Collector.load_state`; the actions of episodes in progress are repeated."""
        check_state(state, self.state())
        if not 0 <= int(state["numpy_position"]) <= len(state["numpy_keys"]):
            raise AgentError(
                "the checkpoint's random generator is damaged; start over with --fresh"
            )
        keys, position = state["numpy_keys"].numpy().astype(np.uint32), state["numpy_position"]
        np.random.set_state(("MT19937", keys, int(position), 0, 0.0))  # noqa: NPY002
        self._is_collecting = True
        lost = repeat_episodes(self.envs, state)
        self._is_collecting = False
        self._traces.load_state(state)
        starts = state["starts"].numpy().copy()
        for lane in lost:
            starts[lane] = True
            self._traces.forget(lane)
        model: Any = self._agent.model
        parts = current_obs(self.envs)
        arrays = {name: part.numpy().copy() for name, part in parts.items()}
        is_plain = not isinstance(model.observation_space, spaces.Dict)
        model._last_obs, model._last_episode_starts = arrays["obs"] if is_plain else arrays, starts
        if self._agent.policy.is_recurrent:
            both = [row[None].contiguous() for row in state["memory_state"].to(model.device)]
            critic = tuple(row.clone() for row in both)
            model._last_lstm_states = type(model._last_lstm_states)(tuple(both), critic)
        return len(lost)

    def close(self) -> None:
        """See `Collector.close`; there are no threads."""

    def _memory_state(self) -> Tensor:
        """Return the actor's memory state, (S, N, M) float32."""
        if not self._agent.policy.is_recurrent:
            return self._agent.policy.initial_state(self.envs.num_envs)
        model: Any = self._agent.model
        return torch.cat(model._last_lstm_states.pi)

    def _rollout(self, memory_state: Tensor) -> Rollout:
        """Return the contents of SB3's buffer and of the tape as a rollout.

        Args:
            memory_state: (S, N, M) float32, before the first step.
        """
        tape, agent = self._tape, self._agent
        buffer, gamma = agent.model.rollout_buffer, agent.config.gamma or 1.0
        observed, device = buffer.observations, agent.policy.device
        parts = observed if isinstance(observed, dict) else {"obs": observed}
        action_space = agent.policy.action_space
        kind = torch.float32 if isinstance(action_space, spaces.Box) else torch.int64
        action_shape = action_space.shape or ()
        dones, truncated = np.stack(tape.dones), np.stack(tape.truncated)
        # SB3 has added the bootstrapped values to rewards and advantages; here they are recovered.
        final_values = (buffer.rewards - np.stack(tape.learned)) / gamma
        last_values = (buffer.advantages[-1] + buffer.values[-1] - buffer.rewards[-1]) / gamma

        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(np.array(array)).to(device)

        return Rollout(
            obs={name: tensor(part) for name, part in parts.items()},
            actions=tensor(buffer.actions).to(kind).reshape(*dones.shape, *action_shape),
            logprobs=tensor(buffer.log_probs),
            values=tensor(buffer.values),
            probabilities=torch.stack(tape.probabilities),
            rewards=tensor(np.stack(tape.native)),
            terminated=tensor(dones & ~truncated),
            truncated=tensor(truncated),
            final_values=tensor(final_values.astype(np.float32)),
            episode_starts=tensor(buffer.episode_starts.astype(bool)),
            memory_state=memory_state,
            last_values=tensor(last_values.astype(np.float32)),
        )
