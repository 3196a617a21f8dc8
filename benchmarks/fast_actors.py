"""Would ONNX Runtime make the collection of rollouts on a CPU faster than PyTorch does?

    python -m benchmarks.fast_actors --out benchmarks/results/fast_actors.md

For the policy of a preset, one env step of a group of environments is timed as the sampler computes
it (`InferencePolicy`, eager, one thread), and by ONNX Runtime in float32 and int8, from the same
observations to actions, log-probabilities and values. After each update, new weights must reach
the actor: PyTorch copies them; an exported file is patched (its weights are replaced in memory) and
opened again, or exported and, in int8, quantised again. In a rollout, both add up.
"""

from __future__ import annotations

from commands.start import prepare

prepare("", THP_MEM_ALLOC_ENABLE="1")  # as train.py does

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from agents import build_policy
from agents.device import single_thread
from agents.distributions import num_draws
from agents.inference import InferencePolicy
from agents.policy import Policy, observation_specs
from deploy.int8 import quantize
from deploy.onnx import draw_inputs, translate
from envs import make
from storage.onnx_file import OnnxPolicy, open_session
from training.config import AnyTrainConfig, default_config

PRESETS = (("basic", "none"), ("health_gathering", "lstm"))
"""Environments and memories."""
_REPEATS = 40


def preset_policy(env: str, memory: str) -> tuple[AnyTrainConfig, Policy]:
    """Return a preset, and a new policy of it."""
    config = default_config(env, "ppo", memory=memory)
    made = make(config.env)
    specs = observation_specs(made.observation_space, made.metadata)
    policy = build_policy(specs, made.action_space, config.perception)
    made.close()
    return config, policy


def timed(act: Callable[[], Any], repeats: int = _REPEATS) -> float:
    """Return the median of CPU seconds of this process that a call takes."""
    if repeats > 1:
        act()
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        act()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def replaced(model: Any, policy: Policy) -> bytes:
    """Return an exported model with the current weights of a policy, without exporting it again."""
    state = policy.state_dict()
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix("_policy.")
        if name in state:
            tensor.CopyFrom(numpy_helper.from_array(state[name].numpy(), tensor.name))
    content: bytes = model.SerializeToString()
    return content


@torch.no_grad()
def measure(env: str, memory: str) -> list[tuple[str, ...]]:
    """Return the rows of one preset's table."""
    config, policy = preset_policy(env, memory)
    num = config.num_envs // config.num_groups
    steps = config.agent.rollout_length * config.num_groups  # Of one group each.
    inputs = draw_inputs(policy, num, np.random.default_rng(0))
    obs = {name: torch.from_numpy(inputs[name]) for name in policy.specs}
    state, starts = policy.initial_state(num), torch.zeros(num, dtype=torch.bool)
    draws = torch.rand(num, num_draws(policy.action_space))
    model = translate(policy)
    eight = quantize(model, policy, [inputs])
    actor = InferencePolicy(policy, "eager")

    def play(player: Any) -> Callable[[], Any]:
        return lambda: player.act(obs, state, starts, draws)

    def opened(content: bytes) -> OnnxPolicy:
        return OnnxPolicy(open_session(content), policy.specs, policy.action_space, Path("x.onnx"))

    def requantize() -> None:
        open_session(quantize(model, policy, [inputs]).SerializeToString())

    with single_thread():
        rows = [
            ("PyTorch, eager", timed(play(actor)), timed(actor.take_weights)),
            (
                "ONNX Runtime, float32, weights replaced",
                timed(play(opened(model.SerializeToString()))),
                timed(lambda: opened(replaced(model, policy)), 10),
            ),
            (
                "ONNX Runtime, float32, exported again",
                timed(play(opened(model.SerializeToString()))),
                timed(lambda: opened(translate(policy).SerializeToString()), 1),
            ),
            (
                "ONNX Runtime, int8, quantised again",
                timed(play(opened(eight.SerializeToString()))),
                timed(requantize, 1),
            ),
        ]
    first = rows[0][1] * steps + rows[0][2]
    found: list[tuple[str, ...]] = []
    for name, step, update in rows:
        total = step * steps + update
        figures = (f"{step * 1e6:,.0f}", f"{update * 1e3:,.1f}", f"{total * 1e3:,.0f}")
        found.append((f"{env}, {memory}", str(num), name, *figures, f"{first / total:.2f}x"))
    return found


def main() -> None:
    """Measure the presets, and write the table."""
    parser = argparse.ArgumentParser(description="Time actors in PyTorch and in ONNX Runtime.")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fast_actors.md"))
    out = parser.parse_args().out
    columns = (
        "preset, memory",
        "batch",
        "actor",
        "env step of a group, us",
        "new weights, ms",
        "rollout, ms",
        "against PyTorch",
    )
    rows = [row for env, memory in PRESETS for row in measure(env, memory)]
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]
    text = "# Actors in ONNX Runtime\n\n" + "\n".join(lines) + "\n\n"
    text += (
        "CPU time of one process on one thread: medians. A rollout is its env steps, group by "
        f"group, and one handing-over of new weights; onnx {onnx.__version__}, "
        f"torch {torch.__version__}.\n"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
