"""What the scripts of random stepping share: the fastest of a few settings, its speed, the output.

Uses only the standard library.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

FRAME_SKIP = 4
_WARM_UP_SECONDS = 2.0
_TRIAL_SECONDS = 3.0


def batches_per_second(step: Callable[[int], object], seconds: float) -> float:
    """Call `step` with the number of each batch, and return the rate after a warm-up."""
    began = marked = time.perf_counter()
    batches, before = 0, 0
    while (now := time.perf_counter()) - began < _WARM_UP_SECONDS + seconds:
        if before == 0 and now - began >= _WARM_UP_SECONDS:
            marked, before = now, batches
        step(batches)
        batches += 1
    return (batches - before) / (now - marked)


def report(
    peer: str,
    distribution: str,
    env: str,
    num_envs: int,
    choices: Sequence[dict[str, int]],
    measure: Callable[..., float],
    seconds: float,
    settings: dict[str, object],
) -> None:
    """Measure the fastest choice, and print a line of JSON.

    Args:
        peer: its name.
        distribution: the name of the package that it was installed from.
        env: the scenario.
        num_envs: number of environments.
        choices: settings to try, briefly, if there are several.
        measure: returns env steps a second, given `seconds` and a choice as keyword arguments.
        seconds: length of the measurement.
        settings: what else is reported.
    """
    choice = choices[0]
    if len(choices) > 1:
        rates = [measure(seconds=_TRIAL_SECONDS, **each) for each in choices]
        for each, rate in zip(choices, rates, strict=True):
            print(each, round(rate, 1), flush=True)
        choice = choices[rates.index(max(rates))]
    rate = measure(seconds=seconds, **choice)
    result = {
        "peer": peer,
        "version": version(distribution),
        "env": env,
        "num_envs": num_envs,
        "settings": {**choice, "frame_skip": FRAME_SKIP, **settings, "actions": "random"},
        "env_steps_per_s": round(rate, 1),
    }
    print(json.dumps(result), flush=True)
