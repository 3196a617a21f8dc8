"""The training command, as a user runs it."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from agents import autotune
from agents.checkpoint import load_policy
from agents.commandline import run
from agents.device import choose_device, choose_precision

ROOT = Path(__file__).parent.parent
TRAIN = [sys.executable, str(ROOT / "train.py")]
# A Doom training of some seconds, which exercises everything.
TINY = ["basic", "--num-envs", "4", "--rollout-length", "16", "--eval-episodes", "4"]


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRAIN, *arguments], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )


def refused(capsys, monkeypatch, *arguments: str) -> str:
    """Run in this process; it must print one line, no traceback, and return 2."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    assert run(train.main, train.USER_ERRORS) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    """A tiny training on real Doom, run to its end."""
    folder = tmp_path_factory.mktemp("train")
    done = command(*TINY, "--total-env-steps", "512", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_folder_has_everything(finished_run):
    run_dir = finished_run / "runs" / "basic" / "ppo-seed0"
    content = json.loads((run_dir / "config.json").read_text())
    assert content["config"]["learning"]["rollout_length"] == 16
    precision = choose_precision("auto", choose_device("auto"))
    assert getattr(torch, content["precision"]) == precision
    assert content["versions"]["vizdoom"].startswith("1.")
    assert {"command", "git", "hardware", "python"} <= content.keys()
    assert load_policy(run_dir / "policy.safetensors").about.env_steps == 512
    assert load_policy(run_dir / "best.safetensors").env["env"] == "basic"
    assert list((run_dir / "episodes").glob("*.npz"))
    # Nothing else is written, neither there nor where the command was typed.
    assert [p.name for p in finished_run.iterdir()] == ["runs"]
    names = {p.name.partition(".1")[0] for p in run_dir.iterdir()}
    assert names == {
        *("config.json", "policy.safetensors", "best.safetensors", "progress.csv"),
        *("checkpoint", "episodes", "events.out.tfevents"),
    }


def test_tensorboard_and_csv_hold_the_same_scalars(finished_run):
    run_dir = finished_run / "runs" / "basic" / "ppo-seed0"
    board = EventAccumulator(str(run_dir), size_guidance={"scalars": 0, "images": 0}).Reload()
    with (run_dir / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    for tag in ("rollout/ep_rew_mean", "time/fps", "train/value_loss", "eval/mean_reward"):
        logged = {event.step: event.value for event in board.Scalars(tag)}
        written = {int(r["time/total_timesteps"]): float(r[tag]) for r in rows if r[tag]}
        assert logged.keys() == written.keys()
        assert logged == pytest.approx(written, rel=1e-5)
    assert [event.step for event in board.Scalars("time/fps")] == list(range(64, 513, 64))
    assert board.Images("eval/episode")[0].encoded_image_string.startswith(b"GIF89a")


def test_make_tensorboard_shows_every_point(finished_run):
    listed = subprocess.run(
        ["make", "--dry-run", "tensorboard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    flags = listed.stdout.splitlines()[-1].partition("--logdir runs")[2].split()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tensorboard = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        "runs",
        "--port",
        str(port),
    ]
    server = subprocess.Popen([*tensorboard, *flags], cwd=finished_run, stderr=subprocess.DEVNULL)
    query = urllib.parse.urlencode({"run": "basic/ppo-seed0", "tag": "time/fps"})
    address = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?{query}"
    points: list[list[float]] = []
    deadline = time.monotonic() + 60
    try:
        while len(points) < 8 and time.monotonic() < deadline:
            time.sleep(0.3)
            with contextlib.suppress(urllib.error.URLError):
                points = json.loads(urllib.request.urlopen(address).read())
    finally:
        server.terminate()
        server.wait()
    assert [step for _, step, _ in points] == list(range(64, 513, 64))


def test_the_same_command_says_that_it_is_done_and_more_steps_go_on(finished_run):
    again = command(*TINY, "--total-env-steps", "512", cwd=finished_run)
    assert again.returncode == 0
    assert "already trained for 512 env steps" in again.stdout
    more = command(*TINY, "--total-env-steps", "640", cwd=finished_run)
    assert more.returncode == 0
    assert "going on at 512 env steps" in more.stderr
    with (finished_run / "runs/basic/ppo-seed0/progress.csv").open() as file:
        steps = [int(row["time/total_timesteps"]) for row in csv.DictReader(file)]
    assert steps == list(range(64, 641, 64))


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_leaves_nothing_behind(tmp_path, number, status):
    arguments = [*TINY, "--total-env-steps", "1000000", "--eval-every", "1000000"]
    process = subprocess.Popen(
        [*TRAIN, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    progress = tmp_path / "runs" / "basic" / "ppo-seed0" / "progress.csv"
    deadline = time.monotonic() + 120
    while not (progress.exists() and progress.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors.decode()
    assert b"Traceback" not in errors
    assert b"interrupted at" in output
    assert list((progress.parent / "checkpoint").glob("*.safetensors"))
    more = command(*arguments[:-4], "--total-env-steps", "64", cwd=tmp_path)
    assert "already trained" in more.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "name a world first"),
        (["--num-envs", "4"], "name a world first"),
        (["bassic"], "did you mean basic?"),
        (["CartPole-v11"], "did you mean CartPole-v1?"),
        (["freedoom2:MAP99"], "freedoom2:MAP01 to freedoom2:MAP32"),
        (["basic", "--agent", "pppo"], "there are ppo, a2c, reinforce, vtrace"),
        (["basic", "--lerning-rate", "1"], "did you mean --learning-rate?"),
        (["basic", "--agent", "a2c", "--clip-coef", "1"], "--clip-coef"),
        (["basic", "--num-envs", "0"], "num_envs must be at least 1"),
        (["basic", "--num-envs", "many"], "--num-envs"),
        (["basic", "--num-envs", "3", "--num-groups", "2"], "multiple of num_groups"),
        (["basic", "--learning-rate", "-1"], "learning_rate must be greater than 0"),
        (["basic", "--learning-rate", "nan"], "learning_rate must be greater than 0"),
        (["basic", "--gamma", "1.5"], "gamma must be between 0 and 1"),
        (["basic", "--height", "0"], "height must be at least 1"),
        (["basic", "--height", "20", "--width", "20"], "too small for this encoder"),
        (["basic", "--skill", "6"], "skill must be between 1 and 5"),
        (["basic", "--seed", "-1"], "seed must be between 0"),
        (["basic", "--encoder", "resnet"], "nature"),
        (["basic", "--device", "cuda"], "no GPU"),
        (["basic", "--autotune", "--device", "cuda"], "no GPU"),
        (["basic", "--precision", "float16"], "bfloat16"),
        (["basic", "--num-threads", "0"], "num_threads must be at least 1"),
        (["basic", "--agent", "vtrace", "--c-clip", "2"], "must be at least c_clip"),
        (["basic", "--conv-strides", "4", "0", "1"], "must be positive"),
        (["deathmatch", "--actions", "combinations"], "use --actions groups"),
        (["CartPole-v1", "--variables"], "variables is an option for worlds of Doom"),
        (["CartPole-v1", "--actions", "groups"], "actions is an option for worlds of Doom"),
        (["missing.cfg"], "there is no ViZDoom .cfg at missing.cfg"),
    ],
)
def test_bad_input_gets_one_line(capsys, monkeypatch, tmp_path, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in refused(capsys, monkeypatch, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hello, world", "is not a .cfg that may be loaded"),
        ("doom_scenario_path = nowhere.wad\navailable_buttons = { ATTACK }", "nowhere.wad"),
        ("vizdoom_path = /bin/sh\navailable_buttons = { ATTACK }", "vizdoom_path"),
        (b"\xff\xfe\x00binary", "not readable text"),
    ],
)
def test_a_bad_cfg_gets_one_line(capsys, monkeypatch, tmp_path, content, expected):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.cfg"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert expected in refused(capsys, monkeypatch, "mine.cfg")


def test_a_run_folder_of_another_world_is_left_alone(capsys, monkeypatch, finished_run):
    run_dir = finished_run / "runs" / "basic" / "ppo-seed0"
    before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}
    for arguments, expected in (
        (["health_gathering"], "holds a run with env basic, not health_gathering"),
        (["basic"], "holds a run with"),
        (["basic", "--agent", "a2c"], "holds a run with"),
    ):
        line = refused(capsys, monkeypatch, *arguments, "--run-dir", str(run_dir))
        assert expected in line
        assert "--fresh" in line
    assert {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()} == before


def test_fresh_starts_over_and_removes_only_what_a_run_wrote(tmp_path):
    for name in ("notes.txt", "episodes/mine.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    begin = ["CartPole-v1", "--total-env-steps", "256", "--run-dir", str(tmp_path)]
    assert train.main(begin) == 0
    first = load_policy(tmp_path / "policy.safetensors").policy.state_dict()
    assert train.main([*begin, "--fresh"]) == 0
    again = load_policy(tmp_path / "policy.safetensors").policy.state_dict()
    assert all((again[name] == first[name]).all() for name in first)
    assert len(list(tmp_path.glob("events.out.tfevents*"))) == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "episodes" / "mine.txt").read_text() == "mine"


def test_nothing_is_removed_by_a_command_that_is_refused(capsys, monkeypatch, finished_run):
    run_dir = finished_run / "runs" / "basic" / "ppo-seed0"
    before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}
    for arguments in (["--device", "cuda"], ["--height", "20", "--width", "20"]):
        refused(capsys, monkeypatch, "basic", "--fresh", "--run-dir", str(run_dir), *arguments)
    assert {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()} == before


def test_a_policy_without_its_checkpoint_is_not_trained_over(capsys, monkeypatch, tmp_path):
    begin = ["CartPole-v1", "--total-env-steps", "512", "--run-dir", str(tmp_path)]
    assert train.main(begin) == 0
    for file in (tmp_path / "checkpoint").iterdir():
        file.unlink()
    capsys.readouterr()
    assert "no checkpoint to go on from" in refused(capsys, monkeypatch, *begin)
    assert (tmp_path / "policy.safetensors").exists()


def test_a_run_that_stands_still_is_over(tmp_path, capsys):
    begin = ["CartPole-v1", "--total-env-steps", "100000", "--run-dir", str(tmp_path)]
    # Nothing is learned at this rate, so that evaluations stop improving soon.
    begin += ["--learning-rate", "1e-30", "--patience", "2", "--eval-every", "512"]
    assert train.main(begin) == 0
    assert "already trained" not in capsys.readouterr().out
    steps = load_policy(tmp_path / "policy.safetensors").about.env_steps
    assert steps < 100_000
    assert train.main(begin) == 0
    assert f"already trained for {steps:,} env steps" in capsys.readouterr().out
    assert load_policy(tmp_path / "policy.safetensors").about.env_steps == steps


def test_a_damaged_run_folder_gets_one_line(capsys, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert "is damaged" in refused(capsys, monkeypatch, "basic", "--run-dir", str(tmp_path))


def test_errors_of_the_real_command_have_status_2_and_no_traceback(tmp_path):
    done = command("bassic", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: there is no world called 'bassic'; did you mean basic?\n"
    assert done.stdout == ""


def test_help_shows_the_preset_of_the_world(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = command("basic", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Height of the observed screen in pixels. (default: 60)" in done.stdout
    assert "world options" in done.stdout
    assert os.listdir(tmp_path) == []


# A training of a second or two, in this process.
SMALL = ["CartPole-v1", "--num-workers", "1", "--eval-episodes", "2", "--num-envs", "4"]
SMALL += ["--rollout-length", "16", "--total-env-steps", "256"]


@pytest.fixture
def quick(monkeypatch):
    """Measure for a moment only; and torch has its threads again afterwards."""
    monkeypatch.setattr(train, "_CEILING_STEPS", 2)
    monkeypatch.setattr(autotune, "_MEASURE_S", 0.0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def logged(run_dir, tag):
    """Read what was logged under a tag, row by row; None where nothing was."""
    with (run_dir / "progress.csv").open() as file:
        return [float(row[tag]) if row[tag] else None for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("options", "lags"),
    [
        ([], [0, 0, 0, 0]),
        (["--num-groups", "2"], [0, 0, 0, 0]),
        (["--overlap"], [0, 1, 1, 1]),
        (["--overlap", "--vtrace", "--memory", "gru"], [0, 1, 1, 1]),
        (["--agent", "vtrace"], [0, 0, 0, 0]),
        (["--agent", "vtrace", "--overlap", "--num-groups", "2"], [0, 1, 1, 1]),
    ],
    ids=str,
)
@pytest.mark.usefixtures("quick")
def test_a_run_tells_how_old_its_policy_was_and_how_fast_it_went(tmp_path, capsys, options, lags):
    assert train.main([*SMALL, *options, "--run-dir", str(tmp_path)]) == 0
    assert logged(tmp_path, "train/policy_lag") == lags
    ceiling, *others = logged(tmp_path, "time/ceiling_env_steps_per_s")
    assert ceiling > 0
    assert others == [None] * 3  # It is measured once.
    lines = capsys.readouterr().out.splitlines()
    if "--overlap" in options:
        assert lines.pop().startswith("the sampler meanwhile: ")
    assert "env steps/s: " in lines[-1]
    assert f"these games alone make {ceiling:,.0f} env steps/s" in lines[-1]
    assert "you run at " in lines[-1]
    board = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    assert [event.value for event in board.Scalars("train/policy_lag")] == lags
    assert len(board.Scalars("time/ceiling_env_steps_per_s")) == 1


@pytest.mark.usefixtures("quick")
def test_an_overlapped_training_repeats_bit_for_bit_and_goes_on(tmp_path, capsys, monkeypatch):
    one, other = ([*SMALL, "--overlap", "--run-dir", str(tmp_path / name)] for name in "ab")
    assert train.main(one) == train.main(other) == 0
    first, again = (load_policy(tmp_path / name / "policy.safetensors").policy for name in "ab")
    again = again.state_dict()
    assert all(torch.equal(again[name], part) for name, part in first.state_dict().items())
    assert train.main([*one, "--total-env-steps", "384"]) == 0
    # No older policy than that of its checkpoint is at hand.
    assert logged(tmp_path / "a", "train/policy_lag") == [0, 1, 1, 1, 0, 1]
    capsys.readouterr()
    alone = [argument for argument in one if argument != "--overlap"]
    assert "holds a run with overlap True, not False" in refused(capsys, monkeypatch, *alone)


@pytest.mark.usefixtures("quick")
def test_threads_are_as_many_as_asked_for(tmp_path):
    assert train.main([*SMALL, "--num-threads", "2", "--run-dir", str(tmp_path)]) == 0
    assert torch.get_num_threads() == 2
    assert json.loads((tmp_path / "config.json").read_text())["config"]["num_threads"] == 2


@pytest.mark.usefixtures("quick")
def test_images_are_encoded_as_precisely_as_asked_for(tmp_path):
    policies = {}
    for precision in ("float32", "bfloat16"):
        run_dir = tmp_path / precision
        options = ["--precision", precision, "--total-env-steps", "64", "--eval-episodes", "1"]
        assert train.main([*TINY, *options, "--run-dir", str(run_dir)]) == 0
        policies[precision] = load_policy(run_dir / "policy.safetensors").policy.state_dict()
        # Whatever it computes with, it learns and keeps in float32.
        kept = {part.dtype for part in policies[precision].values() if part.is_floating_point()}
        assert torch.bfloat16 not in kept
    exact, rounded = policies.values()
    assert exact.keys() == rounded.keys()
    assert not all(torch.equal(rounded[name], part) for name, part in exact.items())


SETTING = ("num_envs", "num_workers", "num_groups", "rollout_length", "num_threads", "precision")


def setting_of(run_dir):
    given = train.flat(json.loads((run_dir / "config.json").read_text())["config"])
    return {name: given[name] for name in SETTING}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("flags", "without"), [([], 1), (["--overlap"], 2)])
def test_nothing_is_learned_from_rollouts_played_without_statistics(tmp_path, flags, without):
    flags = [*SMALL, *flags, "--normalize-obs", "--run-dir", str(tmp_path)]

    def learned():
        return [loss is not None for loss in logged(tmp_path, "train/loss")]

    assert train.main(flags) == 0
    assert learned() == [update >= without for update in range(4)]
    # Resumed, all rollouts are played with the statistics that there are.
    assert train.main([*flags, "--total-env-steps", "384"]) == 0
    assert learned() == [update >= without for update in range(6)]


@pytest.mark.usefixtures("quick")
def test_autotune_shows_what_it_tried_and_trains_with_the_best(tmp_path, capsys):
    begin = [*SMALL, "--rollout-length", "32", "--autotune", "--run-dir", str(tmp_path)]
    assert train.main(begin) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == [*SETTING, "env", "steps/s"]
    rows = [line.split() for line in lines if line.split()[-2] in ("float32", "bfloat16")]
    assert len(rows) > 3
    # Advantages are estimated over as many steps, in as many environments, as was asked for.
    assert {(row[0], row[3]) for row in rows} == {("4", "32")}
    setting = setting_of(tmp_path)
    assert list(map(str, setting.values())) == rows[0][:-1]
    # Env steps of an update stay what they were.
    assert logged(tmp_path, "time/total_timesteps") == [128, 256]
    # Going on, nothing is tried again.
    assert train.main([*begin, "--total-env-steps", "384"]) == 0
    captured = capsys.readouterr()
    assert "precision" not in captured.out
    assert "going on at 256 env steps" in captured.err
    assert setting_of(tmp_path) == setting
    assert logged(tmp_path, "time/total_timesteps") == [128, 256, 384]


@pytest.mark.usefixtures("quick")
def test_autotune_goes_on_with_the_setting_that_a_run_has(tmp_path, capsys):
    begin = [*SMALL, "--num-envs", "2", "--rollout-length", "32", "--run-dir", str(tmp_path)]
    assert train.main(begin) == 0
    setting = setting_of(tmp_path)
    more = [*SMALL, "--total-env-steps", "320", "--autotune", "--run-dir", str(tmp_path)]
    assert train.main(more) == 0
    assert "going on at 256 env steps" in capsys.readouterr().err
    assert setting_of(tmp_path) == setting


@pytest.mark.slow
def test_a_signal_breaks_off_an_evaluation_which_is_made_up_for(tmp_path):
    arguments = ["CartPole-v1", "--total-env-steps", "1024", "--num-envs", "4", "--seed", "1"]
    arguments += ["--rollout-length", "16", "--eval-every", "64", "--run-dir", "run"]
    # So many episodes that the signal comes in the midst of them.
    arguments += ["--eval-episodes", "100000"]
    process = subprocess.Popen(
        [*TRAIN, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "config.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(5.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert not list((tmp_path / "run" / "episodes").glob("*"))
    saved = load_policy(tmp_path / "run" / "policy.safetensors").about.env_steps
    assert saved == 64
    arguments[-1] = "2"
    assert command(*arguments, cwd=tmp_path).returncode == 0
    names = sorted(path.name for path in (tmp_path / "run" / "episodes").glob("*-000.npz"))
    assert names[0] == "evaluation-0000000064-000.npz"
    assert len(names) == 16
