"""Explaining a policy in parts, each of which is written when it is finished.

A part that a file holds for the same policy and the same options is read instead of computed, so
that a command that was interrupted resumes.

Axes: T env steps, B states, H, W an image.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agents.device import single_thread
from agents.extras import import_extra
from agents.policy import Policy
from envs import EnvConfig
from envs.registry import is_plain_doom
from evaluation.errors import EvaluationError
from evaluation.explain.attribution import UNSIGNED, attributed, methods_of
from evaluation.explain.checks import deletion, randomisation, untrained
from evaluation.explain.interventions import (
    NULL,
    Changed,
    answers,
    chosen_moments,
    effect,
    interventions,
    over_episodes,
)
from evaluation.explain.pixels import TARGETS, PixelPolicy, States, joined
from evaluation.explain.probes import features_of, probes
from evaluation.explain.seen import Recorded, Seen, watch, with_past
from evaluation.replay.recorded import ShownEpisode
from perception import ImageSpec
from storage.files import read_kept, write_json
from storage.policy_file import PolicyFile, digest

_FORMAT = 1
_MOST_BYTES = 2**28  # Of a part.
_PICTURES = 8  # States of the episode that TensorBoard shows.
_MAP_WIDTH = 40  # Pixels of the maps on a page.
_EXAMPLES = 4  # States of each intervention that a page shows.
_CHECKED = 8  # States in which methods are compared with random networks.
_PAST = 8  # Env steps ago of facts of the past.
_REMEMBERED = ("monster_in_view", "monster_bearing", "item_in_view")
_MOST_PROBED = 4_000  # States of a probe.
_LARGEST = 0.995  # Quantile of the sizes that is shown in full colour.


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is computed.

    Attributes:
        steps: env steps of the shown episode that are explained, spread evenly.
        episodes: episodes of checks, interventions and probes.
        states: states of each of them in which interventions are made.
        seed: seed of the first of these episodes.
    """

    steps: int = 100
    episodes: int = 20
    states: int = 4
    seed: int = 0


class Explainer:
    """Explains a policy; parts that were finished before are read.

    Args:
        file: the policy.
        config: its environment.
        plan: how much is computed.
        folder: for the parts.
        say: is called with a line before each part is computed.

    Attributes:
        pixels: the policy as a function of decoded images.

    Raises:
        EvaluationError: If the policy does not observe exactly one image.
        MissingExtraError: If Captum is not installed.
    """

    def __init__(
        self,
        file: PolicyFile,
        config: EnvConfig,
        plan: Plan,
        folder: Path,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        import_extra("captum.attr", "explain")
        self.pixels = PixelPolicy(file.policy)
        self._file, self._config, self._plan = file, config, plan
        self._folder, self._say = folder, say
        self._key = key_of(file.policy, config, plan)
        self._episodes: list[Seen] = []

    @property
    def is_doom(self) -> bool:
        """Whether interventions and facts are possible."""
        return is_plain_doom(self._config)

    @property
    def episodes(self) -> list[Seen]:
        """The episodes of checks, interventions and probes; they are played once."""
        if not self._episodes:
            seeds = range(self._plan.seed, self._plan.seed + self._plan.episodes)
            self._episodes = watch(self._file.policy, self._config, seeds)
        return self._episodes

    def maps(self, shown: ShownEpisode) -> dict[str, Any]:
        """Return the maps of an episode by all methods and targets, as JSON for `page`."""
        episode = shown.episode
        actions = hashlib.sha256(episode.actions.tobytes()).hexdigest()

        def compute() -> dict[str, Any]:
            recorded = Recorded(episode.actions, episode.rewards)
            (seen,) = watch(self._file.policy, self._config, [episode.seed], recorded)
            return explained_steps(self.pixels, seen, self._plan.steps)

        return self._part("maps", compute, f"{episode.seed} {actions}")

    def checks(self) -> dict[str, Any]:
        """Return the parameter randomisation test and the deletion curves, as JSON."""

        def compute() -> dict[str, Any]:
            methods = methods_of(self.pixels)
            middle = [
                self.pixels.states(seen, [len(seen) // 2]) for seen in self.episodes[:_CHECKED]
            ]
            found: dict[str, Any] = {"states": len(middle), "randomisation": {}, "deletion": {}}
            tests = randomisation(self._file.policy, joined(middle), methods, TARGETS[0])
            for name, test in tests.items():
                found["randomisation"][name] = {**asdict(test), "fails": test.fails}
            every, episode = self._chosen()
            for name, areas in deletion(self.pixels, every, methods, TARGETS[0]).items():
                deletion_gain = areas.random_deletion - areas.deletion
                insertion_gain = areas.insertion - areas.random_insertion
                found["deletion"][name] = {
                    **{key: float(value.mean()) for key, value in asdict(areas).items()},
                    "deletion_gain": asdict(over_episodes(deletion_gain, episode)),
                    "insertion_gain": asdict(over_episodes(insertion_gain, episode)),
                }
            return found | {"deletion_states": len(every)}

        return self._part("checks", compute)

    def interventions(self) -> dict[str, Any]:
        """Return the effects of interventions with examples, as JSON; empty outside Doom."""
        if not self.is_doom:
            return {}

        def compute() -> dict[str, Any]:
            episodes, unit = self.episodes, self._file.about.value_unit
            first = self._config.frame_stack
            moments = chosen_moments(episodes, self._plan.states, first)
            if not moments:
                raise EvaluationError("its episodes are too short for interventions")
            found = {}
            for name, changed in interventions(self._config, self.pixels.part, episodes, moments):
                caused = effect(self.pixels, episodes, changed, unit)
                examples = [] if name == NULL else self._examples(changed)
                found[name] = {**asdict(caused), "examples": examples}
            return found

        return self._part("interventions", compute)

    def probes(self, others: Mapping[str, PolicyFile]) -> dict[str, Any]:
        """Return how well facts can be read from this policy, others and an untrained one, as JSON.

        Args:
            others: further policies of the same configuration, as of earlier in the training.
        """
        if not self.is_doom:
            return {}
        steps = {name: file.about.env_steps for name, file in others.items()}
        hashes = " ".join(key_of(file.policy, self._config, self._plan) for file in others.values())

        def compute() -> dict[str, Any]:
            episodes = [with_past(seen, _REMEMBERED, _PAST) for seen in self.episodes]
            episode = np.repeat(np.arange(len(episodes)), [len(seen) for seen in episodes])
            rows = np.arange(0, len(episode), max(1, len(episode) // _MOST_PROBED))
            facts = {
                name: np.concatenate([seen.facts[name] for seen in episodes])[rows]
                for name in episodes[0].facts
            }
            policies = {
                "untrained": (0, untrained(self._file.policy)),
                **{name: (steps[name], file.policy) for name, file in others.items()},
                "trained": (self._file.about.env_steps, self._file.policy),
            }
            found: dict[str, Any] = {}
            for name, (env_steps, policy) in policies.items():
                layers = dict(
                    zip(("encoder", "memory"), features_of(policy, episodes), strict=True)
                )
                if not policy.is_recurrent:
                    del layers["memory"]
                found[name] = {"env_steps": env_steps, "layers": {}}
                for layer, features in layers.items():
                    scores = probes(features[rows], facts, episode[rows])
                    found[name]["layers"][layer] = {k: asdict(p) for k, p in scores.items()}
            return found

        return self._part("probes", compute, hashes)

    def _chosen(self) -> tuple[States, NDArray[np.int64]]:
        """Return states spread over the episodes, and the episode of each."""
        moments = chosen_moments(self.episodes, min(2, self._plan.states), 0)
        states = [self.pixels.states(self.episodes[m.episode], [m.step]) for m in moments]
        return joined(states), np.array([m.episode for m in moments])

    def _part(
        self, name: str, compute: Callable[[], dict[str, Any]], also: str = ""
    ) -> dict[str, Any]:
        """Return a part from its file, or compute it and write it."""
        path = self._folder / f"{name}.json"
        key = hashlib.sha256(f"{self._key} {name} {also}".encode()).hexdigest()
        kept = read_kept(path, _MOST_BYTES, {"key": key})
        if "part" in kept:
            return dict(kept["part"])
        self._say(f"{name} of {self._config.env}")
        with single_thread():
            part = compute()
        write_json(path, {"key": key, "part": part})
        return part

    def _examples(self, changed: Changed) -> list[dict[str, Any]]:
        unit = self._file.about.value_unit
        before, after = (
            answers(self.pixels, self.episodes, changed, unit, after=which)
            for which in (False, True)
        )
        count = len(changed.moments)
        chosen = np.unique(np.linspace(0, count - 1, min(count, _EXAMPLES)).round().astype(int))
        return [
            {
                "seed": self.episodes[changed.moments[b].episode].seed,
                "step": changed.moments[b].step,
                "before": self._png(changed.before[b]),
                "after": self._png(changed.after[b]),
                "probabilities": [p.probabilities[b].round(4).tolist() for p in (before, after)],
                "values": [round(float(p.values[b]), 4) for p in (before, after)],
            }
            for b in chosen
        ]

    def _png(self, image: NDArray[np.uint8]) -> str:
        spec = self.pixels.policy.specs[self.pixels.part]
        assert isinstance(spec, ImageSpec)
        return base64.b64encode(png(colours(image, spec))).decode()


def key_of(policy: Policy, config: EnvConfig, plan: Plan) -> str:
    """Return the SHA-256 of everything that an explanation depends on but the recording."""
    return hashlib.sha256(f"{_FORMAT} {config} {plan} {digest(policy)}".encode()).hexdigest()


def explained_steps(pixels: PixelPolicy, seen: Seen, steps: int) -> dict[str, Any]:
    """Return small maps of an episode by all methods and targets, as JSON for `page`.

    Args:
        pixels: the policy.
        seen: the episode.
        steps: the number of env steps that are explained, spread evenly.
    """
    chosen = np.unique(np.linspace(0, len(seen) - 1, min(steps, len(seen))).round().astype(int))
    states = pixels.states(seen, chosen.tolist())
    rows = []
    for name, method in methods_of(pixels).items():
        for target in TARGETS:
            maps = attributed(pixels, states, method, target)
            small = shrunk(maps)
            rows.append(
                {
                    "method": name,
                    "target": target,
                    "signed": name not in UNSIGNED,
                    "data": base64.b64encode(small.tobytes()).decode(),
                }
            )
    height, width = small.shape[1:]
    spec = pixels.policy.specs[pixels.part]
    assert isinstance(spec, ImageSpec)
    kept = np.unique(np.linspace(0, len(chosen) - 1, min(len(chosen), _PICTURES)).astype(int))
    images = [colours(seen.obs[pixels.part][chosen[b]], spec) for b in kept]
    return {
        "height": height,
        "width": width,
        "steps": chosen.tolist(),
        "maps": rows,
        "pictures": {
            "states": kept.tolist(),
            "pngs": [base64.b64encode(png(image)).decode() for image in images],
        },
    }


def shrunk(maps: Tensor) -> NDArray[np.int8]:
    """Return (B, H, W) maps at the size of a page, int8; 127 is the largest of the episode.

    Sizes are comparable between the env steps of an episode, not between methods.
    """
    height, width = maps.shape[1:]
    to = min(_MAP_WIDTH, width)
    size = (to, max(1, round(height * to / width)))
    small = [cv2.resize(m, size, interpolation=cv2.INTER_AREA) for m in maps.numpy()]
    array = np.stack(small)
    largest = max(float(np.quantile(np.abs(array), _LARGEST)), 1e-12)
    scaled: NDArray[np.int8] = (127 * (array / largest).clip(-1, 1)).round().astype(np.int8)
    return scaled


def colours(image: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """Return the newest frame of an (H, W, C) observation as (H, W, 3) RGB."""
    if "palette" in spec.channels:
        newest = max(i for i, name in enumerate(spec.channels) if name == "palette")
        return np.asarray(np.array(spec.palette, np.uint8)[image[..., newest]])
    if image.shape[2] % 3 == 0:
        return image[..., -3:]
    return np.asarray(np.repeat(image[..., -1:], 3, axis=2), np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    """Return an (H, W, 3) RGB picture as a PNG file."""
    _, content = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return bytes(content)


def overlaid(image: NDArray[np.uint8], small: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return a picture with a map over it: orange is for the output, and blue against it.

    Args:
        image: (H, W, 3) RGB.
        small: (h, w), as `shrunk` returns it.
    """
    size = (image.shape[1], image.shape[0])
    share = cv2.resize(small.astype(np.float32) / 127, size, interpolation=cv2.INTER_LINEAR)
    alpha = np.abs(share)[..., None]
    colour = np.where(share[..., None] > 0, (255, 140, 0), (40, 130, 255))
    gray = image.mean(axis=2, keepdims=True) * 0.6
    return np.asarray((gray * (1 - alpha) + colour * alpha).clip(0, 255), np.uint8)


def sequence_of(maps: Mapping[str, Any], row: Mapping[str, Any]) -> NDArray[np.int8]:
    """Return the (B, h, w) int8 maps of one row of `explained_steps`."""
    data = np.frombuffer(base64.b64decode(row["data"]), np.int8)
    return data.reshape(-1, maps["height"], maps["width"])


def failing(checks: Mapping[str, Any]) -> Sequence[str]:
    """Return the methods that fail the randomisation test of `Explainer.checks`."""
    tests = checks.get("randomisation", {})
    return [name for name, test in tests.items() if test["fails"]]
