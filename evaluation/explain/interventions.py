"""Interventions: what a policy does and expects where one thing is different.

The same episode is simulated again with one thing changed, and the policy is asked at the same env
steps, with the memory that it had there. The engine removes actors, hides the weapon, shows the HUD
and replaces textures. It cannot move one actor, so `move` paints: the engine draws the moment
without the monsters, and their pixels are pasted beside their place.

The engine draws particles, such as blood and the smoke of a shot, with random numbers of their own,
which every command changes. So the control `nothing` may change some pixels where there are shots,
but never a reward.

Axes: B states, A choices, H, W, C an observed screen.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs import EnvConfig
from envs.doom.altered import FLATS, WALLS, AlteredDoom, retextured
from envs.doom.cfg import game_spec
from envs.doom.sight import ITEM, KINDS, MONSTER, PROJECTILE
from evaluation.errors import EvaluationError
from evaluation.explain.pixels import PixelPolicy, joined
from evaluation.explain.seen import Seen, copied_parts
from evaluation.statistics import Interval, bootstrap

NULL = "nothing"
"""The intervention that changes nothing, by the same commands and engines: the control."""
_NO_ACTOR = "NoSuchActor"  # A name that no actor has: the command is carried out, in vain.
_WALL, _FLAT = "STONE2", "FLAT1"  # Grey stone of Freedoom 2.
_MOVED = 1 / 6  # By how much of the screen's width monsters are moved.


@dataclass(frozen=True)
class Moment:
    """An env step of an episode."""

    episode: int
    step: int


@dataclass(frozen=True, kw_only=True)
class Changed:
    """What a policy would have seen.

    Attributes:
        moments: B moments.
        before: (B, H, W, C) uint8, what it saw.
        after: (B, H, W, C) uint8, what it would have seen.
        others: further parts of the observations after the change by name, each (B, D).
        painted: whether pixels were painted; otherwise, the engine drew what is different.
    """

    moments: tuple[Moment, ...]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    others: Mapping[str, NDArray[np.float32]]
    painted: bool = False


@dataclass(frozen=True, kw_only=True)
class Effect:
    """How an intervention changes a policy, on average over states.

    Intervals are 95 % bootstrap intervals over episodes, whose states are averaged first.

    Attributes:
        states: B.
        episodes: number of episodes that the states are of.
        pixels: share of the pixels that differ.
        distance: total variation distance between the probabilities of all actions, 0 to 1.
        switched: share of the states in which another action is the most likely one.
        value: change of the value, in native rewards.
        choices: change of the probability of each choice.
        painted: see `Changed`.
    """

    states: int
    episodes: int
    pixels: float
    distance: Interval
    switched: Interval
    value: Interval
    choices: tuple[Interval, ...]
    painted: bool


def chosen_moments(episodes: Sequence[Seen], each: int, first: int) -> tuple[Moment, ...]:
    """Return moments that are spread evenly over each episode.

    Args:
        episodes: the episodes.
        each: the number of moments of an episode, if it has as many.
        first: the first env step that may be chosen; before it, there is no env step to change.
    """
    chosen = []
    for number, seen in enumerate(episodes):
        steps = np.linspace(first, len(seen) - 1, each).round().astype(int)
        chosen += [Moment(number, int(step)) for step in np.unique(steps) if step >= first]
    return tuple(chosen)


def interventions(
    config: EnvConfig, part: str, episodes: Sequence[Seen], moments: Sequence[Moment]
) -> Iterator[tuple[str, Changed]]:
    """Simulate episodes again, each time with one thing changed, and yield name and observations.

    Only states are returned in which there is something to change: those with a monster in view if
    monsters are removed.

    Args:
        config: configuration of a Doom environment.
        part: name of the image in observations.
        episodes: the episodes.
        moments: the states; none is before env step `frame_stack`.

    Raises:
        EvaluationError: If an episode pays otherwise where nothing was changed.
    """
    simulated = _Simulated(config, part, episodes)
    with contextlib.closing(AlteredDoom(config)) as env:
        yield NULL, simulated.with_removed(env, moments, [(_NO_ACTOR,)] * len(moments))
        for kind in (MONSTER, ITEM, PROJECTILE):
            there = [m for m in moments if kind in episodes[m.episode].visible[m.step]]
            if not there:
                continue
            actors = [episodes[m.episode].visible[m.step][kind] for m in there]
            without = simulated.with_removed(env, there, actors)
            yield f"{KINDS[kind - 1]}s removed", without
            for side, name in ((-1, "left"), (1, "right")):
                by = side * round(config.width * _MOVED)
                yield f"{KINDS[kind - 1]}s moved {name}", simulated.moved(without, kind, by)
    yield from simulated.drawn_otherwise(moments)


class _Simulated:
    """Repeats episodes with changes."""

    def __init__(self, config: EnvConfig, part: str, episodes: Sequence[Seen]) -> None:
        self._config, self._part, self._episodes = config, part, episodes

    def with_removed(
        self, env: AlteredDoom, moments: Sequence[Moment], classes: Sequence[Sequence[str]]
    ) -> Changed:
        """Return what is seen if all actors of some classes vanish before the state's last tic.

        Stacked frames are all without them: they vanish before the oldest one.

        Args:
            env: the engine.
            moments: the states.
            classes: of each state, the actors' classes.
        """
        stack, found = self._config.frame_stack, []
        for moment, names in zip(moments, classes, strict=True):
            seen = self._episodes[moment.episode]
            observed, _ = env.reset(seed=seen.seed)
            commands = [f"remove {name}" for name in names]
            for step, action in enumerate(seen.actions[: moment.step]):
                now = step > moment.step - 1 - stack
                result = env.advance_with(action, commands) if now else env.step(action)
                observed, reward, *_ = result
                if not now or _NO_ACTOR in names:
                    self._check(seen, step, reward)
            found.append(copied_parts(env, observed))
        return self._changed(moments, found)

    def drawn_otherwise(self, moments: Sequence[Moment]) -> Iterator[tuple[str, Changed]]:
        """Yield what is seen with another HUD, without weapon, and with other textures."""
        spec = game_spec(self._config.env)
        assert spec is not None
        hud = bool(spec.settings.get("render_hud", False))
        yield (
            "HUD hidden" if hud else "HUD shown",
            self._replayed(moments, settings={"render_hud": not hud}),
        )
        if spec.settings.get("render_weapon", True):
            yield "weapon hidden", self._replayed(moments, settings={"render_weapon": False})
        if spec.wad is None:
            return
        with tempfile.TemporaryDirectory(prefix="doomgrad-wad-") as folder:
            for name, texture, fields in (
                ("walls of grey stone", _WALL, WALLS),
                ("floor and ceiling of grey stone", _FLAT, FLATS),
            ):
                out = Path(folder) / f"{fields[0]}.wad"
                if retextured(spec.wad, out, texture, fields):
                    yield name, self._replayed(moments, wad=out)

    def _replayed(self, moments: Sequence[Moment], **changes: Any) -> Changed:
        """Return what is seen in whole episodes with something changed that affects no rule."""
        found = []
        with contextlib.closing(AlteredDoom(self._config, **changes)) as env:
            for number, seen in enumerate(self._episodes):
                wanted = {m.step for m in moments if m.episode == number}
                observed, _ = env.reset(seed=seen.seed)
                for step, action in enumerate(seen.actions[: max(wanted, default=-1) + 1]):
                    if step in wanted:
                        found.append(copied_parts(env, observed))
                    observed, reward, *_ = env.step(action)
                    self._check(seen, step, reward)
        return self._changed(moments, found)

    def _check(self, seen: Seen, step: int, reward: float) -> None:
        """Check that an env step which nothing should have changed pays what it paid."""
        if not np.isclose(reward, seen.rewards[step]):
            raise EvaluationError(
                f"{self._config.env} is not deterministic here: an episode that is simulated again "
                "pays otherwise, so interventions would show nothing"
            )

    def _changed(self, moments: Sequence[Moment], found: Sequence[Mapping[str, Any]]) -> Changed:
        before = [self._episodes[m.episode].obs[self._part][m.step] for m in moments]
        return Changed(
            moments=tuple(moments),
            before=np.stack(before),
            after=np.stack([parts[self._part] for parts in found]),
            others={
                name: np.stack([parts[name] for parts in found])
                for name in found[0]
                if name != self._part
            },
        )

    def moved(self, without: Changed, kind: int, by: int) -> Changed:
        """Return what is seen if objects are beside their place.

        Args:
            without: the same states without the objects.
            kind: the kind of object.
            by: number of pixels to the right.
        """
        after = without.after.copy()
        stack = self._config.frame_stack
        channels = after.shape[3] // stack
        for b, moment in enumerate(without.moments):
            kinds = self._episodes[moment.episode].kinds
            assert kinds is not None
            for frame in range(stack):
                layer = slice(frame * channels, (frame + 1) * channels)
                rows, columns = np.nonzero(kinds[moment.step - (stack - 1 - frame)] == kind)
                inside = (columns + by >= 0) & (columns + by < after.shape[2])
                rows, columns = rows[inside], columns[inside]
                after[b, rows, columns + by, layer] = without.before[b, rows, columns, layer]
        return Changed(
            moments=without.moments,
            before=without.before,
            after=after,
            others=without.others,
            painted=True,
        )


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a policy does and expects in B states.

    Attributes:
        probabilities: (B, A) float64, of all choices.
        values: (B,) float64, in native rewards.
        mode: (B,) or (B, A), the most likely action.
    """

    probabilities: NDArray[np.float64]
    values: NDArray[np.float64]
    mode: NDArray[Any]


@torch.no_grad()
def answers(
    policy: PixelPolicy,
    episodes: Sequence[Seen],
    changed: Changed,
    value_unit: float,
    *,
    after: bool,
) -> Answers:
    """Return what a policy does and expects before or after an intervention.

    Args:
        policy: the policy.
        episodes: the episodes.
        changed: the observations.
        value_unit: native reward that corresponds to a value of 1.
        after: whether after the intervention.
    """
    states = joined(
        [policy.states(episodes[moment.episode], [moment.step]) for moment in changed.moments]
    )
    others = states.others
    if after:
        others = {name: torch.from_numpy(part) for name, part in changed.others.items()}
    images = policy.decode(changed.after if after else changed.before)
    output = policy.outputs(replace(states, images=images, others=others))
    return Answers(
        probabilities=output.distribution.probabilities()[0].double().numpy(),
        values=output.values[0].double().numpy() * value_unit,
        mode=output.distribution.mode()[0].numpy(),
    )


def effect(
    policy: PixelPolicy, episodes: Sequence[Seen], changed: Changed, value_unit: float
) -> Effect:
    """Return how an intervention changes a policy; the arguments are those of `answers`."""
    before, after = (
        answers(policy, episodes, changed, value_unit, after=which) for which in (False, True)
    )
    which = np.array([moment.episode for moment in changed.moments])
    change = after.probabilities - before.probabilities
    # Several groups of choices, as in MultiDiscrete, add up to several distributions.
    groups = max(1.0, round(float(before.probabilities[0].sum()))) if change.size else 1.0
    other = (after.mode != before.mode).reshape(len(which), -1).any(axis=1)
    return Effect(
        states=len(which),
        episodes=len(np.unique(which)),
        pixels=float((changed.before != changed.after).any(axis=3).mean()),
        distance=over_episodes(np.abs(change).sum(axis=1) / 2 / groups, which),
        switched=over_episodes(other.astype(np.float64), which),
        value=over_episodes(after.values - before.values, which),
        choices=tuple(over_episodes(column, which) for column in change.T),
        painted=changed.painted,
    )


def over_episodes(numbers: NDArray[np.float64], episode: NDArray[np.int64]) -> Interval:
    """Return the mean of the episodes' means, with its bootstrap interval over episodes.

    Args:
        numbers: (B,), one for each state.
        episode: (B,), the episode of each state.
    """
    means = np.array([numbers[episode == e].mean() for e in np.unique(episode)])
    return bootstrap([means], np.mean)
