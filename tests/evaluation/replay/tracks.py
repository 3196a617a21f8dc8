"""Tracks of made-up numbers, and their pages."""

from __future__ import annotations

import numpy as np

from evaluation.replay.page import Event, Track, page

FPS, PICTURES = 35.0, 4
BLOCK, BITS = 16, 10
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- <script>",
    "{{data}}{{videos}}",
    "\"'><b>&lt;",
    "\u2028\u202e",
)


def numbered(count):
    """Yield pictures that encode their number in black and white blocks."""
    for number in range(count):
        bits = (number >> np.arange(BITS)) & 1
        row = np.repeat(bits * 255, BLOCK).astype(np.uint8)
        yield np.broadcast_to(row[None, :, None], (2 * BLOCK, BITS * BLOCK, 3))


def track(steps=20, video=b"", choices=("-", "attack", "turn left"), **changes):
    rng = np.random.default_rng(steps)
    probabilities = rng.dirichlet(np.ones(max(len(choices), 1)), steps)[:, : len(choices)]
    picks = rng.integers(0, max(len(choices), 1), steps)
    fields = {
        "name": f"runs/basic/ppo-seed{steps}",
        "about": "seed 3",
        "video": video,
        "rewards": rng.integers(-5, 6, steps).astype(np.float64),
        "values": rng.normal(size=steps).astype(np.float32),
        "surprises": rng.random(steps).astype(np.float32),
        "probabilities": probabilities.astype(np.float32),
        "choices": tuple(choices),
        "actions": tuple(choices[c] if choices else "[0.5]" for c in picks),
        "variables": {"HEALTH": 100.0 - np.arange(steps), "ARMOR": np.full(steps, 7.0)},
        "events": (Event(step=min(6, steps - 1), kind="kill", text="kill"),),
    }
    return Track(**(fields | changes))


def render(*tracks, title="An episode"):
    return page(title, tracks, fps=FPS, pictures_per_step=PICTURES)
