"""An explanation as Markdown, as data of a page, and as pictures in TensorBoard."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard.writer import SummaryWriter

from evaluation.explain.checks import FAILING
from evaluation.explain.explain import failing, overlaid, sequence_of
from evaluation.report.markdown import markdown_table, plain

_SUFFIX = ".explain"


def interval(found: Mapping[str, float], digits: int = 2) -> str:
    """Return an estimate with its interval as text."""
    estimate, low, high = (f"{found[key]:+.{digits}f}" for key in ("estimate", "low", "high"))
    return f"{estimate} ({low} to {high})"


def markdown(name: str, parts: Mapping[str, Any], choices: Sequence[str]) -> str:
    """Return an explanation as Markdown.

    Args:
        name: name of the policy.
        parts: the parts by name; parts that are empty are left out.
        choices: names of the choices of an action.
    """
    lines = [f"# {plain(name)}: what it looks at, and what changes its mind", ""]
    if checks := parts.get("checks"):
        lines += _checks(checks)
    if made := parts.get("interventions"):
        lines += _interventions(made, choices)
    if probed := parts.get("probes"):
        lines += _probes(probed)
    return "\n".join(lines).rstrip() + "\n"


def _checks(checks: Mapping[str, Any]) -> Iterable[str]:
    rows = [
        [
            method,
            f"{test['correlations'][0]:.2f}",
            f"{test['correlations'][-1]:.2f}",
            f"{test['centred'][0]:.2f}",
            f"{test['centred'][-1]:.2f}",
            f"{test['similarities'][-1]:.2f}",
            "FAILS" if test["fails"] else "passes",
        ]
        for method, test in checks["randomisation"].items()
    ]
    columns = ("method", "heads", "all", "heads, centred", "all, centred", "SSIM, all", "test")
    yield from ("## Does a method show what was learned?", "")
    yield from markdown_table(columns, rows, text=(0, 6))
    yield from (
        "",
        "Rank correlation of maps with those of the same network with random heads, and with all "
        f"layers random ({checks['states']} states; Adebayo et al. 2018). Centred: without the "
        "mean over the states, which the architecture alone determines. A method fails from "
        f"{FAILING:g}, centred, with all layers random.",
        "",
        "## Do the pixels that it shows matter?",
        "",
    )
    rows = [
        [
            method,
            f"{areas['deletion']:.3f}",
            f"{areas['random_deletion']:.3f}",
            interval(areas["deletion_gain"], 3),
            f"{areas['insertion']:.3f}",
            f"{areas['random_insertion']:.3f}",
            interval(areas["insertion_gain"], 3),
        ]
        for method, areas in checks["deletion"].items()
    ]
    columns = ("method", "deletion", "random", "gain", "insertion", "random", "gain")
    yield from markdown_table(columns, rows, text=(0,))
    yield from (
        "",
        "Area under the probability of the chosen action as pixels are blurred, the most "
        "important first (deletion: lower is better), or made clear (insertion: higher is better), "
        "beside "
        f"random masks, in {checks['deletion_states']} states (Petsiuk et al. 2018). A gain above "
        "0 is better than random.",
        "",
    )


def _interventions(made: Mapping[str, Any], choices: Sequence[str]) -> Iterable[str]:
    rows = []
    for name, found in made.items():
        changes = list(zip(choices, found["choices"], strict=False))
        changes.sort(key=lambda pair: -abs(pair[1]["estimate"]))
        told = [f"{choice} {interval(change)}" for choice, change in changes[:2]]
        rows.append(
            [
                f"{name} (painted)" if found["painted"] else name,
                f"{found['states']} / {found['episodes']}",
                f"{100 * found['pixels']:.1f} %",
                interval(found["distance"]),
                f"{100 * found['switched']['estimate']:.0f} %",
                interval(found["value"]),
                "; ".join(told),
            ]
        )
    columns = (
        *("intervention", "states / episodes", "pixels", "distance"),
        *("switched", "value", "largest changes of probability"),
    )
    yield from ("## What changes its mind?", "")
    yield from markdown_table(columns, rows, text=(0, 6))
    yield from (
        "",
        "The same seed and env step with one thing different, drawn by the engine; painted: pixels "
        "of objects were moved over a background that the engine drew without them. Distance: "
        "total variation between the probabilities of actions. Switched: another action is the "
        "most likely. Value: in native rewards. Intervals: 95 % bootstrap over episodes. `nothing` "
        "is the control: the same engine and commands, without a change; where there are shots, "
        "their smoke and blood are drawn with other random numbers.",
        "",
    )


def _probes(probed: Mapping[str, Any]) -> Iterable[str]:
    columns = ["fact", "states"]
    layers = [(policy, layer) for policy, found in probed.items() for layer in found["layers"]]
    for policy, layer in layers:
        columns.append(f"{policy}, {layer} ({probed[policy]['env_steps']:,} env steps)")
    facts = list(dict.fromkeys(f for p, la in layers for f in probed[p]["layers"][la]))
    rows = []
    for fact in facts:
        scores = [probed[p]["layers"][la].get(fact) for p, la in layers]
        states = next(score["states"] for score in scores if score)
        rows.append([fact, str(states), *(interval(s["score"]) if s else "" for s in scores)])
    yield from ("## What does it know?", "")
    yield from markdown_table(columns, rows, text=(0,))
    yield from (
        "",
        "Linear probes, tested on other episodes than they were fitted on: R² of a number, "
        "2 AUC - 1 of a fact that is true or false; 1 is perfect, 0 is chance. Untrained: the "
        "same network with random weights, on the same observations.",
    )


def page_data(maps: Mapping[str, Any], checks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the maps of an episode for a page, with the methods that fail marked."""
    marked = failing(checks)
    rows = [{**row, "fails": row["method"] in marked} for row in maps["maps"]]
    return {**{key: maps[key] for key in ("height", "width", "steps")}, "maps": rows}


def page_interventions(made: Mapping[str, Any], choices: Sequence[str]) -> list[dict[str, Any]]:
    """Return the interventions for a page."""
    return [
        {
            "name": name,
            "painted": found["painted"],
            "summary": f"{found['states']} states: distance {interval(found['distance'])}, value "
            f"{interval(found['value'])}",
            "choices": list(choices),
            "examples": found["examples"],
        }
        for name, found in made.items()
    ]


def write_pictures(folder: Path, maps: Mapping[str, Any], env_steps: int) -> None:
    """Write pictures with maps over them for TensorBoard, in place of earlier ones.

    Args:
        folder: the folder for event files.
        maps: as `explained_steps` returns them.
        env_steps: env steps of the training, the x axis.
    """
    for old in folder.glob(f"events.out.tfevents*{_SUFFIX}"):
        old.unlink()
    pictures = maps["pictures"]
    images = [_decoded(text) for text in pictures["pngs"]]
    with contextlib.closing(SummaryWriter(str(folder), filename_suffix=_SUFFIX)) as writer:
        for row in maps["maps"]:
            small = sequence_of(maps, row)
            tiles = [
                np.vstack([image, overlaid(image, small[b])])
                for b, image in zip(pictures["states"], images, strict=True)
            ]
            tag = f"explain_{row['target']}/{row['method']}"
            writer.add_image(tag, np.hstack(tiles), env_steps, dataformats="HWC")


def _decoded(text: str) -> NDArray[np.uint8]:
    """Return the (H, W, 3) RGB picture of a PNG file in base64."""
    content = np.frombuffer(base64.b64decode(text), np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
