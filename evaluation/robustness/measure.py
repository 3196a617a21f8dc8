"""Measures the return of a policy under attacks and shifts, cell by cell, and resumes.

A cell is one policy under one attack at one epsilon, or under one shift. Each is written to a file
when it is finished, and not played again as long as policy and protocol are the same.

Axes: E episodes, S training seeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents import Player, Policy, RandomPlayer
from agents.device import choose_device
from agents.policy import Obs
from envs import SharedVectorEnv
from evaluation.entries import Contestant
from evaluation.errors import EvaluationError
from evaluation.playing import play_episodes
from evaluation.protocol import Protocol, check_fits, vector_env
from evaluation.robustness.attacker import ATTACKS, Attacker, Moment
from evaluation.robustness.foreign import InterruptedPlayer, foreign_images
from evaluation.robustness.player import Change, ChangedPlayer, Effect
from evaluation.robustness.shifts import SHIFTS, MissingTexture, Planes, existing, with_other_hud
from perception import ImageSpec
from storage.files import FileError, decode, read_kept, write_json
from storage.policy_file import PolicyFile, digest
from storage.recording import Episode

CLEAN, RANDOM = "clean", "random"
"""The names of the controls: the policy without a change, and random actions."""
_MOST_BYTES = 2**26
_FORMAT = 1  # Of the file; cells of another one are played again.


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is done to a policy.

    Attributes:
        name: a name in `ATTACKS` or `SHIFTS`, `CLEAN` or `RANDOM`.
        epsilon: of an attack, in 255ths; else None.
    """

    name: str
    epsilon: float | None = None

    @property
    def key(self) -> str:
        """Unique among cells."""
        return self.name if self.epsilon is None else f"{self.name} {self.epsilon:g}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured in a cell.

    Attributes:
        returns: native returns of E episodes, in the order of their seeds.
        length: mean length of the episodes in env steps.
        seconds: that it took.
        effect: on decisions; None if nothing was changed, or not in every env step.
        recovery: after foreign frames, see `Recovery`; else None.
    """

    returns: list[float]
    length: float
    seconds: float
    effect: dict[str, float] | None = None
    recovery: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured of every policy.

    Attributes:
        protocol: which episodes are played.
        greedy: whether the most likely actions are taken instead of sampling.
        attacks: names in `ATTACKS`.
        epsilons: in 255ths.
        shifts: names in `SHIFTS`; those that do not exist in the environment are left out.
        source: the policy from which attacks are transferred, if there is one.
    """

    protocol: Protocol
    greedy: bool
    attacks: tuple[str, ...]
    epsilons: tuple[float, ...]
    shifts: tuple[str, ...]
    source: PolicyFile | None = None

    def cells(self, contestant: Contestant) -> list[Cell]:
        """Return what is done to a policy, controls first."""
        spec = image_spec(file_of(contestant).policy)
        assert spec is not None
        cells = [Cell(name=CLEAN), Cell(name=RANDOM)]
        for name in self.attacks:
            cells += [Cell(name=name, epsilon=epsilon) for epsilon in self.epsilons]
        return [*cells, *(Cell(name=n) for n in existing(self.shifts, contestant.config, spec))]

    def key(self, cell: Cell) -> str:
        """Return the name of a cell in the file, with that of the policy it is transferred from."""
        if cell.name in ATTACKS and ATTACKS[cell.name].from_another:
            assert self.source is not None
            return f"{cell.key} from {digest(self.source.policy)}"
        return cell.key


@dataclass
class Store:
    """The finished cells of a policy, in a file.

    Attributes:
        path: the file.
        about: what must be the same for a cell to be used again.
        cells: by key.
    """

    path: Path
    about: dict[str, Any]
    cells: dict[str, Measured] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, about: dict[str, Any]) -> Store:
        """Return the cells of a file; none if it is damaged, or about something else."""
        kept = read_kept(path, _MOST_BYTES, {"about": about})
        try:
            cells = {key: decode(Measured, cell) for key, cell in kept["cells"].items()}
        except (LookupError, AttributeError, FileError):
            cells = {}
        return cls(path, about, cells)

    def add(self, key: str, measured: Measured) -> None:
        """Add a cell, and write the file."""
        self.cells[key] = measured
        cells = {key: dataclasses.asdict(cell) for key, cell in self.cells.items()}
        write_json(self.path, {"about": self.about, "cells": cells})


def about(contestant: Contestant, plan: Plan) -> dict[str, Any]:
    """Return what must be the same for a cell to be used again, as JSON would return it."""
    return {
        "format": _FORMAT,
        "env": contestant.config.env,
        "policy": digest(file_of(contestant).policy),
        "mode": "greedy" if plan.greedy else "sampled",
        "protocol": plan.protocol.facts(contestant.config),
    }


def file_of(contestant: Contestant) -> PolicyFile:
    """Return the file of a policy.

    Raises:
        EvaluationError: If it is an ONNX file.
    """
    if not isinstance(contestant.file, PolicyFile):
        raise EvaluationError(
            f"{contestant.path} is an ONNX file, which has no gradients to attack it by; name the "
            "policy that it was exported from"
        )
    return contestant.file


def image_spec(policy: Policy) -> ImageSpec | None:
    """Return the first image that a policy observes; None if there is none."""
    return next((spec for spec in policy.specs.values() if isinstance(spec, ImageSpec)), None)


def check_attackable(contestant: Contestant, plan: Plan) -> None:
    """Check that what is planned can be done to a policy.

    Raises:
        EvaluationError: If it cannot.
    """
    policy, path = file_of(contestant).policy, contestant.path
    if image_spec(policy) is None:
        raise EvaluationError(
            f"{path} observes no images, and attacks change pixels; name a policy that sees"
        )
    if not policy.is_recurrent:
        for name in plan.attacks:
            if ATTACKS[name].through_memory:
                raise EvaluationError(f"{path} has no memory for {name}; leave it out of --attacks")
    source = plan.source.policy if plan.source else None
    if source and (source.specs, source.action_space) != (policy.specs, policy.action_space):
        raise EvaluationError(
            f"the policy of --from has other observations or actions than {path}; name one that "
            "was trained in the same environment, with the same pixels"
        )


def measure(
    contestant: Contestant,
    plan: Plan,
    store: Store,
    *,
    starts: Callable[[Cell], Any],
    ends: Callable[[Cell, Measured], Any],
) -> Iterator[tuple[Cell, Measured]]:
    """Measure all cells of a policy that are not finished yet.

    Args:
        contestant: the policy.
        plan: what is measured.
        store: holds the finished cells.
        starts: is called before a cell is played.
        ends: is called after a cell was played.

    Yields:
        All cells, also those that were finished before.

    Raises:
        FileError: If the policy does not fit its environment, or the file cannot be written.
    """
    policy, protocol = file_of(contestant).policy, plan.protocol
    policy.requires_grad_(requires_grad=False)  # Only pixels need gradients.
    with contextlib.ExitStack() as opened:

        @functools.cache
        def envs() -> SharedVectorEnv:
            each = vector_env(contestant.config, protocol.num_envs, protocol.episodes)
            envs = opened.enter_context(each)
            check_fits(contestant.file, envs, contestant.path)
            return envs

        for cell in plan.cells(contestant):
            key = plan.key(cell)
            if key not in store.cells:
                starts(cell)
                if cell.name == "hud":
                    measured = _measure_hud(contestant, plan)
                else:
                    measured = _measure(cell, contestant, plan, envs())
                store.add(key, measured)
                ends(cell, measured)
            yield cell, store.cells[key]


def _measure_hud(contestant: Contestant, plan: Plan) -> Measured:
    protocol = plan.protocol
    with tempfile.TemporaryDirectory() as folder:
        config = with_other_hud(contestant.config, Path(folder))
        with vector_env(config, protocol.num_envs, protocol.episodes) as envs:
            return _measure(Cell(name=CLEAN), contestant, plan, envs)


def _measure(cell: Cell, contestant: Contestant, plan: Plan, envs: SharedVectorEnv) -> Measured:
    file, device = file_of(contestant), choose_device(plan.protocol.device)
    policy = file.policy.to(device)
    started = time.perf_counter()
    player: Player
    if cell.name == RANDOM:
        player, device = RandomPlayer(policy.action_space), torch.device("cpu")
    elif cell.name == "foreign":
        images = foreign_images(contestant.config, policy.perception.image_names)
        player = InterruptedPlayer(policy, images)
    else:
        player = ChangedPlayer(policy, change_of(cell, contestant, plan))
    greedy = plan.greedy and cell.name != RANDOM
    episodes = played(player, envs, file, plan.protocol, greedy=greedy, device=device)
    effect: Effect | None = None
    if isinstance(player, ChangedPlayer):
        effect = player.effect(file.about.value_unit)
    recovery = player.recovery() if isinstance(player, InterruptedPlayer) else None
    return Measured(
        returns=[episode.episode_return for episode in episodes],
        length=float(np.mean([len(episode.rewards) for episode in episodes])),
        seconds=round(time.perf_counter() - started, 1),
        effect=dataclasses.asdict(effect) if effect else None,
        recovery=recovery.as_dict() if recovery else None,
    )


def played(
    player: Player,
    envs: SharedVectorEnv,
    file: PolicyFile,
    protocol: Protocol,
    *,
    greedy: bool,
    device: torch.device,
) -> list[Episode]:
    """Play a protocol's episodes, and return them in the order of their seeds.

    Args:
        player: a policy that is changed in some way, or a baseline.
        envs: the environments.
        file: the policy's file.
        protocol: which episodes are played.
        greedy: whether the most likely actions are taken instead of sampling.
        device: of the player.
    """
    episodes = play_episodes(
        player,
        envs,
        num_episodes=protocol.episodes,
        seed=protocol.seed,
        greedy=greedy,
        device=device,
        gamma=file.about.gamma,
        value_unit=file.about.value_unit,
    )
    return sorted(episodes, key=lambda episode: episode.seed)


def change_of(cell: Cell, contestant: Contestant, plan: Plan) -> Change | None:
    """Return how a cell changes observations; None if it does not."""
    policy = file_of(contestant).policy
    if cell.name in ATTACKS:
        attack, epsilon = ATTACKS[cell.name], (cell.epsilon or 0.0) / 255.0
        attacked = policy
        if attack.from_another:
            assert plan.source is not None
            attacked = plan.source.policy.requires_grad_(requires_grad=False).to(policy.device)
        attacker = Attacker(
            attack,
            attacked,
            epsilon,
            seed=plan.protocol.seed,
            own_memory=attack.from_another,
        )
        return lambda obs, moment: attacker(moment)
    if cell.name in SHIFTS:
        return _shift(cell.name, policy)
    return None


def _shift(name: str, policy: Policy) -> Change:
    generator = torch.Generator().manual_seed(0)
    planes: Mapping[str, Planes] = {
        name: Planes.of(spec) for name, spec in policy.specs.items() if isinstance(spec, ImageSpec)
    }
    textures = {part: MissingTexture(of_part) for part, of_part in planes.items()}
    change = SHIFTS[name].change

    def shifted(obs: Obs, moment: Moment) -> Obs:
        changed = dict(moment.obs)
        for part, of_part in planes.items():
            if change is not None:
                changed[part] = change(moment.obs[part], of_part, generator)
            else:
                starts = moment.episode_starts
                changed[part] = textures[part](obs[part], moment.obs[part], starts)
        return changed

    return shifted
