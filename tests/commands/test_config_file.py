"""Tests of `commands.config_file`."""

from __future__ import annotations

import pytest

import train
from commands.commandline import UsageError
from commands.config_file import with_config_file
from tests.programs import refused, succeed


def read(*arguments):
    return train.read_command_line(with_config_file(arguments)).training


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write(text):
        path = tmp_path / "my config.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_a_file_gives_flags_their_values(file):
    path = file(
        """
        env: basic
        memory: lstm
        objectives: [variables]
        variables: {coef: 0.3}
        learning-rate: 3e-4
        conv_channels: [8, 8, 8]
        target-kl: null
        overlap: true
        record: false
        num-groups: 1
        """
    )
    config = read("--config", path)
    assert config.env.env == "basic"
    assert config.perception.memory_name == "lstm"
    assert config.objective_configs["variables"].coef == 0.3
    assert config.agent.learning_rate == 3e-4
    assert config.perception.encoder.conv_channels == (8, 8, 8)
    assert config.agent.target_kl is None
    assert config.overlap
    assert not config.record
    # The same as the flags themselves.
    flags = "--memory lstm --objectives variables --variables.coef 0.3 --learning-rate 3e-4"
    flags += " --conv-channels 8 8 8 --target-kl None --overlap --no-record --num-groups 1"
    assert config == read("basic", *flags.split())


def test_the_command_line_takes_precedence(file):
    path = file("env: basic\nseed: 3\nmemory: lstm\nrecord: false\n")
    config = read("CartPole-v1", "--seed", "4", "--record", "--config", path)
    assert (config.env.env, config.seed, config.record) == ("CartPole-v1", 4, True)
    assert config.perception.memory_name == "lstm"


@pytest.mark.parametrize(
    "arguments",
    [
        ("basic",),
        ("basic", "--objectives", "variables", "contrastive", "--memory", "lstm"),
        ("CartPole-v1", "--agent", "vtrace", "--no-record", "--seed", "7", "--run-dir", "a b"),
        ("deadly_corridor", "--no-normalize-obs", "--no-anneal-learning-rate"),
        ("deathmatch", "--shaping", "--buttons"),  # Without those of the preset.
        ("maps:arena", "--shaping", "new_places", "damage"),
    ],
    ids=str,
)
def test_a_printed_configuration_is_read_back(file, capsys, arguments):
    succeed(train, *arguments, "--print-config")
    path = file(capsys.readouterr().out)
    assert read("--config", path) == read(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning-rate: 1", "no --lerning-rate; did you mean --learning-rate?"),
        ("- env", "is not YAML of flags and values, as in learning-rate: 3e-4"),
        ("a: [", "is not YAML of flags and values"),
        ("num-envs: many", "--num-envs: 'many' is not a whole number"),
        ("a: &a [1]\nb: *a", "has aliases (*name); write the values themselves"),
        ("fresh: true", "fresh belongs on the command line"),
        ("print_config: true", "print_config belongs on the command line"),
        ('run-dir: "a\\0b"', "'run-dir' has a character that no setting may have"),
        ("\n".join(f"k{i}: 1" for i in range(501)), "has 501 settings; at most 500 are possible"),
        ("x: " + "[" * 1500, "is not YAML of flags and values"),
        ("labels:\n  1: 2", "no --labels.1"),
        ("", "is not YAML of flags and values"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(file, capsys, text, message):
    assert message in refused(capsys, train, "basic", "--config", file(text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file at .*missing.yaml"):
        with_config_file(["basic", "--config", str(tmp_path / "missing.yaml")])
    with pytest.raises(UsageError, match="is not a regular file"):
        with_config_file(["basic", "--config", str(tmp_path)])
