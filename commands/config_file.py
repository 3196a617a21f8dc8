"""YAML files of flags and their values: `python train.py --config FILE`.

Keys are flags without their hyphens, and `env`:

    env: basic
    memory: lstm
    learning-rate: 3e-4
    conv-channels: [16, 32, 32]
    overlap: true
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from commands.commandline import UsageError, as_flag, flag_values, given_fields, given_values

_LARGEST = 2**20  # bytes
_ONCE = ("fresh", "autotune")


def with_config_file(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the flags of the file that its `--config` names.

    Flags that are on the command line are not taken from the file.

    Args:
        arguments: the command line; its first argument is the environment if it is not a flag.

    Raises:
        UsageError: If the file cannot be read, or does not contain flags and values.
    """
    if not (files := given_values(arguments, "config")):
        return list(arguments)
    values = _read(Path(files[0]).expanduser())
    given = given_fields(arguments)
    flags: list[str] = []
    env = values.pop("env", None)
    for name, value in values.items():
        if name.replace("-", "_") not in given and value != ():
            flags += as_flag(name, value)
    if arguments and not arguments[0].startswith("-"):
        return [arguments[0], *flags, *arguments[1:]]
    return [*([] if env is None else [str(env)]), *flags, *arguments]


def as_yaml(env: str, *configs: Any) -> str:
    """Return the content of a file with all values of some configurations.

    Args:
        env: the environment.
        *configs: dataclasses.
    """
    values: dict[str, Any] = {"env": env}
    for config in configs:
        values |= flag_values(config)
    # What is asked of one command only is not repeated; an empty list has no flag.
    kept = {n: v for n, v in values.items() if n not in _ONCE and v != ()}
    return msgspec.yaml.encode(kept, enc_hook=str).decode()


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise UsageError(f"--config {file} is too large; it is a list of flags and values")
        values = msgspec.yaml.decode(content, type=dict[str, Any])
    except OSError as error:
        raise UsageError(f"--config {file} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"--config {file} is not YAML of flags and values, as in learning-rate: 3e-4 ({reason})"
        ) from error
    return dict(_flat(values))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested mappings as one, with dotted names, and lists as tuples."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, tuple(value) if isinstance(value, list) else value
