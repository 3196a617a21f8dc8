"""Tests of `agents.commandline`."""

from __future__ import annotations

import io
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
import tyro

from agents.commandline import (
    UsageError,
    as_arguments,
    given_fields,
    import_extra,
    parse,
    run,
    until_interrupted,
    with_fields,
)
from agents.ppo import PPOConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    """What is inside."""

    kind: Literal["none", "lstm"] = "none"
    """Which."""
    size: int = 3
    """How large."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    """What is outside."""

    inner: Inner = field(default_factory=Inner)
    learning_rate: float = 0.1
    """How fast."""
    limit: int | None = None
    """How many."""
    fresh: bool = False
    """Whether to start over."""


@dataclass(frozen=True)
class Left:
    """Goes left."""


@dataclass(frozen=True)
class Right:
    """Goes right."""

    steps: int = 1


SIDES = (
    Annotated[Left, tyro.conf.subcommand("left")] | Annotated[Right, tyro.conf.subcommand("right")]
)


def parse_words(*words, kind=Outer, default=None):
    return parse(kind, words, program="prog", default=default)


def test_flags_are_fields_without_prefixes():
    assert parse_words() == Outer()
    config = parse_words("--kind", "lstm", "--size=5", "--learning-rate", "1e-3", "--limit", "7")
    assert config == Outer(inner=Inner(kind="lstm", size=5), learning_rate=1e-3, limit=7)
    assert parse_words("--fresh").fresh
    assert parse_words("--limit", "None").limit is None


def test_defaults_lie_under_the_flags():
    default = Outer(inner=Inner(size=9), learning_rate=0.5)
    config = parse_words("--learning-rate", "0.2", default=default)
    assert config == Outer(inner=Inner(size=9), learning_rate=0.2)


def test_subcommands_are_parsed():
    assert parse_words("left", kind=SIDES) == Left()
    assert parse_words("right", "--steps", "3", kind=SIDES) == Right(steps=3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--lerning-rate", "1"], ["--lerning-rate", "did you mean --learning-rate?"]),
        (["--sise", "1"], ["--sise", "did you mean --size?"]),
        (["--xyzzy"], ["--xyzzy"]),
        (["--size", "three"], ["--size", "three"]),
        (["--size"], ["--size"]),
        (["--kind", "gru"], ["gru", "none", "lstm"]),
        (["--size", "0"], ["size must be at least 1, got 0"]),
        (["stray"], ["stray"]),
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_one_line_that_says_what_would_work(capfd, words, expected):
    with pytest.raises(UsageError) as error:
        parse_words(*words)
    message = str(error.value)
    assert "\n" not in message
    assert not set("│╭╰─") & set(message)
    assert "  " not in message
    for word in expected:
        assert word in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_line_is_the_same_where_a_terminal_has_no_boxes(monkeypatch, encoding):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    for words, kind, expected in (
        (["--size", "0"], Outer, "Error parsing inner: size must be at least 1, got 0"),
        (["lift"], SIDES, "Unrecognized options: lift; there are left, right"),
    ):
        with pytest.raises(UsageError) as error:
            parse_words(*words, kind=kind)
        assert str(error.value) == expected


def test_an_unknown_subcommand_is_refused_with_those_there_are():
    with pytest.raises(UsageError) as error:
        parse_words("lift", kind=SIDES)
    assert "left" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_missing_is_named():
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
        """What to run."""

    with pytest.raises(UsageError, match=r"^prog needs RUN; prog --help tells more$"):
        parse_words(kind=Needy)


def test_help_is_printed_and_ends_well(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_words("--help")
    assert not stop.value.code
    assert "How fast." in capsys.readouterr().out


def test_fields_are_replaced_wherever_they_are():
    config = with_fields(Outer(), {"size": 8, "limit": 4, "unknown": 1})
    assert config == Outer(inner=Inner(size=8), limit=4)
    assert with_fields(Outer(limit=4), {"limit": None}).limit is None
    assert with_fields(Outer(), {}) == Outer()


def test_replaced_fields_are_checked():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        with_fields(Outer(), {"size": 0})
    with pytest.raises(ValueError, match="gamma must be between 0 and 1"):
        with_fields(PPOConfig(), {"gamma": 2.0})


def run_with(monkeypatch, program, *words):
    monkeypatch.setattr(sys, "argv", ["prog", *words])
    return run(program, (UsageError,))


def test_a_program_gets_its_arguments_and_gives_its_status(monkeypatch):
    assert run_with(monkeypatch, len, "a", "b", "c") == 3


def test_a_users_error_is_one_line_and_status_2(monkeypatch, capsys):
    def program(words):
        raise UsageError(f"no {words[0]} here")

    assert run_with(monkeypatch, program, "dragons") == 2
    assert capsys.readouterr() == ("", "error: no dragons here\n")


def test_an_error_of_ours_is_not_hidden(monkeypatch):
    def program(words):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_with(monkeypatch, program)


def test_signals_are_collected_and_handlers_put_back(capsys):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with until_interrupted() as received:
        assert received == []
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGTERM, signal.SIGINT]
        # A second one of the same kind ends the program at once.
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert "once more to stop at once" in capsys.readouterr().err


def test_what_an_extra_installs_is_imported_or_named():
    assert import_extra("json.decoder", "export").JSONDecoder
    with pytest.raises(UsageError, match=r'^nowhere is not .*; pip install -e "\.\[export\]"$'):
        import_extra("nowhere.at.all", "export")


OTHER = Outer(inner=Inner(kind="lstm"), learning_rate=1.25e-05, limit=3, fresh=True)


@pytest.mark.parametrize(("config", "default"), [(OTHER, Outer()), (Outer(), OTHER)])
def test_flags_lead_from_the_default_to_a_configuration(config, default):
    arguments = as_arguments(config, default)
    assert parse(Outer, arguments, program="p", default=default) == config


def test_only_what_differs_is_a_flag_unless_it_is_asked_for():
    assert as_arguments(Outer(limit=3), Outer()) == ["--limit", "3"]
    assert as_arguments(Outer(), Outer()) == []
    assert as_arguments(Outer(), Outer(), always=("fresh", "size")) == ["--size", "3", "--no-fresh"]


def test_fields_given_as_flags_are_found_however_they_are_written():
    arguments = ["basic", "--learning-rate", "3", "--num_envs=4", "--no-record", "--fresh"]
    assert given_fields(arguments) == {"learning_rate", "num_envs", "record", "fresh"}
    assert given_fields(["basic", "-h"]) == set()
