"""How much of a policy's return on its training's maps is left on maps that it has not seen.

Policies that were trained on generated maps play the training's own maps, others, and others that
differ from the training's in one respect at a time. The episodes of all conditions but the first
have the same seeds, so that they differ by the condition alone.

Axes: E episodes, S training seeds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from envs.doom.maps import MAPS, PREFIX, MapConfig
from evaluation.entries import Contestant, Entry
from evaluation.errors import EvaluationError
from evaluation.playing import score_episodes
from evaluation.protocol import Protocol, baselines, check_fits, play, vector_env
from evaluation.seeds import first_training_seed
from evaluation.statistics import Interval, Score, Strata, summarize
from storage.files import read_kept, write_json
from storage.onnx_file import OnnxPolicy
from storage.policy_file import digest
from storage.recording import Episode

TRAINING, UNSEEN = "training maps", "unseen maps"
_RESAMPLES = 5_000
_LARGEST = 2**26  # bytes of results that are resumed
_DIM = (96, 128)
_WIDE_VIEW = 120  # degrees
_DARKER = 2.0  # exponent of brightness
_OTHER_LOOK = "marine"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What differs from the training.

    Attributes:
        name: in tables.
        changes: options of the maps, by name.
        player: an untrained baseline that plays instead of the policy, if any.
    """

    name: str
    changes: Mapping[str, Any]
    player: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one condition.

    Attributes:
        condition: the condition.
        returns: for each of S training seeds, (E,) native returns in the order of episode seeds.
        score: statistics of the returns.
        loss: mean return on unseen maps minus this one; for the training's maps, how much higher
            that of these is (the generalisation gap). None for what it is compared with.
    """

    condition: Condition
    returns: Strata
    score: Score
    loss: Interval | None = None


def conditions(config: MapConfig) -> list[Condition]:
    """Return the conditions for policies that were trained on maps with some options.

    An axis is left out if the training's maps differ in it already.
    """
    low, high = config.size
    width = high - low
    axes: dict[str, dict[str, Any]] = {
        "textures": {"textures": "test" if config.textures == "train" else "train"},
        "dim light": {"light": _DIM},
        "darker picture": {"colour_gamma": _DARKER},
        "red and blue exchanged": {"swapped_colours": True},
        "other monsters": {"monster_look": _OTHER_LOOK},
        "larger maps": {"size": (high + 1, high + 1 + width)},
        "wider view": {"field_of_view": _WIDE_VIEW},
        "status bar": {"hud": True},
    }
    found = [Condition(name=TRAINING, changes={}), Condition(name=UNSEEN, changes={})]
    for name, changes in axes.items():
        try:
            changed = changed_options(config, changes)
        except ValueError:  # The size is beyond the largest one.
            continue
        if changed not in (None, config):
            found.append(Condition(name=name, changes=changes))
    untrained = [Condition(name=name, changes={}, player=name) for name in ("random", "noop")]
    return [*found, *untrained]


def changed_options(config: MapConfig, changes: Mapping[str, Any]) -> MapConfig | None:
    """Return options with changes; None if this kind of maps has no such option.

    Raises:
        ValueError: If a change is out of range.
    """
    if any(not hasattr(config, name) for name in changes):
        return None
    return replace(config, **changes)


def generalise(
    entry: Entry,
    protocol: Protocol,
    *,
    greedy: bool,
    file: Path,
    progress: Callable[[str], Any],
    names: Collection[str] | None = None,
) -> list[Outcome]:
    """Play the conditions, continue where an earlier call was interrupted, and return the results.

    Args:
        entry: the policies, one for each training seed.
        protocol: which episodes are played; those of training have the seeds of training.
        greedy: whether the most likely actions are taken instead of sampling.
        file: is written after each condition; what it holds of the same policies and protocol is
            not played again.
        progress: is called with the name of each condition before it is played.
        names: of the conditions; `UNSEEN` must be one of them. None: all.

    Raises:
        EvaluationError: If the policies were not trained on generated maps.
        FileError: If a policy does not fit its environment.
    """
    config = entry.config.map
    if not isinstance(config, MapConfig):
        kinds = ", ".join(f"{PREFIX}{kind}" for kind in MAPS)
        raise EvaluationError(
            f"{entry.name} was trained in {entry.config.env}, whose map is always the same; name a "
            f"run in one of {kinds}"
        )
    key = _key(entry, protocol, greedy)
    played = read_kept(file, _LARGEST, {"key": key}).get("played", {})
    outcomes = []
    for condition in conditions(config):
        if names is not None and condition.name not in names:
            continue
        if condition.name not in played:
            progress(condition.name)
            episodes = list(_play(entry, condition, protocol, greedy=greedy))
            played[condition.name] = {
                "returns": [[e.episode_return for e in own] for own in episodes],
                "mean_length": score_episodes(*episodes).mean_length,
            }
            write_json(file, {"key": key, "played": played})
        done = played[condition.name]
        returns = [np.array(own, np.float64) for own in done["returns"]]
        score = summarize(returns, float(done["mean_length"]))
        outcomes.append(Outcome(condition=condition, returns=returns, score=score))
    outcomes = with_losses(outcomes)
    results = [as_dict(outcome) for outcome in outcomes]
    write_json(file, {"key": key, "results": results, "played": played})
    return outcomes


def with_losses(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return outcomes with the differences between them and that on unseen maps.

    All policies play the same unseen maps, on which their returns are therefore not independent:
    the mean over the policies counts as one value for each episode.
    """
    of_name = {outcome.condition.name: outcome for outcome in outcomes}
    on_unseen, found = np.mean(of_name[UNSEEN].returns, axis=0), []
    for outcome in outcomes:
        if outcome.condition.name == TRAINING:  # Each policy has its own maps.
            loss = difference(np.concatenate(outcome.returns), on_unseen, paired=False)
            outcome = replace(outcome, loss=loss)
        elif outcome.condition.name != UNSEEN and outcome.condition.player is None:
            loss = difference(on_unseen, np.mean(outcome.returns, axis=0), paired=True)
            outcome = replace(outcome, loss=loss)
        found.append(outcome)
    return found


def difference(ours: Any, theirs: Any, *, paired: bool) -> Interval:
    """Return the difference of two means with its 95 % percentile bootstrap interval.

    Args:
        ours: (E,) returns.
        theirs: (E,) returns.
        paired: whether returns at the same place belong to the same episode seed.
    """
    estimate = float(np.mean(ours) - np.mean(theirs))
    if (
        np.ptp(ours - theirs if paired else np.concatenate((ours - ours[0], theirs - theirs[0])))
        == 0
    ):
        return Interval(estimate=estimate, low=estimate, high=estimate)
    from scipy import stats

    found = stats.bootstrap(
        (ours, theirs),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        paired=paired,
        vectorized=True,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(estimate=estimate, low=float(found.low), high=float(found.high))


def _play(
    entry: Entry, condition: Condition, protocol: Protocol, *, greedy: bool
) -> Iterator[list[Episode]]:
    """Yield the episodes of each policy, or of a baseline."""
    if condition.player is not None:
        with vector_env(entry.config, protocol.num_envs, protocol.episodes) as envs:
            yield play(baselines(envs)[condition.player], envs, protocol)
        return
    for contestant in entry.contestants:
        own = protocol
        if condition.name == TRAINING:
            own = replace(protocol, seed=first_training_seed(contestant.file.about.seed))
        yield _play_contestant(contestant, condition, own, greedy=greedy)


def _play_contestant(
    contestant: Contestant, condition: Condition, protocol: Protocol, *, greedy: bool
) -> list[Episode]:
    options = changed_options(contestant.config.map, condition.changes)
    config = replace(contestant.config, map=options)
    with vector_env(config, protocol.num_envs, protocol.episodes) as envs:
        check_fits(contestant.file, envs, contestant.path)
        return play(contestant.file, envs, protocol, greedy=greedy)


def _key(entry: Entry, protocol: Protocol, greedy: bool) -> dict[str, Any]:
    """Return what two evaluations must have in common, so that one continues the other."""
    policies = [_hash(contestant) for contestant in entry.contestants]
    config = asdict(entry.config)
    facts = {**protocol.facts(entry.config), "mode": "greedy" if greedy else "sampled"}
    return dict(json.loads(json.dumps({"env": config, "protocol": facts, "policies": policies})))


def _hash(contestant: Contestant) -> str:
    """Return a hash of a policy."""
    policy = contestant.file.policy
    if isinstance(policy, OnnxPolicy):
        return hashlib.sha256(contestant.path.read_bytes()).hexdigest()
    return digest(policy)


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as a dictionary, for JSON."""
    condition = outcome.condition
    return {
        "condition": condition.name,
        "changes": dict(condition.changes),
        **outcome.score.as_dict(),
        "loss": asdict(outcome.loss) if outcome.loss else None,
    }
