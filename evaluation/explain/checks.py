"""Checks of attributions: does a method show what the network learned, and does it matter?

Axes: B states, P planes, H, W an image, L layers, F fractions of pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch import Tensor, nn
from torch.nn import functional as F

from agents.policy import Policy, build_policy
from evaluation.explain.attribution import Method, attributed
from evaluation.explain.pixels import PixelPolicy, States, blurred

FAILING = 0.5
"""Rank correlation from which a method fails, between its maps of the trained network and of one
whose layers are all random: it then shows the image rather than what was learned. What all states
share is taken away first (`centred_ranks`)."""
IDENTICAL = 0.95
"""Rank correlation from which a method fails although nothing is taken away."""
FRACTIONS = tuple(np.linspace(0.0, 1.0, 11).tolist())
"""Fractions of the pixels that are deleted or inserted."""
Maps = NDArray[np.float32]
_WINDOW = 7  # Pixels of the windows of structural similarity.
_RANDOM_MASKS = 4
_COARSE = (8, 10)  # Cells of a random mask, so that it has patches as maps have.


@dataclass(frozen=True, kw_only=True)
class Randomised:
    """How a method's maps change when layers are randomised one after another, from the top.

    Attributes:
        layers: (L,) names; entry l is for the network whose layers up to this one are random.
        correlations: (L,) mean rank correlation of the maps' sizes with those of the network.
        centred: (L,) the same without what the maps of all states share.
        similarities: (L,) mean structural similarity of the same.
    """

    layers: tuple[str, ...]
    correlations: tuple[float, ...]
    centred: tuple[float, ...]
    similarities: tuple[float, ...]

    @property
    def fails(self) -> bool:
        """Whether the maps of an entirely random network are like those of the trained one."""
        return self.centred[-1] >= FAILING or self.correlations[-1] >= IDENTICAL


def layers_from_the_top(policy: Policy) -> list[str]:
    """Return the names of the layers, those nearest to the outputs first.

    The two heads are one layer, because each target depends on one of them.
    """
    names = [
        name
        for name, module in policy.named_modules()
        if name and any(True for _ in module.parameters(recurse=False))
    ]
    heads = [name for name in names if name.startswith(("actor", "critic"))]
    rest = [name for name in names if name not in heads]
    return [" ".join(heads), *reversed(rest)]


def randomised(policy: Policy, seed: int = 0) -> Iterator[tuple[str, Policy]]:
    """Yield the name of a layer and the policy in which all layers down to it are random.

    Random weights are those with which a training would start (Adebayo et al. 2018, section 3.1).

    Args:
        policy: the trained policy.
        seed: seed of the random weights.
    """
    fresh = untrained(policy, seed).state_dict()
    changed = copy.deepcopy(policy)
    for layer in layers_from_the_top(policy):
        modules: Mapping[str, nn.Module] = dict(changed.named_modules())
        for name in layer.split():
            for kind, parameter in modules[name].named_parameters(recurse=False):
                parameter.data = fresh[f"{name}.{kind}"].clone()
        yield layer, changed


def untrained(policy: Policy, seed: int = 0) -> Policy:
    """Return a policy of the same configuration that has learned nothing.

    The statistics by which observations are normalised are kept: they are not learned from rewards.

    Args:
        policy: the trained policy.
        seed: seed of its weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_policy(
            policy.specs, policy.action_space, policy.config, normalize_obs=policy.normalize_obs
        )
    statistics = dict(policy.named_buffers())
    for name, tensor in fresh.named_buffers():
        tensor.data = statistics[name].clone()
    return fresh.eval()


def randomisation(
    policy: Policy, states: States, methods: Mapping[str, Method], target: str
) -> dict[str, Randomised]:
    """Compare the maps of methods with those of networks that are more and more random.

    Args:
        policy: the trained policy.
        states: the states that are explained.
        methods: the methods by name.
        target: one of `pixels.TARGETS`.
    """
    ours = {
        name: attributed(PixelPolicy(policy), states, method, target).numpy()
        for name, method in methods.items()
    }
    found: dict[str, list[tuple[str, float, float, float]]] = {name: [] for name in methods}
    for layer, changed in randomised(policy):
        pixels = PixelPolicy(changed)
        for name, method in methods.items():
            theirs = attributed(pixels, states, method, target).numpy()
            found[name].append((layer, *similarities(ours[name], theirs)))
    return {
        name: Randomised(
            layers=tuple(row[0] for row in rows),
            correlations=tuple(row[1] for row in rows),
            centred=tuple(row[2] for row in rows),
            similarities=tuple(row[3] for row in rows),
        )
        for name, rows in found.items()
    }


def similarities(one: Maps, other: Maps) -> tuple[float, float, float]:
    """Return how alike two networks' maps of the same states are, each (B, H, W).

    Returns:
        The mean rank correlation, the same of `centred_ranks`, and the mean structural similarity.
    """
    structural = [structural_similarity(a, b) for a, b in zip(one, other, strict=True)]
    return (*rank_correlations(one, other), float(np.mean(structural)))


def rank_correlations(one: Maps, other: Maps) -> tuple[float, float]:
    """Return the first two of `similarities`."""
    return (
        correlation(_ranks(one), _ranks(other)),
        correlation(centred_ranks(one), centred_ranks(other)),
    )


def _ranks(maps: Maps) -> NDArray[np.float64]:
    return np.stack([stats.rankdata(np.abs(m)).reshape(m.shape) for m in maps])


def centred_ranks(maps: Maps) -> NDArray[np.float64]:
    """Return the ranks of the maps' sizes without their mean over the states, (B, H, W).

    Which pixels a network can react to at all depends on its architecture: strides leave out some,
    and those in the middle reach more units. Maps of two random networks have a rank correlation of
    0.6 for that reason alone; after this, it is 0.
    """
    ranks = _ranks(maps)
    return np.asarray(ranks - ranks.mean(axis=0), np.float64)


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the mean over states of the correlation of (B, H, W) numbers; 0 for constant ones."""
    a, b = (x - x.mean(axis=(1, 2), keepdims=True) for x in (one, other))
    sizes = np.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)))
    return float(np.mean((a * b).sum((1, 2)) / np.maximum(sizes, 1e-12)))


def structural_similarity(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the structural similarity (Wang et al. 2004) of the sizes of two maps, each to 1."""
    a, b = (np.abs(x).astype(np.float64) / max(float(np.abs(x).max()), 1e-12) for x in (one, other))

    def mean(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.uniform_filter(x, _WINDOW, mode="reflect"), np.float64)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2  # The paper's constants, for a range of 1.
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float((above / below).mean())


@torch.no_grad()
def curves(
    policy: PixelPolicy, states: States, maps: Tensor, target: str, *, insert: bool
) -> NDArray[np.float64]:
    """Return how a score changes as the most important pixels are blurred, or made clear.

    Petsiuk et al. 2018, with a blurred image in place of missing pixels.

    Args:
        policy: the policy.
        states: the states.
        maps: (B, H, W), by which pixels are ordered, the largest first.
        target: `action`, whose probability is the score, or `value`.
        insert: whether pixels of the clear image are inserted into the blurred one; otherwise, they
            are deleted from the clear one.

    Returns:
        (B, F) float64, the score at each of `FRACTIONS`.
    """
    order = maps.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).view(maps.shape)
    clear, blurry = states.images, blurred(states.images)
    scores = []
    for fraction in FRACTIONS:
        chosen = (order < round(fraction * order[0].numel()))[:, None]
        images = torch.where(chosen == insert, clear, blurry)
        score = policy.score(states.with_images(images), target)
        scores.append(score.exp() if target == "action" else score)
    return torch.stack(scores, 1).double().numpy()


def random_maps(count: int, height: int, width: int, seed: int) -> Tensor:
    """Return maps of smooth noise, (count, H, W): the control of `curves`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, *_COARSE, generator=generator)
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[:, 0]


def areas(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under each curve, (B,), for (B, F) scores."""
    return np.asarray(np.trapezoid(scores, FRACTIONS, axis=1), np.float64)


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """Areas under the curves of one method, and how much they differ from those of random maps.

    Attributes:
        deletion: (B,) area as the most important pixels are deleted; lower is better.
        insertion: (B,) area as they are inserted; higher is better.
        random_deletion: (B,) the same for random maps, the mean of several.
        random_insertion: (B,) the same for random maps.
    """

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    random_deletion: NDArray[np.float64]
    random_insertion: NDArray[np.float64]


def deletion(
    policy: PixelPolicy, states: States, methods: Mapping[str, Method], target: str
) -> dict[str, Deletion]:
    """Return the areas of methods beside those of random maps, by method.

    Args:
        policy: the policy.
        states: the states.
        methods: the methods by name.
        target: one of `pixels.TARGETS`.
    """
    height, width = states.images.shape[2:]
    controls = [random_maps(len(states), height, width, seed) for seed in range(_RANDOM_MASKS)]

    def both(maps: Tensor) -> list[NDArray[np.float64]]:
        return [areas(curves(policy, states, maps, target, insert=i)) for i in (False, True)]

    random = np.mean([both(maps) for maps in controls], axis=0)
    found = {}
    for name, method in methods.items():
        deleted, inserted = both(attributed(policy, states, method, target))
        found[name] = Deletion(
            deletion=deleted,
            insertion=inserted,
            random_deletion=random[0],
            random_insertion=random[1],
        )
    return found
