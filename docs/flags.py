"""Write the tables of flags in these pages, from what `--help` says.

    python -m docs.flags

A table stands between `<!-- python train.py basic --help -->` and `<!-- end -->`; with `: learning`
before the first arrow it is that group's alone. `tests/test_docs.py` says where one is out of date.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parent
_TABLE = re.compile(
    r"(?P<begin><!-- python (?P<program>\w+)\.py (?P<arguments>[^:>]*--help)(: (?P<group>[\w.]+))? "
    r"-->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)


class Flag(NamedTuple):
    """A line of `--help`.

    Attributes:
        names: how it is given, as in `--overlap` and `--no-overlap`.
        value: what follows it, in capitals or as choices; empty if nothing does.
        default: its default.
        text: what it means.
    """

    names: tuple[str, ...]
    value: str
    default: str
    text: str


def help_of(program: str, arguments: Sequence[str]) -> str:
    """Give what `python PROGRAM.py ARGUMENTS` prints; they end in `--help`."""
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
    """Read the flags of each group from what `--help` printed."""
    groups: dict[str, list[Flag]] = {}
    items: list[str] = []
    for line in text.splitlines():
        if title := re.match(r"╭─ (.+?) ─+", line):
            name = title.group(1).removesuffix(" options")
            groups[name], items = [], []
        elif line.startswith("│") and groups:
            content = line.strip("│").strip()
            if content.startswith("--") or (name == "positional arguments" and not items):
                items.append(content)
            elif items:
                items[-1] += ("  " if "  " not in items[-1] else " ") + content
        elif line.startswith("╰") and items:
            groups[name] = [_flag(item) for item in items]
    return {name: flags for name, flags in groups.items() if flags}


def _flag(item: str) -> Flag:
    given, _, text = item.partition("  ")
    text = text.strip()
    default = re.search(r" ?\((?:default: )?([^()]*)\)$", text)
    names = tuple(re.findall(r"--[\w-]+", given)) or (given,)
    value = given.rpartition(names[-1])[2].strip().removeprefix("{None}|")
    return Flag(
        names,
        value,
        default.group(1) if default else "",
        text[: default.start()] if default else text,
    )


def table(program: str, arguments: Sequence[str], group: str | None) -> str:
    """Give the flags of a command, or of one group of them, as Markdown."""
    lines: list[str] = []
    for name, flags in read_help(help_of(program, arguments)).items():
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
    """Give a page's text with its tables as they should be."""

    def renewed(match: re.Match[str]) -> str:
        content = table(match["program"], match["arguments"].split(), match["group"])
        return f"{match['begin']}\n{content}\n\n{match['end']}"

    return _TABLE.sub(renewed, text)


def main() -> None:
    """Rewrite every table."""
    for page in sorted(DOCS.rglob("*.md")):
        before = page.read_text()
        if (after := rewritten(before)) != before:
            page.write_text(after)
            print(f"{page.relative_to(DOCS.parent)} has new flags")


if __name__ == "__main__":
    main()
