"""Show where the time of one decision for few environments goes, as a table and a picture.

    python -m benchmarks.acting --image docs/images/acting.png

For 1, 2, 4 and 8 environments of a preset, with and without memory, on one thread: the processor
time of `InferencePolicy.act`, and that of its parts alone, medians. *rest* is all other time: other
parts of an observation, Python between the parts, and caches that hold less while all parts run in
turn.
"""

from __future__ import annotations

from commands.start import prepare

prepare("", THP_MEM_ALLOC_ENABLE="1")  # as train.py does

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import tyro

from agents import build_policy
from agents.device import keep_memory, single_thread
from agents.distributions import num_draws
from agents.inference import InferencePolicy
from agents.policy import Decision, observation_specs
from envs import make
from perception.perception import ImageEncoder
from training.config import default_config

PARTS = ("decoding", "image encoder", "memory", "heads and sampling", "rest")


@dataclass(frozen=True, kw_only=True)
class Acting:
    """What is measured."""

    env: tyro.conf.Positional[str] = "health_gathering"
    """The scenario."""
    num_envs: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of environments that act together."""
    memories: tuple[str, ...] = ("none", "lstm")
    """Memories."""
    repeats: int = 100
    """Decisions that are timed."""
    image: Path | None = None
    """File for the picture."""


@torch.no_grad()
def measure(config: Acting, memory: str, num: int) -> dict[str, float]:
    """Return the microseconds of a decision, by part."""
    preset, made = default_config(config.env, memory=memory), make(default_config(config.env).env)
    specs = observation_specs(made.observation_space, made.metadata)
    policy = build_policy(specs, made.action_space, preset.perception)
    made.close()
    batch = [made.observation_space.sample() for _ in range(num)]
    parts = [each if isinstance(each, dict) else {"obs": each} for each in batch]
    obs = {name: torch.stack([torch.as_tensor(each[name]) for each in parts]) for name in specs}
    actor = InferencePolicy(policy)
    state, starts = actor.initial_state(num), torch.zeros(num, dtype=torch.bool)
    draws = torch.rand(num, num_draws(policy.action_space))

    def act() -> Decision:
        return actor.act(obs, state, starts, draws)

    def cost(call: Callable[[], Any]) -> float:
        """Return the median of microseconds of this thread."""
        call()
        seconds = []
        for _ in range(config.repeats):
            started = time.thread_time()
            call()
            seconds.append(time.thread_time() - started)
        return 1e6 * statistics.median(seconds)

    act()
    actor.take_weights()
    total = cost(act)
    copied, perception = actor._copy, actor._copy.perception
    image = perception.encoders[perception.image_names[0]]
    assert isinstance(image, ImageEncoder)
    frames = obs[perception.image_names[0]]
    decoded, encoded = image.decoder(frames), perception.encode(obs)
    features, _ = perception.step(obs, state, starts)

    def choose() -> None:
        distribution = copied.actor(features)
        distribution.log_prob(distribution.sample(draws))
        distribution.probabilities()
        copied.critic(features)

    costs = {
        PARTS[0]: cost(lambda: image.decoder(frames)),
        PARTS[1]: cost(lambda: image.encoder(decoded)),
        PARTS[2]: cost(lambda: perception.memory(encoded[None], state, starts[None])),
        PARTS[3]: cost(choose),
    }
    return costs | {PARTS[4]: max(0.0, total - sum(costs.values()))}


def draw(path: Path, rows: dict[str, dict[str, float]]) -> None:
    """Draw a bar for each row, divided into parts."""
    figure, axes = plt.subplots(figsize=(7, 0.42 * len(rows) + 1.2))
    left = [0.0] * len(rows)
    for part, colour in zip(
        PARTS, ("#440154", "#31688e", "#35b779", "#fde725", "#c9c9c9"), strict=True
    ):
        widths = [row[part] for row in rows.values()]
        axes.barh(list(rows), widths, left=left, label=part, color=colour)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("microseconds of a core for one decision of all environments")
    axes.legend(ncols=2, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print a Markdown table, and draw the picture if requested."""
    config = tyro.cli(Acting, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    keep_memory()
    rows = {}
    print(f"| memory, environments | {' | '.join(PARTS)} | together |")
    print(f"| {' | '.join(['---'] * (len(PARTS) + 2))} |")
    with single_thread():
        for memory in config.memories:
            for num in config.num_envs:
                row = rows[f"{memory}, {num}"] = measure(config, memory, num)
                cells = (f"{value:,.0f}" for value in (*row.values(), sum(row.values())))
                print(f"| {memory}, {num} | {' | '.join(cells)} |", flush=True)
    if config.image:
        draw(config.image, rows)


if __name__ == "__main__":
    main()
