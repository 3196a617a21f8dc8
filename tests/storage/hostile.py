"""Values that a stranger may write into the JSON of a file, and where they can be put."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MOST_MEMORY = 50 * 2**20

VALUES = [
    *(None, True, -1, 0, 1, 2**20, 2**31, 2**62, 2**64, 10**400, 1.5, float("nan"), float("inf")),
    *("", "x", "a\0.cfg", "\ud800.wad", "\x1b[2J\n"),
    *([], [[]], [-1], ["x"], [2**40], [float("inf")], [1] * 100_000, [2**20] * 3),
    *({}, {"name": "x"}, {"a": {"b": {}}}, {"kind": "box", "sizes": [2**28]}),
]
"""From plain to hostile; JSON can hold all of them."""


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of everything in nested dictionaries and short lists."""
    if path:
        yield path
    items: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list) and len(value) < 10:
        items = enumerate(value)
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def put(content: Any, path: tuple[Any, ...], value: Any) -> None:
    """Replace what is at a path."""
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


@contextmanager
def refused_or_harmless(*refusals: type[Exception]) -> Iterator[None]:
    """Check that a file is read, or refused with a short message, in little memory and time."""
    before, started = _peak_memory(), time.monotonic()
    said = ""
    try:
        yield
    except refusals as error:
        said = str(error)
    assert len(said) < 600
    assert _peak_memory() - before < MOST_MEMORY
    assert time.monotonic() - started < 5


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
