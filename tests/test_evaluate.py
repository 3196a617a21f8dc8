"""The evaluation commands, as a user runs them."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

import evaluate
import train
from agents.commandline import run
from evaluation.episodes import load_recording, save_recording
from tests.agents.files import rewrite
from tests.evaluation.policies import save_run

ROOT = Path(__file__).parent.parent


def succeed(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    assert run(evaluate.main, evaluate.USER_ERRORS) == 0


def refused(capsys, monkeypatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    assert run(evaluate.main, evaluate.USER_ERRORS) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def tiny_run(folder: Path, *arguments: str) -> Path:
    tiny = ["--num-envs", "4", "--rollout-length", "16", "--total-env-steps", "128"]
    tiny += ["--eval-episodes", "2", "--eval-every", "128", "--run-dir", str(folder)]
    assert train.main([*arguments, *tiny]) == 0
    return folder


@pytest.fixture(scope="module")
def doom_run(tmp_path_factory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("doom"), "basic", "--memory", "gru")


@pytest.fixture(scope="module")
def cartpole_run(tmp_path_factory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("cartpole"), "CartPole-v1")


def test_score_stands_beside_noop_random_and_the_reference(doom_run, monkeypatch, capsys):
    succeed(monkeypatch, "score", str(doom_run), "--episodes", "6", "--num-envs", "4")
    table = capsys.readouterr().out
    for word in ("sampled", "greedy", "random", "noop", "reference", "80.40"):
        assert word in table
    result = json.loads((doom_run / "evaluation.json").read_text())
    assert result["protocol"] == {
        **{"episodes": 6, "seeds": [0, 5], "num_envs": 4, "reward": "native", "skill": 5},
        **{"frame_skip": 4, "time_limit_frames": 300},
    }
    assert result["mean"] == result["scores"]["sampled"]["mean"]
    assert result["mean"] == pytest.approx(np.mean(result["returns"]["sampled"]))
    assert result["scores"]["noop"]["mean"] == -300
    # What was scored was recorded, seed by seed.
    recorded = sorted((doom_run / "episodes").glob("score-greedy-*.npz"))
    returns = [load_recording(path).episode.episode_return for path in recorded]
    assert returns == result["returns"]["greedy"]


def test_score_gives_the_same_twice_and_json_where_asked(doom_run, monkeypatch, tmp_path):
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    for path in (first, second):
        options = ("--episodes", "3", "--greedy", "--json", str(path))
        succeed(monkeypatch, "score", str(doom_run / "policy.safetensors"), *options)
    assert first.read_text() == second.read_text()
    assert json.loads(first.read_text())["scores"].keys() == {"greedy", "random", "noop"}


def test_replay_writes_every_frame_of_the_recorded_episode(doom_run, monkeypatch, capsys):
    succeed(monkeypatch, "replay", str(doom_run), "--episode", "last", "--size", "320x240")
    assert "differs" not in capsys.readouterr().out
    with av.open(str(doom_run / "replay.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 320, 240)
        assert float(stream.average_rate) == 35
        frames = sum(1 for _ in video.decode(stream))
    kinds = ("score-sampled-*.npz", "evaluation-*.npz")
    files = next(f for kind in kinds if (f := sorted((doom_run / "episodes").glob(kind))))
    episode = load_recording(files[-1]).episode
    standstill = round(35 * 0.5)
    assert frames <= 4 * len(episode.rewards) + 1 + standstill
    assert frames > 4 * (len(episode.rewards) - 1) + standstill


def test_replay_of_a_policy_file_plays_new_episodes(cartpole_run, monkeypatch, tmp_path):
    out = tmp_path / "video.mp4"
    policy = str(cartpole_run / "policy.safetensors")
    succeed(monkeypatch, "replay", policy, "--out", str(out), "--count", "2", "--no-overlay")
    assert out.stat().st_size > 1000


def test_a_recording_of_training_is_replayed_by_its_name(doom_run, monkeypatch, capsys, tmp_path):
    first = load_recording(doom_run / "episodes" / "training-first.npz").episode
    out = str(tmp_path / "first.gif")
    succeed(monkeypatch, "replay", str(doom_run), "--episode", "training-first", "--out", out)
    assert f"{first.episode_return:,.2f}" in capsys.readouterr().out


def test_a_page_shows_two_policies_on_one_seed(doom_run, monkeypatch, tmp_path):
    out = tmp_path / "page.html"
    against = str(doom_run / "policy.safetensors")
    options = ("--html", "--against", against, "--out", str(out), "--size", "160x120")
    succeed(monkeypatch, "replay", str(doom_run), "--episode", "best", *options)
    content = out.read_text()
    for words in (str(doom_run), against, "sampled", "move left + attack"):
        assert words in content
    assert "http://" not in content.replace("http://www.w3.org", "")
    assert not list(tmp_path.glob(".*"))


def test_a_video_shows_two_policies_side_by_side(doom_run, monkeypatch, tmp_path):
    out = tmp_path / "two.mp4"
    against = str(doom_run / "policy.safetensors")
    options = ("--against", against, "--out", str(out), "--size", "160x120", "--seconds", "1")
    succeed(monkeypatch, "replay", str(doom_run), *options)
    with av.open(str(out)) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (320, 120)


def test_export_writes_beside_the_policy_and_prints_how_far_it_is_from_it(
    doom_run, monkeypatch, capsys
):
    succeed(monkeypatch, "export", str(doom_run))
    written = doom_run / "policy.onnx"
    printed = capsys.readouterr().out
    assert f"{written}: {written.stat().st_size:,} bytes" in printed
    assert "at batches of 1, 2, 7: greedy_actions 0.0e+00, probabilities" in printed
    nowhere = str(written / "policy.onnx")
    refusal = refused(capsys, monkeypatch, "export", str(doom_run), "--onnx", nowhere)
    assert f"{nowhere} cannot be written: " in refusal


def test_what_is_exported_names_the_world_it_is_scored_in(doom_run, monkeypatch, tmp_path):
    path = tmp_path / "easy.safetensors"
    shutil.copy(doom_run / "policy.safetensors", path)
    rewrite(path, lambda description: description["env"].update(skill=1, time_limit=20))
    succeed(monkeypatch, "export", str(path))
    metadata = onnx.load(tmp_path / "policy.onnx").metadata_props
    (about,) = (json.loads(entry.value) for entry in metadata if entry.key == "doomgrad")
    assert about["env"] == {**about["env"], "env": "basic", "skill": None, "time_limit": None}


def test_games_that_do_not_repeat_themselves_are_shown_by_kept_pictures(
    monkeypatch, capsys, tmp_path
):
    run_dir = tiny_run(tmp_path / "chancy", "tests.agents.toy:Chancy-v0")
    assert "pictures are kept instead" in capsys.readouterr().err
    films = list((run_dir / "episodes").glob("*.mp4"))
    assert [film.with_suffix(".npz").is_file() for film in films] == [True]
    for options in (("--trust",), ("--trust", "--html")):
        succeed(monkeypatch, "replay", str(run_dir), *options)
    with av.open(str(run_dir / "replay.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 7 + round(20 * 0.5)
    policy = str(run_dir / "policy.safetensors")
    for command in (("watch", "--episodes", "1", "--speed", "99"), ("replay", "--out", "x.mp4")):
        monkeypatch.chdir(tmp_path)
        succeed(monkeypatch, command[0], policy, "--trust", *command[1:])


def test_watch_in_a_terminal(doom_run, tmp_path):
    command = [sys.executable, str(ROOT / "evaluate.py"), "watch", str(doom_run)]
    options = ["--episodes", "1", "--seed", "7", "--speed", "100", "--terminal"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert "\u2580" in done.stdout
    assert "episode with seed 7: return" in done.stdout


def test_compare_ranks_on_the_same_seeds(doom_run, monkeypatch, capsys, tmp_path):
    table, out = tmp_path / "table.json", tmp_path / "out"
    files = [str(doom_run / "policy.safetensors"), str(doom_run / "best.safetensors")]
    options = ["--episodes", "4", "--json", str(table), "--out", str(out)]
    succeed(monkeypatch, "compare", *files, "noop", "random", *options)
    printed = capsys.readouterr().out
    (comparison,) = json.loads(table.read_text())
    results = comparison["results"]
    assert {(result["entry"], result["mode"]) for result in results} == {
        *((file, mode) for file in files for mode in ("sampled", "greedy")),
        *(("random", ""), ("noop", "")),
    }
    for result in results:
        assert result["mean"] == pytest.approx(np.mean(result["returns"]))
    assert [result["rank"] for result in results] == sorted(result["rank"] for result in results)
    assert comparison["reference"]["mean"] == 80.4
    assert json.loads((out / "basic" / "compare.json").read_text()) == comparison
    for words in ("noop", "80.40", "Protocol: 4 episodes at seeds 0 to 3", f"--logdir {out}"):
        assert words in printed
    assert not (out / "summary.md").exists()


def test_compare_puts_all_worlds_into_one_table(
    doom_run, cartpole_run, monkeypatch, capsys, tmp_path
):
    table, out = tmp_path / "table.json", tmp_path / "out"
    options = ["--episodes", "2", "--greedy", "--json", str(table), "--out", str(out)]
    succeed(monkeypatch, "compare", str(doom_run), str(cartpole_run), *options)
    assert "All worlds" in capsys.readouterr().out
    comparisons = json.loads(table.read_text())
    assert [comparison["env"] for comparison in comparisons] == ["basic", "CartPole-v1"]
    rows = json.loads((out / "summary.json").read_text())["rows"]
    assert [(row["env"], row["player"]) for row in rows] == [
        ("basic", str(doom_run)),
        ("CartPole-v1", str(cartpole_run)),
    ]
    in_doom, in_cartpole = rows
    assert in_doom["noop"]["mean"] == -300
    assert in_doom["reference"]["mean"] == 80.4
    assert (in_doom["sampled"], in_cartpole["noop"], in_cartpole["reference"]) == (None,) * 3
    assert (out / "summary.md").read_text().count("Protocol: 2 episodes") == 2


def test_compare_prints_names_as_they_are(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "[bold]a:bomb:[/x]"
    save_run(folder)
    options = ["--episodes", "2", "--out", str(tmp_path / "out")]
    succeed(monkeypatch, "compare", str(folder), *options)
    printed = "".join(capsys.readouterr().out.replace("│", "").split())
    assert "[bold]a:bomb:[/x]" in printed


def test_scores_are_at_native_skill_and_time_whatever_was_trained(tmp_path, monkeypatch):
    easy = tiny_run(tmp_path / "easy", "basic", "--skill", "1", "--time-limit", "20")
    succeed(monkeypatch, "score", str(easy), "--episodes", "2")
    result = json.loads((easy / "evaluation.json").read_text())
    assert (result["protocol"]["skill"], result["protocol"]["time_limit_frames"]) == (5, 300)
    assert result["scores"]["noop"]["mean"] == -300


def test_a_seed_chooses_the_episode_that_drew_its_actions(doom_run, monkeypatch, capsys, tmp_path):
    succeed(monkeypatch, "score", str(doom_run), "--episodes", "3", "--num-envs", "3")
    sampled = json.loads((doom_run / "evaluation.json").read_text())["returns"]["sampled"]
    capsys.readouterr()
    out = str(tmp_path / "clip.gif")
    succeed(monkeypatch, "replay", str(doom_run), "--episode", "2", "--out", out)
    assert f" {sampled[2]:,.2f}" in capsys.readouterr().out.replace("\n", "")


def test_worlds_without_nothing_to_do_have_no_noop(cartpole_run, monkeypatch, capsys):
    succeed(monkeypatch, "score", str(cartpole_run), "--episodes", "4")
    table = capsys.readouterr().out
    assert "random" in table
    assert "noop" not in table


def test_bad_input_gets_one_line(capsys, monkeypatch, tmp_path, doom_run, cartpole_run):
    for arguments, expected in (
        (["score", "nowhere"], "there is no run at nowhere"),
        (["score", str(tmp_path)], "holds no policy.safetensors"),
        (["score", str(doom_run), "--episodes", "0"], "episodes must be at least 1"),
        (["score", str(doom_run), "--episode", "5"], "--episodes"),
        (["replay", str(doom_run), "--episode", "999"], "no episode '999'"),
        (["replay", str(doom_run), "--size", "641x480"], "--size 641x480"),
        (["replay", str(doom_run), "--size", "big"], "--size big"),
        (["watch", str(doom_run), "--speed", "0"], "speed must be greater than 0"),
        (["replay", str(doom_run), "--against", str(cartpole_run)], "plays CartPole-v1"),
        (["replay", str(doom_run), "--html", "--out", "page.mp4"], "a page is an .html"),
        (["replay", str(doom_run), "--html", "--count", "2"], "one whole episode"),
        (["compare"], "error: name at least one run"),
        (["compare", "nowhere"], "there is no run at nowhere"),
        (["compare", "nowhere/*"], "nowhere/* matches no run folder and no policy file"),
        (["compare", "random", "noop"], "name a run or a policy beside them"),
        (["compare", str(cartpole_run), "noop"], "noop plays only Doom"),
        (["compare", str(doom_run), str(doom_run)], "is named twice"),
        (["compare", str(doom_run), "--out", str(doom_run / "config.json")], "is a file"),
        (["compare", str(doom_run), "--episodes", "0"], "episodes must be at least 1"),
        (["suite", "basik"], "did you mean basic?"),
        (["suite", "basic", "--agents", "dqn"], "there is no agent 'dqn'"),
        (["suite", "basic", "--seeds"], "seeds: name at least one"),
        (["suite", "basic", "--seeds", "-1"], "seeds must be between 0 and 2^31 - 1"),
        (["suite", "basic", "--total-env-steps", "0"], "total_env_steps must be at least 1"),
        (["scor", str(doom_run)], "score"),
        (["watch", str(doom_run), "--seed", "-1"], "seed must be between 0"),
        (["watch", str(doom_run), "--episodes", "0"], "episodes must be at least 1"),
        (["score", str(doom_run), "--json", str(tmp_path)], "is a folder"),
        (["replay", str(doom_run), "--out", "clip.avi"], ".mp4 or a .gif"),
        (["export", "nowhere"], "there is no run at nowhere"),
        (["export", str(doom_run), "--onnx", "p.safetensors"], "name a file, as in policy.onnx"),
        (["export", str(doom_run), "--out", "p.onnx"], "export has no --out; python evaluate.py"),
        ([], "score"),
    ):
        assert expected in refused(capsys, monkeypatch, *arguments), arguments


def test_bad_recordings_get_one_line(capsys, monkeypatch, tmp_path):
    folder = tiny_run(tmp_path / "run", "basic")
    path = folder / "episodes" / "training-first.npz"
    recording = load_recording(path)
    episode = recording.episode
    ask = ("replay", str(folder), "--episode", "training-first")
    far = np.full_like(episode.actions, 10**6)
    capsys.readouterr()
    for changes, fields, expected in (
        ({}, {"game": {**recording.game, "wad": "0" * 64}}, "is not the file that was recorded"),
        ({"rewards": episode.rewards + 1}, {}, "the game differs from the recording"),
        ({"actions": far}, {}, "is not in Discrete(6)"),
        ({"actions": episode.actions[:, None].repeat(2, 1)}, {}, "is not in Discrete(6)"),
    ):
        save_recording(path, replace(recording, episode=replace(episode, **changes), **fields))
        assert expected in refused(capsys, monkeypatch, *ask)
    path.write_bytes(path.read_bytes()[:100])
    assert "is not a recorded episode, or is damaged" in refused(capsys, monkeypatch, *ask)
    for file in path.parent.glob("*.npz"):
        file.unlink()
    assert "holds no recorded episodes" in refused(capsys, monkeypatch, "replay", str(folder))
    assert not list(folder.glob("*.mp4"))


def test_foreign_and_damaged_policies_get_one_line(capsys, monkeypatch, tmp_path, doom_run):
    whole = (doom_run / "policy.safetensors").read_bytes()
    path = tmp_path / "policy.safetensors"
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    for content, expected in (
        (whole[: len(whole) // 2], "is damaged"),
        (b"", "is damaged"),
        (b"\x80\x04garbage" * 10, "is damaged"),
        (foreign.read_bytes(), "was not written by doomgrad"),
    ):
        path.write_bytes(content)
        assert expected in refused(capsys, monkeypatch, "score", str(path))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("env", "bassc", "no world called 'bassc'"),
        ("env", "tests.envs.toy:Echo-v0", "made by importing tests.envs.toy, which a file may not"),
        ("width", 90, "observes something else than basic shows"),
        ("width", 10**6, "are too large"),
        ("colour", 1, "there is no field 'colour'"),
    ],
)
def test_a_policy_of_another_world_gets_one_line(
    capsys, monkeypatch, tmp_path, doom_run, field, value, expected
):
    path = tmp_path / "policy.safetensors"
    shutil.copy(doom_run / "policy.safetensors", path)
    rewrite(path, lambda description: description["env"].update({field: value}))
    assert expected in refused(capsys, monkeypatch, "score", str(path))
