"""Write the tables of options in the documentation, from the output of `--help`.

    python -m docs.flags

A table is between `<!-- python train.py basic --help -->` and `<!-- end -->`. With the name of a
group, as in `<!-- python train.py basic --help: agent -->`, it contains only the options of that
group. `tests/test_docs.py` fails if a table is out of date.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parent
_POSITIONAL = "positional arguments"
_TABLE = re.compile(
    r"(?P<begin><!-- python (?P<program>\w+)\.py (?P<arguments>[^>]*?--help)"
    r"(: (?P<group>[\w.-]+?))? -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)


class Flag(NamedTuple):
    """An option or a positional argument in the output of `--help`.

    Attributes:
        names: its names, as in `--overlap` and `--no-overlap`; one name if it is positional.
        value: its value, in capitals or as choices; empty if it takes none.
        default: its default.
        text: its description.
    """

    names: tuple[str, ...]
    value: str
    default: str
    text: str


@functools.cache
def help_of(program: str, *arguments: str) -> str:
    """Return what `python PROGRAM.py ARGUMENTS` prints; the last argument is `--help`."""
    main: Callable[[Sequence[str]], int] = importlib.import_module(program).main
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main(arguments)
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    printed.seek(0)
    return printed.read()


def read_help(text: str) -> dict[str, list[Flag]]:
    """Return the options of each group in the output of `--help`.

    Args:
        text: the output.

    Returns:
        Options by the name of their group, without groups that have none.
    """
    groups: dict[str, list[Flag]] = {}
    name, items = "", list[str]()
    for line in text.splitlines():
        if title := re.match(r"╭─ (.+?) ─+", line):
            name, items = title.group(1).removesuffix(" options"), []
        elif line.startswith("│"):
            content = line.strip("│").strip()
            # Descriptions of positional arguments are indented, their names are not.
            is_positional = name == _POSITIONAL and not line.startswith("│  ")
            if line.startswith("│ --") or is_positional:
                items.append(content)
            elif items:
                items[-1] += ("  " if "  " not in items[-1] else " ") + content
        elif line.startswith("╰") and items:
            groups[name] = [_flag(item) for item in items]
    return groups


def _flag(item: str) -> Flag:
    given, _, text = item.partition("  ")
    text = text.strip()
    default = re.search(r" ?\((?:default: )?([^()]*)\)$", text)
    names = tuple(re.findall(r"--[\w.-]+", given)) or (given,)
    value = given.rpartition(names[-1])[2].strip().removeprefix("{None}|")
    return Flag(
        names,
        value,
        default.group(1) if default else "",
        text[: default.start()] if default else text,
    )


def table(program: str, arguments: Sequence[str], group: str | None) -> str:
    """Return the options of a command, or of one of its groups, as a Markdown table.

    Args:
        program: name of the program, without `.py`.
        arguments: its arguments, the last of which is `--help`.
        group: name of the group. None: all groups.

    Raises:
        ValueError: If there is no such group.
    """
    groups = read_help(help_of(program, *arguments))
    if group is not None and group not in groups:
        raise ValueError(f"there is no group {group} of options; choose from {', '.join(groups)}")
    lines: list[str] = []
    for name, flags in groups.items():
        if group not in (None, name):
            continue
        lines += [_row(flag) for flag in flags]
    return "\n".join(["| flag | default | meaning |", "| --- | --- | --- |", *lines])


def _row(flag: Flag) -> str:
    given = ", ".join(f"`{name}`" for name in flag.names)
    if flag.value:
        given = f"`{flag.names[0]} {flag.value}`"
    cells = [given, flag.default and f"`{flag.default}`", flag.text]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def rewritten(text: str) -> str:
    """Return a page's text with up-to-date tables."""

    def renewed(match: re.Match[str]) -> str:
        content = table(match["program"], match["arguments"].split(), match["group"])
        return f"{match['begin']}\n{content}\n\n{match['end']}"

    return _TABLE.sub(renewed, text)


def main() -> None:
    """Update every table."""
    for page in sorted(DOCS.rglob("*.md")):
        before = page.read_text()
        if (after := rewritten(before)) != before:
            page.write_text(after)
            print(f"{page.relative_to(DOCS.parent)}: tables updated")


if __name__ == "__main__":
    main()
