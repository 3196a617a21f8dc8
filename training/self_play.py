"""Self-play: a policy learns in matches against its own earlier selves.

Every so often a copy of the policy is frozen and joins the pool. In each match the opponent is
drawn from the pool by *prioritised fictitious self-play* (PFSP; Vinyals et al. 2019, "Grandmaster
level in StarCraft II using multi-agent reinforcement learning", supplement): a self that the policy
beats with probability p is drawn with a weight of (1 - p) ** power, but at least `floor`. With a
share of `latest_share`, it is the newest one instead, so that the policy also plays against itself
as it is.

The selves are policy files in `opponents/` in the run folder, with the results in `pool.json`, so a
training that resumes has the same pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents import SB3_AGENTS
from agents.collector import Collected
from agents.inference import InferencePolicy
from agents.policy import Player, Policy
from envs.doom.players import players_kind
from evaluation.statistics import Score
from storage.files import FileError, decode, read_json, write_json
from storage.policy_file import About, load_policy, save_policy
from storage.run_folder import RunFolder
from training.about import about_policy
from training.callbacks import Callback
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.config import AnyTrainConfig
    from training.training import Training

_MEMORY = 50.0  # Matches after which older results count for about a third.
_PRIOR = 2.0  # Matches, half of them won, that a new self is taken to have played.
_STATE = "pool.json"
_LARGEST = 2**20  # Bytes of it; a self takes a hundred.


@dataclass(frozen=True, kw_only=True)
class SelfPlayConfig:
    """Whom a policy plays against in matches with the opponent `self`."""

    pool_size: int = 8
    """Matches only: earlier selves that are kept; beyond that, the easiest one goes."""
    freeze_every: int | None = None
    """Matches only: env steps between frozen selves. None: a twentieth of the training."""
    pfsp_power: float = 2.0
    """Matches only: a self that is beaten with probability p has the weight (1 - p) ** this."""
    pfsp_floor: float = 0.05
    """Matches only: the least weight of a self."""
    latest_share: float = 0.35
    """Matches only: share of matches against the newest self."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.pool_size < 1:
            raise ValueError(f"pool_size must be at least 1, got {self.pool_size}")
        if self.freeze_every is not None and self.freeze_every < 1:
            raise ValueError(f"freeze_every must be at least 1, got {self.freeze_every}")
        if self.pfsp_power < 0:
            raise ValueError(f"pfsp_power must be at least 0, got {self.pfsp_power}")
        if not 0 < self.pfsp_floor <= 1:
            raise ValueError(f"pfsp_floor must be in (0, 1], got {self.pfsp_floor}")
        if not 0 <= self.latest_share <= 1:
            raise ValueError(f"latest_share must be between 0 and 1, got {self.latest_share}")


def pfsp(win_rates: Sequence[float], *, power: float, floor: float) -> NDArray[np.float64]:
    """Return with which probabilities opponents are drawn, of the same length.

    Args:
        win_rates: how likely the policy beats each opponent.
        power: see `SelfPlayConfig`.
        floor: see `SelfPlayConfig`.
    """
    weights = np.maximum((1 - np.asarray(win_rates, np.float64)) ** power, floor)
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


@dataclass(kw_only=True)
class Record:
    """The results against one earlier self, of which newer ones count for more.

    Attributes:
        matches: how many there were, weighted.
        won: points that the policy won: a win 1, a draw 0.5; weighted.
    """

    matches: float = 0.0
    won: float = 0.0

    @property
    def win_rate(self) -> float:
        """How likely the policy beats this self, between 0 and 1."""
        return (self.won + _PRIOR / 2) / (self.matches + _PRIOR)

    def add(self, result: float) -> None:
        """Add a match."""
        keep = 1 - 1 / _MEMORY
        self.matches = keep * self.matches + 1
        self.won = keep * self.won + result


class Pool:
    """The earlier selves of a policy, which act for its opponents; see `Rivals`.

    Args:
        config: whom the policy plays against.
        folder: where the selves are kept.
        seed: seed of the draws.
        device: the device on which the selves act.
    """

    def __init__(
        self, config: SelfPlayConfig, folder: Path, *, seed: int, device: torch.device
    ) -> None:
        self._config, self._folder, self._device = config, folder, device
        self._rng = np.random.default_rng((seed, 1))
        self._players: dict[str, Player] = {}
        self.records: dict[str, Record] = {}

    @property
    def names(self) -> list[str]:
        """The names of the selves, oldest first."""
        return sorted(self.records)

    def begin(
        self, policy: Policy, env: Mapping[str, Any], about: About, imports: Sequence[str] = ()
    ) -> None:
        """Read the pool of a training that resumes, or start one with a new policy.

        Args:
            policy: the policy.
            env: fields of its environment's configuration.
            about: how far it is trained.
            imports: see `PolicyFile`.

        Raises:
            FileError: If the pool is damaged.
        """
        if about.env_steps == 0:
            for file in (*self._folder.glob("*.safetensors"), self._folder / _STATE):
                file.unlink(missing_ok=True)
        else:
            self._load()
        if not self.records:
            self.freeze(policy, env, about, imports)

    def _load(self) -> None:
        state = self._folder / _STATE
        if not state.exists():
            return
        try:
            saved = read_json(state, _LARGEST)
            self.records = {name: decode(Record, record) for name, record in saved.items()}
        except FileError as error:
            raise FileError(
                f"{state} is damaged; start over with --fresh, or remove it to start a new pool"
            ) from error
        for name in self.names:
            policy = load_policy(self._folder / f"{Path(name).name}.safetensors").policy
            self._players[name] = _frozen(policy.to(self._device))

    def save(self) -> None:
        """Write the results so far."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / _STATE, {n: asdict(self.records[n]) for n in self.names})

    def freeze(
        self, policy: Policy, env: Mapping[str, Any], about: About, imports: Sequence[str] = ()
    ) -> str:
        """Add a copy of a policy, remove the easiest self if there are too many, and save.

        Args:
            policy: the policy.
            env: fields of its environment's configuration.
            about: how far it is trained.
            imports: see `PolicyFile`.

        Returns:
            The name of the new self.
        """
        name = f"{about.env_steps:012d}"
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.safetensors"
        save_policy(path, policy, env=env, about=about, imports=imports)
        self._players[name] = _frozen(policy)
        self.records[name] = Record()
        removed = []
        while len(self.records) > self._config.pool_size:
            older = self.names[:-1]
            easiest = max(older, key=lambda n: self.records[n].win_rate) if older else name
            del self.records[easiest], self._players[easiest]
            removed.append(easiest)
        self.save()
        for easiest in removed:  # Only now: the pool that is saved must have all of its files.
            (self._folder / f"{easiest}.safetensors").unlink(missing_ok=True)
        return name

    def draw(self, lane: int) -> str:
        """Return the name of the opponent in the next match."""
        names = self.names
        if self._rng.random() < self._config.latest_share:
            return names[-1]
        rates = [self.records[name].win_rate for name in names]
        chances = pfsp(rates, power=self._config.pfsp_power, floor=self._config.pfsp_floor)
        return names[int(self._rng.choice(len(names), p=chances))]

    def player(self, name: str) -> tuple[Player, torch.device]:
        """Return an earlier self, the newest one instead of one that has been removed."""
        return self._players.get(name) or self._players[self.names[-1]], self._device

    def report(self, name: str, result: float) -> None:
        """Take note of a match of the policy against an earlier self."""
        if name in self.records:
            self.records[name].add(result)


def _frozen(policy: Policy) -> Player:
    """Return a copy of a policy as it is now, ready to act."""
    frozen = InferencePolicy(policy)
    frozen.take_weights()
    return frozen


class SelfPlay(Callback):
    """Freezes the policy every so often, and logs how it does against its earlier selves.

    Args:
        pool: the pool.
        every: env steps between frozen selves.
    """

    def __init__(self, pool: Pool, every: int) -> None:
        self._pool, self._every = pool, every

    def on_update(
        self, training: Training, collected: Collected, metrics: Mapping[str, float]
    ) -> None:
        """Freeze the policy if it is time to, and log win rates."""
        pool, env_steps = self._pool, training.progress.env_steps
        if env_steps - int(pool.names[-1]) >= self._every:
            pool.freeze(
                training.agent.policy,
                asdict(training.config.env),
                about_policy(training.config, training.agent, env_steps),
                training.config.import_,
            )
        rates = [record.win_rate for record in pool.records.values()]
        training.logger.record("selfplay/win_rate", float(np.mean(rates)))
        training.logger.record("selfplay/win_rate_hardest", min(rates))
        training.logger.record("selfplay/pool", len(rates))

    def on_evaluation(self, training: Training, score: Score) -> None:
        """Save the results against the earlier selves."""
        self._pool.save()

    def on_end(self, training: Training) -> None:
        """Save the results against the earlier selves."""
        self._pool.save()


def make_pool(config: AnyTrainConfig, folder: RunFolder, device: torch.device) -> Pool | None:
    """Return the pool of a training by self-play, still empty; None for any other training.

    Raises:
        TrainingError: If the training cannot play against itself.
    """
    if players_kind(config.env.env) is None or config.env.opponent != "self":
        return None
    for remedy, is_needed in (
        ("choose an agent of this project", config.agent_name in SB3_AGENTS),
        ("leave out torchrun", config.num_ranks > 1),
        ("leave out --eval-envs shared", config.eval_envs == "shared"),
        ("leave out --overlap", config.overlap),
    ):
        if is_needed:
            raise TrainingError(f"{config.env.env}: to play against itself, {remedy}")
    return Pool(config.self_play, pool_folder(folder), seed=config.seed, device=device)


def pool_folder(folder: RunFolder) -> Path:
    """Return where the earlier selves of a run are kept."""
    return folder.path / "opponents"
