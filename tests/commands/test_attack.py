"""Tests of `commands.attack`."""

from __future__ import annotations

import json
import shutil

import pytest

import evaluate
from commands.attack import AttackOptions
from docs.flags import help_of
from evaluation.protocol import Protocol, native, play, vector_env
from evaluation.robustness import measure
from evaluation.robustness.attacker import ATTACKS
from evaluation.robustness.measure import Measured
from evaluation.robustness.shifts import SHIFTS
from storage.run_folder import find_policy
from tests.evaluation.policies import save_run
from tests.programs import refused, status_of, succeed

OPTIONS = (
    *("--episodes", 1, "--num-envs", 1, "--attacks", "fgsm"),
    *("--epsilons", 0, 2, "--shifts", "none"),
)
CELLS = ["clean", "random", "fgsm 0", "fgsm 2"]


@pytest.fixture(scope="module")
def attacked(doom_run, tmp_path_factory):
    """A copy of the shared run, attacked."""
    folder = tmp_path_factory.mktemp("attacked") / "run"
    shutil.copytree(doom_run, folder)
    succeed(evaluate, "attack", folder, *OPTIONS, "--replay", "--json", folder / "rows.json")
    return folder


@pytest.fixture
def copied(attacked, tmp_path):
    """A copy of the attacked run."""
    shutil.copytree(attacked, tmp_path / "run")
    return tmp_path / "run"


def cells_of(folder):
    return json.loads((folder / "attack.json").read_text())["cells"]


def test_without_a_change_the_episodes_are_those_of_score(attacked):
    cells = cells_of(attacked)
    assert list(cells) == CELLS
    file, _ = find_policy(attacked)
    config, protocol = native(file, attacked, trust=False), Protocol(episodes=1, num_envs=1)
    with vector_env(config, 1, 1) as envs:
        scored = [episode.episode_return for episode in play(file, envs, protocol)]
    for name in ("clean", "fgsm 0"):
        assert cells[name]["returns"] == scored
    assert cells["fgsm 0"]["effect"] == {"distance": 0.0, "changed": 0.0, "value": 0.0}
    assert cells["fgsm 2"]["effect"]["distance"] > 0


def test_a_table_a_picture_a_page_and_numbers_are_written(attacked):
    rows = json.loads((attacked / "rows.json").read_text())
    assert rows["mode"] == "sampled"
    assert [row["change"] for row in rows["rows"]] == [key.split()[0] for key in CELLS]
    assert (attacked / "attack.png").read_bytes()[:4] == b"\x89PNG"
    table = (attacked / "attack.md").read_text()
    for words in (
        "| fgsm | 2 |",
        "Protocol: 1 episode at",
        "![return against epsilon](attack.png)",
    ):
        assert words in table
    page = (attacked / "attack.html").read_text()
    assert "fgsm, epsilon 2/255" in page


def test_what_is_finished_is_not_played_again(copied, capsys, monkeypatch):
    written = (copied / "attack.json").read_bytes()

    def refuse(*_):
        raise AssertionError("nothing is left to play")

    monkeypatch.setattr(measure, "vector_env", refuse)
    capsys.readouterr()
    succeed(evaluate, "attack", copied, *OPTIONS)
    assert f"{copied}: 4 results are kept from an earlier command" in capsys.readouterr().out
    assert (copied / "attack.json").read_bytes() == written


def test_what_an_interruption_left_out_is_played(copied, monkeypatch):
    content = json.loads((copied / "attack.json").read_text())
    for key in ("random", "fgsm 2"):
        del content["cells"][key]
    (copied / "attack.json").write_text(json.dumps(content))
    seen = []

    def fake(cell, contestant, plan, envs):
        seen.append(cell.key)
        if cell.key == "fgsm 2":
            raise KeyboardInterrupt
        return Measured(returns=[1.0], length=4.0, seconds=0.0)

    monkeypatch.setattr(measure, "_measure", fake)
    assert status_of(evaluate, "attack", copied, *OPTIONS) != 0
    assert seen == ["random", "fgsm 2"]
    assert set(cells_of(copied)) == set(CELLS) - {"fgsm 2"}
    assert cells_of(copied)["random"]["returns"] == [1.0]
    assert not list(copied.glob(".doomgrad-*"))


def test_greedy_actions_are_other_results(copied, monkeypatch):
    seen = []

    def fake(cell, contestant, plan, envs):
        seen.append(cell.key)
        return Measured(returns=[float(len(seen))], length=4.0, seconds=0.0)

    monkeypatch.setattr(measure, "_measure", fake)
    succeed(evaluate, "attack", copied, *OPTIONS, "--greedy")
    assert seen == CELLS


def test_bad_input_gets_one_line(capsys, cartpole_run, doom_run, tmp_path):
    other = save_run(tmp_path / "other")
    for arguments, expected in (
        ([cartpole_run], "observes no images, and attacks change pixels; name a policy that sees"),
        ([doom_run, "--attacks", "pgd"], "there is no 'pgd'; choose from uniform_noise, sign"),
        ([doom_run, "--shifts", "dark"], "there is no 'dark'; choose from darker, brighter"),
        ([doom_run, "--attacks", "transfer"], "name one with --from RUN"),
        ([doom_run, "--from", other], "--from has other observations or actions than"),
        ([doom_run, other], "name policies of one environment, not of basic, CartPole-v1"),
        ([doom_run, "--epsilons", "-1"], "epsilons must be between 0 and 255, got -1"),
        ([doom_run, "--epsilons", "1", "1"], "epsilons lists a number twice"),
        ([doom_run, "--attacks", "none", "--replay"], "replay shows an attack"),
        (["nowhere"], "there is no run at nowhere"),
    ):
        assert expected in refused(capsys, evaluate, "attack", *arguments), arguments
    assert not (doom_run / "attack.json").exists()


def test_the_help_names_all_attacks_and_shifts():
    text = " ".join(help_of("evaluate", "attack", "--help").replace("│", " ").split())
    assert f"Attacks: {', '.join(ATTACKS)}; or none." in text
    assert f"Natural shifts: {', '.join(SHIFTS)}; or none." in text
    assert AttackOptions(runs=("x",)).epsilons == (0.5, 1.0, 2.0, 3.0, 8.0)
