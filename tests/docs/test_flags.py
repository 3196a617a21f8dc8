"""Tables of options are read from the output of `--help`."""

from __future__ import annotations

import pytest

from docs import flags
from docs.flags import Flag

HELP = """\
usage: python evaluate.py push [-h] RUN OWNER/NAME [--trust]

╭─ positional arguments ───────────────────────────────────────────────────────╮
│ RUN         A run folder. (required)                                         │
│ OWNER/NAME  The repository on the hub; it is created if it does not exist,   │
│             and updated if it does. (required)                               │
╰──────────────────────────────────────────────────────────────────────────────╯
╭─ options ────────────────────────────────────────────────────────────────────╮
│ -h, --help  show this help message and exit                                  │
│ --overlap, --no-overlap                                                      │
│             Collect during an update. (default: False)                       │
│ --eval-every {None}|INT                                                      │
│             Env steps between evaluations. (default: None)                   │
╰──────────────────────────────────────────────────────────────────────────────╯
╭─ contrastive options ────────────────────────────────────────────────────────╮
│ Contrastive learning.                                                        │
│ ──────────────────────────────────────────────────────────────────────────── │
│ --contrastive.coef FLOAT  Weight of the loss. (default: 0.1)                 │
╰──────────────────────────────────────────────────────────────────────────────╯
"""


def test_every_positional_argument_is_read():
    described = "The repository on the hub; it is created if it does not exist, and updated if it"
    assert flags.read_help(HELP)["positional arguments"] == [
        Flag(("RUN",), "", "required", "A run folder."),
        Flag(("OWNER/NAME",), "", "required", f"{described} does."),
    ]


def test_options_are_read_with_value_and_default():
    assert flags.read_help(HELP)["options"] == [
        Flag(("--overlap", "--no-overlap"), "", "False", "Collect during an update."),
        Flag(("--eval-every",), "INT", "None", "Env steps between evaluations."),
    ]


def test_names_of_options_may_have_dots():
    (option,) = flags.read_help(HELP)["contrastive"]
    assert option == Flag(("--contrastive.coef",), "FLOAT", "0.1", "Weight of the loss.")


def test_push_has_a_row_for_each_argument():
    table = flags.table("evaluate", ["push", "--help"], "positional arguments")
    assert [row.split(" | ")[0] for row in table.splitlines()[2:]] == ["| `RUN`", "| `OWNER/NAME`"]


def test_a_group_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"no group world .* env"):
        flags.table("train", ["basic", "--help"], "world")


def test_every_mark_of_a_table_is_found():
    """Also of groups whose names have hyphens: a table that is not found would stay empty."""
    for page in flags.DOCS.rglob("*.md"):
        text = page.read_text()
        assert text.count("<!-- python ") == len(flags._TABLE.findall(text)), page
