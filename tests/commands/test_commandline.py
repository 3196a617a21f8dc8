"""Tests of `commands.commandline`."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
import tyro

from agents import AGENTS, OBJECTIVES, AgentError
from agents.extras import MissingExtraError
from agents.objectives import VariablesConfig
from commands import commandline
from commands.commandline import (
    UsageError,
    as_arguments,
    execute,
    expand_home,
    given_fields,
    given_values,
    join_repeated,
    parse,
    run,
    user_errors,
)
from deploy.errors import DeployError
from envs import EnvError
from evaluation.errors import EvaluationError
from perception import ENCODERS, MEMORIES, PerceptionError
from perception.lookup import UnknownNameError
from storage.files import DamagedError, FileError
from training.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class Inner:
    """The inner part."""

    kind: Literal["none", "lstm"] = "none"
    """Its kind."""
    size: int = 3
    """Its size."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """Objectives, whose flags are dotted."""

    variables: VariablesConfig = field(default_factory=VariablesConfig)


@dataclass(frozen=True, kw_only=True)
class Outer:
    """The whole."""

    inner: Annotated[Inner, tyro.conf.OmitArgPrefixes] = field(default_factory=Inner)
    objectives: Annotated[Objectives, tyro.conf.arg(name="")] = field(default_factory=Objectives)
    pair: tuple[int, int] = (1, 2)
    """Two numbers."""
    learning_rate: float = 0.1
    """The rate."""
    limit: int | None = None
    """The limit."""
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
        (["--lerning-rate", "1"], "prog has no --lerning-rate; did you mean --learning-rate?"),
        (["--learning-rat", "1"], "prog has no --learning-rat; did you mean --learning-rate?"),
        (["--sise", "1"], "prog has no --sise; did you mean --size?"),
        (["--lr", "1"], "prog has no --lr; did you mean --learning-rate?"),
        (["--alpha", "1"], "prog has no --alpha; did you mean --learning-rate?"),
        (["--xyzzy"], "prog has no --xyzzy; see prog --help"),
        (["--size", "three"], "--size: 'three' is not a whole number"),
        (["--limit", "three"], "--limit: 'three' is neither None nor a whole number"),
        (["--learning-rate", "low"], "--learning-rate: 'low' is not a number"),
        (["--size"], "--size needs a value"),
        (["--pair", "1"], "--pair needs 2 values"),
        (["--kind", "gru"], "--kind cannot be 'gru'; choose from 'none', 'lstm'"),
        (["--size", "0"], "size must be at least 1, got 0"),
        (["--variables.coef", "-1"], "variables.coef must not be negative, got -1.0"),
        (["stray"], "prog cannot use 'stray'; see prog --help"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_one_line_that_says_what_would_work(capfd, words, expected):
    with pytest.raises(UsageError) as error:
        parse_words(*words)
    assert str(error.value) == expected
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_line_is_the_same_where_a_terminal_has_no_boxes(monkeypatch, encoding):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    for words, kind, expected in (
        (["--size", "0"], Outer, "size must be at least 1, got 0"),
        (["--lerning-rate", "1"], Outer, "p has no --lerning-rate; did you mean --learning-rate?"),
        (["lift"], SIDES, "p has no command 'lift'; choose from left, right"),
        ([], SIDES, "name a command; choose from left, right"),
        (["right", "--step", "3"], SIDES, "p has no --step; did you mean --steps?"),
        (["left", "--steps", "3"], SIDES, "p left has no --steps; see p left --help"),
    ):
        with pytest.raises(UsageError) as error:
            parse(kind, words, program="p")
        assert str(error.value) == expected


@pytest.mark.parametrize(
    ("text", "number"), [("3", 3), ("1e3", 1000), ("1.5E+3", 1500), ("10_000", 10_000), ("2e0", 2)]
)
def test_whole_numbers_may_have_an_exponent(text, number):
    @dataclass(frozen=True, kw_only=True)
    class Counted:
        count: int | None = None
        sizes: tuple[int, ...] = ()

    counted = parse_words("--count", text, "--sizes", text, "7", kind=Counted)
    assert counted == Counted(count=number, sizes=(number, 7))


def test_what_is_missing_is_named():
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
        """What is run."""

    with pytest.raises(UsageError, match=r"^prog needs RUN; see prog --help$"):
        parse_words(kind=Needy)


def test_help_is_printed_and_ends_well(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_words("--help")
    assert not stop.value.code
    assert "The rate." in capsys.readouterr().out


def run_with(monkeypatch, program, *words):
    monkeypatch.setattr(sys, "argv", ["prog", *words])
    return run(program)


def test_descriptions_of_options_are_for_users():
    registries = {**AGENTS, **OBJECTIVES, **ENCODERS, **MEMORIES}
    for config, _ in registries.values():
        # `--help` prints the whole docstring above the options.
        assert not re.search(r"^\s*\w+:$", config.__doc__ or "", re.MULTILINE), config


def test_a_program_gets_its_arguments_and_its_status_is_returned(monkeypatch):
    assert run_with(monkeypatch, len, "a", "b", "c") == 3


@pytest.mark.parametrize(
    "kind",
    [
        UsageError,
        AgentError,
        DamagedError,
        DeployError,
        EnvError,
        EvaluationError,
        FileError,
        MissingExtraError,
        PerceptionError,
        TrainingError,
        UnknownNameError,
    ],
)
def test_a_users_error_is_one_line_and_status_2(monkeypatch, capsys, kind):
    def program(words):
        raise kind(f"no {words[0]} here")

    assert issubclass(kind, user_errors())
    assert run_with(monkeypatch, program, "dragons") == 2
    assert capsys.readouterr() == ("", "error: no dragons here\n")


def test_a_reader_of_the_output_may_leave(monkeypatch):
    def program(words):
        raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", sys.stdout)
    assert run_with(monkeypatch, program) == 0
    sys.stdout.close()


def test_an_error_of_ours_is_not_hidden(monkeypatch):
    def program(words):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_with(monkeypatch, program)


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


def test_values_given_for_a_flag_are_found_however_they_are_written():
    arguments = ["basic", "--objectives", "a", "b", "--agent=ppo", "--memory", "lstm", "--fresh"]
    assert given_values(arguments, "objectives") == ["a", "b"]
    assert given_values(arguments, "agent") == ["ppo"]
    assert given_values(arguments, "memory") == ["lstm"]
    assert given_values(arguments, "fresh") == []
    assert given_values(arguments, "encoder") == []
    # The last one counts.
    assert given_values(["--agent", "a2c", "--agent", "ppo"], "agent") == ["ppo"]
    assert given_values(["--agent", "a2c", "--agent=ppo"], "agent") == ["ppo"]


def test_flags_of_objectives_are_dotted():
    config = Outer(objectives=Objectives(variables=VariablesConfig(names=("HEALTH", "AMMO2"))))
    arguments = as_arguments(config, Outer())
    assert arguments == ["--variables.names", "HEALTH", "AMMO2"]
    assert parse_words(*arguments) == config


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        ("E --wrappers 1 2 --n 3", "E --wrappers 1 2 --n 3"),
        ("E --wrappers 1 --n 3 --wrappers 2", "E --wrappers 1 2 --n 3"),
        (
            "E --env-kwargs=a=1 --env-kwargs=b=-2 --import x --env-kwargs c=3",
            "E --env-kwargs a=1 b=-2 c=3 --import x",
        ),
        ("E --wrappers --n 3", "E --wrappers --n 3"),
        ("E --n 3 --n 4", "E --n 3 --n 4"),
        ("E --wrappers 1 -h 2", "E --wrappers 1 -h 2"),
    ],
)
def test_flags_of_several_values_may_be_repeated(given, joined):
    assert join_repeated(given.split()) == joined.split()


def test_an_error_of_the_disk_is_one_line_and_status_2(monkeypatch, capsys, tmp_path):
    def program(words):
        (tmp_path / "a\nb").write_text("")
        (tmp_path / "a\nb" / "c").write_text("")

    assert run_with(monkeypatch, program) == 2
    assert capsys.readouterr() == ("", f"error: {tmp_path}/a\\nb/c: Not a directory\n")


def test_an_error_of_the_system_that_names_no_file_is_not_hidden(monkeypatch):
    def program(words):
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        run_with(monkeypatch, program)


def test_errors_are_printed_without_escape_sequences(monkeypatch, capsys):
    def program(words):
        raise FileError("\x1b]0;title\x07 \ud800\nerror: none")

    assert run_with(monkeypatch, program) == 2
    assert capsys.readouterr().err == r"error: \x1b]0;title\x07 \ud800\nerror: none" + "\n"


def test_a_tilde_is_the_home_folder_wherever_shells_leave_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = [
        "~/mine.cfg",
        "--run-dir=~/x",
        "--out",
        "~",
        "a~/b",
        "--x=a~",
        "~nobody-of-that-name/x",
    ]
    assert expand_home(given) == [
        "/home/me/mine.cfg",
        "--run-dir=/home/me/x",
        "--out",
        "/home/me",
        "a~/b",
        "--x=a~",
        "~nobody-of-that-name/x",
    ]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_whatever_is_printed_fits_a_terminal_without_utf_8(monkeypatch, encoding):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding, newline=""))

    def program(words):
        print("run-中·\udcfc", flush=True)  # Libraries print too.
        return 0

    assert run_with(monkeypatch, program) == 0
    assert buffer.getvalue().decode("ascii", "replace").startswith(r"run-\u4e2d")


def execute_with(monkeypatch, program, error=None):
    """Return the exit status of a program to whose output an error happens."""
    monkeypatch.setattr(sys, "argv", ["program"])
    monkeypatch.setattr(commandline, "lost_output", lambda: error)
    monkeypatch.setattr(commandline, "protect_streams", lambda *, drops_output: None)
    with pytest.raises(SystemExit) as ended:
        execute(program)
    return ended.value.code


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (errno.EPIPE, 0, ""),
        (errno.ETIMEDOUT, 0, ""),
        (errno.ENOSPC, 1, "error: output could not be written (No space left on device)\n"),
    ],
)
def test_output_that_cannot_be_written_is_an_error_unless_nobody_reads_it(
    capsys, monkeypatch, number, status, said
):
    error = OSError(number, os.strerror(number))
    assert execute_with(monkeypatch, lambda words: 0, error) == status
    assert capsys.readouterr() == ("", said)
    assert execute_with(monkeypatch, lambda words: 3, error) == 3


def test_an_interrupted_program_ends_without_a_traceback(monkeypatch):
    def program(words):
        raise KeyboardInterrupt

    assert run_with(monkeypatch, program) == 130
