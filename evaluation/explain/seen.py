"""Episodes as a policy saw them: observations, memory, actions, and facts about what was there.

Axes: T env steps, A choices, H, W, C an observed screen, S and M rows and width of the memory's
state.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.device import single_thread
from agents.distributions import num_draws
from agents.policy import Policy
from envs import EnvConfig, make
from envs.doom.altered import AlteredDoom
from envs.doom.sight import ITEM, MONSTER, PROJECTILE, bearing_of, class_of, distance_to
from envs.registry import is_plain_doom
from envs.spaces import as_parts, observation_parts
from evaluation.errors import EvaluationError

_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An episode as a policy saw it; entry t is before env step t.

    Attributes:
        seed: seed of the episode.
        obs: the parts of the observations by name, each (T, ...).
        memory_states: (S, T, M) float32, the memory's state before each env step.
        actions: (T,) or (T, A), what was done.
        rewards: (T,) float64, native.
        kinds: (T, H, W) uint8, the class of each pixel, see `envs.doom.sight`; None outside Doom.
        visible: of each env step, the actors' classes in view by kind; empty outside Doom.
        facts: (T,) float64 by name, what was there; NaN where a fact does not exist, as the bearing
            of a monster without a monster. Empty outside Doom.
    """

    seed: int
    obs: Mapping[str, NDArray[Any]]
    memory_states: Tensor
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    kinds: NDArray[np.uint8] | None = None
    visible: Sequence[Mapping[int, tuple[str, ...]]] = ()
    facts: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def starts(self) -> Tensor:
        """(T,) bool, true at the first env step."""
        starts = torch.zeros(len(self), dtype=torch.bool)
        starts[0] = True
        return starts


@dataclass(frozen=True)
class Recorded:
    """What was done in an episode, and what it paid: (T,) or (T, A) actions, (T,) rewards."""

    actions: NDArray[Any]
    rewards: NDArray[np.float64]


@torch.no_grad()
def watch(
    policy: Policy, config: EnvConfig, seeds: Sequence[int], recorded: Recorded | None = None
) -> list[Seen]:
    """Play episodes and return what the policy saw.

    Args:
        policy: the policy, on the CPU.
        config: its environment.
        seeds: seeds of the episodes.
        recorded: the recorded episode to repeat, if there is one seed. None: actions are sampled as
            in training, with the same random numbers in each call.

    Raises:
        EvaluationError: If the rewards differ from the recorded ones.
    """
    env = AlteredDoom(config) if is_plain_doom(config) else make(config)
    with contextlib.closing(env), single_thread():
        return [_watch_one(policy, env, seed, recorded) for seed in seeds]


def _watch_one(policy: Policy, env: Any, seed: int, recorded: Recorded | None) -> Seen:
    doom = env if isinstance(env, AlteredDoom) else None
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    draws_of = num_draws(env.action_space)
    observed, info = env.reset(seed=seed)
    state, done = policy.initial_state(1), False
    rows: list[dict[str, Any]] = []
    while not done and (recorded is None or len(rows) < len(recorded.actions)):
        parts = copied_parts(env, observed)
        obs = {name: torch.from_numpy(parts[name])[None] for name in policy.specs}
        draws = torch.from_numpy(rng.random((1, draws_of), np.float32))
        starts = torch.tensor([not rows])
        decision = policy.act(obs, state, starts, draws)
        taken = decision.actions[0].numpy() if recorded is None else recorded.actions[len(rows)]
        row = {"obs": parts, "state": state, "action": np.array(taken)}
        if doom is not None:
            row |= {"kinds": doom.kinds(), "visible": doom.visible(), "facts": facts_of(doom, info)}
        state = decision.memory_state
        observed, row["reward"], terminated, truncated, info = env.step(taken)
        done = terminated or truncated
        rows.append(row)
    seen = _joined(seed, rows)
    if recorded is not None and not np.allclose(
        seen.rewards, recorded.rewards, rtol=_TOLERANCE, atol=_TOLERANCE
    ):
        raise EvaluationError(
            f"the replay of seed {seed} differs from the recording, so it cannot be explained; "
            "record the run again: python evaluate.py score RUN"
        )
    return seen


def _joined(seed: int, rows: Sequence[Mapping[str, Any]]) -> Seen:
    first = rows[0]
    doom = "facts" in first
    return Seen(
        seed=seed,
        obs={name: np.stack([row["obs"][name] for row in rows]) for name in first["obs"]},
        memory_states=torch.cat([row["state"] for row in rows], dim=1),
        actions=np.stack([row["action"] for row in rows]),
        rewards=np.array([row["reward"] for row in rows], np.float64),
        kinds=np.stack([row["kinds"] for row in rows]) if doom else None,
        visible=[row["visible"] for row in rows] if doom else (),
        facts={name: np.array([row["facts"][name] for row in rows]) for name in first["facts"]}
        if doom
        else {},
    )


def copied_parts(env: Any, observed: Any) -> dict[str, NDArray[Any]]:
    """Return copies of the parts of an observation by name; see `observation_specs`."""
    names = observation_parts(env.observation_space)
    parts = as_parts(observed)
    return {name: np.array(parts[name]) for name in names}


def facts_of(env: AlteredDoom, info: Mapping[str, float]) -> dict[str, float]:
    """Return what is there at a moment: what is in view, where it is, and the game variables.

    Bearings are in degrees, positive to the right, and distances in map units, both of the nearest
    object of its kind in view.

    Args:
        env: the environment.
        info: its numeric infos.
    """
    pose = env.pose()
    facts: dict[str, float] = {}
    drawn = env.drawn_labels()
    for kind, name in ((MONSTER, "monster"), (ITEM, "item"), (PROJECTILE, "projectile")):
        labels = [la for la in drawn if class_of(la.object_name, la.object_category) == kind]
        nearest = min(labels, key=lambda label: distance_to(label, pose), default=None)
        facts[f"{name}_in_view"] = float(nearest is not None)
        facts[f"{name}_bearing"] = math.nan if nearest is None else bearing_of(nearest, pose)
        facts[f"{name}_distance"] = math.nan if nearest is None else distance_to(nearest, pose)
    variables = {name: info[name] for name in (*env.game_spec.variables, "HEALTH") if name in info}
    facts |= {name.lower(): float(value) for name, value in variables.items()}
    facts["angle_sine"] = math.sin(math.radians(pose.angle))
    return facts


def with_past(seen: Seen, names: Sequence[str], steps: int) -> Seen:
    """Return an episode with further facts: what was there a number of env steps ago.

    Args:
        seen: the episode.
        names: the facts.
        steps: how many env steps ago.
    """
    past = {}
    for name in names:
        if name in seen.facts:
            values = np.full(len(seen), np.nan)
            values[steps:] = seen.facts[name][: max(0, len(seen) - steps)]
            past[f"{name} {steps} env steps ago"] = values
    return replace(seen, facts={**seen.facts, **past})
