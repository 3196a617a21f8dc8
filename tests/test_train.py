"""The training command, as a user runs it."""

import contextlib
import csv
import json
import os
import shutil
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
from agents.device import choose_device, choose_precision
from storage.policy_file import load_policy
from tests.programs import contents, logged, refused, status_of
from training import autotune
from training.config import dotted

ROOT = Path(__file__).parent.parent
TRAIN = [sys.executable, str(ROOT / "train.py")]
# A Doom training of some seconds, which uses everything.
TINY = [
    "basic",
    "--num-envs",
    "4",
    "--rollout-length",
    "16",
    "--eval-episodes",
    "1",
    "--eval-every",
    "128",
]
RUN = Path("runs") / "basic" / "ppo-seed0"


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRAIN, *arguments], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    """A folder in which a tiny training on real Doom was run to its end."""
    folder = tmp_path_factory.mktemp("train")
    done = command(*TINY, "--total-env-steps", "256", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copied_run(finished_run, tmp_path, monkeypatch) -> Path:
    """A copy of it, which is the current folder."""
    shutil.copytree(finished_run / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What a training writes.


def test_a_run_folder_has_everything(finished_run):
    run_dir = finished_run / RUN
    content = json.loads((run_dir / "config.json").read_text())
    assert content["config"]["agent"]["rollout_length"] == 16
    precision = choose_precision("auto", choose_device("auto"))
    assert getattr(torch, content["precision"]) == precision
    assert content["versions"]["vizdoom"].startswith("1.")
    assert {"command", "git", "hardware", "python"} <= content.keys()
    assert load_policy(run_dir / "policy.safetensors").about.env_steps == 256
    assert load_policy(run_dir / "best.safetensors").env["env"] == "basic"
    assert list((run_dir / "episodes").glob("*.npz"))
    # Nothing else is written, neither there nor in the current folder.
    assert [p.name for p in finished_run.iterdir()] == ["runs"]
    names = {p.name.partition(".1")[0] for p in run_dir.iterdir()}
    assert names == {
        "config.json",
        "policy.safetensors",
        "best.safetensors",
        "progress.csv",
        "checkpoint",
        "episodes",
        "events.out.tfevents",
    }


def test_tensorboard_and_csv_hold_the_same_scalars(finished_run):
    board = EventAccumulator(str(finished_run / RUN), size_guidance={"scalars": 0, "images": 0})
    board.Reload()
    with (finished_run / RUN / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    for tag in ("rollout/ep_rew_mean", "time/fps", "train/value_loss", "eval/mean_reward"):
        shown = {event.step: event.value for event in board.Scalars(tag)}
        written = {int(r["time/total_timesteps"]): float(r[tag]) for r in rows if r[tag]}
        assert shown.keys() == written.keys()
        assert shown == pytest.approx(written, rel=1e-5)
    assert [event.step for event in board.Scalars("time/fps")] == [64, 128, 192, 256]
    assert board.Images("eval/episode")[0].encoded_image_string.startswith(b"GIF89a")


@pytest.mark.slow
def test_make_tensorboard_shows_every_point(finished_run):
    listed = subprocess.run(
        ["make", "--dry-run", "tensorboard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    flags = listed.stdout.splitlines()[-1].partition("--logdir runs")[2].split()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    tensorboard = [sys.executable, "-m", "tensorboard.main", "--logdir", "runs", "--port", port]
    server = subprocess.Popen([*tensorboard, *flags], cwd=finished_run, stderr=subprocess.DEVNULL)
    query = urllib.parse.urlencode({"run": "basic/ppo-seed0", "tag": "time/fps"})
    address = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?{query}"
    points: list[list[float]] = []
    deadline = time.monotonic() + 60
    try:
        while len(points) < 4 and time.monotonic() < deadline:
            time.sleep(0.3)
            with contextlib.suppress(urllib.error.URLError):
                points = json.loads(urllib.request.urlopen(address).read())
    finally:
        server.terminate()
        server.wait()
    assert [step for _, step, _ in points] == [64, 128, 192, 256]


# The same command again.


def test_the_same_command_says_that_it_is_done_and_more_steps_resume(copied_run, capsys):
    assert train.main([*TINY, "--total-env-steps", "256"]) == 0
    assert "already trained for 256 env steps" in capsys.readouterr().out
    assert train.main([*TINY, "--total-env-steps", "320"]) == 0
    assert "resuming at 256 env steps" in capsys.readouterr().err
    steps = logged(copied_run / RUN, "time/total_timesteps")
    assert steps == [64, 128, 192, 256, 320]


def test_a_run_folder_of_another_training_is_left_as_it_is(copied_run, capsys):
    before = contents(copied_run)
    for arguments, expected in (
        (["health_gathering"], "holds a run with env.env basic, not health_gathering"),
        (["basic"], "holds a run with"),
        (["basic", "--agent", "a2c"], "holds a run with agent.name ppo, not a2c"),
    ):
        line = refused(capsys, train, *arguments, "--run-dir", copied_run / RUN)
        assert expected in line
        assert "--fresh" in line
    assert contents(copied_run) == before


def test_nothing_is_removed_by_a_command_that_is_refused(copied_run, capsys):
    before = contents(copied_run)
    few = ["--num-envs", "1", "--num-groups", "1"]
    for arguments in (["--device", "cuda"], ["--height", "20", "--width", "20"]):
        refused(capsys, train, "basic", "--fresh", *few, *arguments)
    assert contents(copied_run) == before


def test_fresh_starts_over_and_removes_only_what_a_run_wrote(cartpole_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(cartpole_run, folder)
    for name in ("notes.txt", "episodes/mine.txt"):
        (folder / name).write_text("mine")
    begin = [*SMALL, "--total-env-steps", "64", "--run-dir", str(folder), "--fresh"]
    assert train.main(begin) == 0
    first = load_policy(folder / "policy.safetensors")
    assert first.about.env_steps == 64
    assert train.main(begin) == 0
    again = load_policy(folder / "policy.safetensors").policy.state_dict()
    for name, weight in first.policy.state_dict().items():
        assert torch.equal(again[name], weight)
    assert len(list(folder.glob("events.out.tfevents*"))) == 1
    assert [int(file.stem) for file in (folder / "checkpoint").iterdir()] == [64]
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "episodes" / "mine.txt").read_text() == "mine"


# Signals.


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys, number, status):
    arguments = [*TINY, "--total-env-steps", "1000000", "--eval-every", "1000000"]
    process = subprocess.Popen(
        [*TRAIN, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    progress = tmp_path / RUN / "progress.csv"
    deadline = time.monotonic() + 120
    while not (progress.exists() and progress.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors.decode()
    assert b"Traceback" not in errors
    assert b"interrupted at" in output
    assert list((progress.parent / "checkpoint").glob("*.safetensors"))
    monkeypatch.chdir(tmp_path)
    assert train.main([*TINY, "--total-env-steps", "64"]) == 0
    assert "already trained" in capsys.readouterr().out


@pytest.mark.slow
def test_a_signal_interrupts_an_evaluation_which_is_repeated(tmp_path):
    arguments = [
        "CartPole-v1",
        "--total-env-steps",
        "1024",
        "--num-envs",
        "4",
        "--seed",
        "1",
        "--rollout-length",
        "16",
        "--eval-every",
        "64",
        "--run-dir",
        "run",
        # So many episodes that the signal comes while they are played.
        "--eval-episodes",
        "100000",
    ]
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


# What is wrong with a command line is one line that says what would have worked.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "name an environment first, as in: python train.py basic; see --help"),
        (["--num-envs", "4"], "name an environment first"),
        (["bassic"], "there is no environment called 'bassic'; did you mean basic?"),
        (["CartPole-v11"], "did you mean CartPole-v1?"),
        (["freedoom2:MAP99"], "freedoom2:MAP01 to freedoom2:MAP32"),
        (["basic", "--agent", "pppo"], "unknown agent 'pppo'; choose from ppo, a2c, reinforce"),
        (["basic", "--encoder", "resnet"], "unknown encoder 'resnet'; choose from nature, impala"),
        (["basic", "--memory", "gpu"], "unknown memory 'gpu'; choose from none, lstm, gru"),
        (["basic", "--objectives", "x"], "unknown objective 'x'; choose from variables, contr"),
        (["basic", "--objectives", "variables", "variables"], "names variables twice"),
        (["basic", "--agent"], "--agent"),
        (["basic", "--learning-rat", "1"], "has no --learning-rat; did you mean --learning-rate?"),
        (["basic", "--variables.coef", "1"], "--variables.coef"),
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
        (["basic", "--device", "cuda"], "no GPU"),
        (["basic", "--inference", "cuda-graph"], "--inference cuda-graph needs a GPU"),
        (["basic", "--gradients", "cuda-graph"], "--gradients cuda-graph needs a GPU"),
        (["basic", "--autotune", "--device", "cuda"], "no GPU"),
        (["basic", "--autotune", "--tune"], "--tune and --autotune exclude each other"),
        (["basic", "--precision", "float16"], "bfloat16"),
        (["basic", "--num-threads", "0"], "num_threads must be at least 1"),
        (["basic", "--agent", "vtrace", "--c-clip", "2"], "must be at least c_clip"),
        (["basic", "--agent", "sb3-ppo", "--overlap"], "sb3-ppo has its own collector"),
        (["basic", "--conv-strides", "4", "0", "1"], "must be positive"),
        (["basic", "--memory", "lstm", "--memory-size", "0"], "memory_size must be at least 1"),
        (["freedoom2:MAP01", "--actions", "combinations"], "use --actions groups"),
        (["CartPole-v1", "--variables"], "variables is an option of Doom environments"),
        (["CartPole-v1", "--actions", "groups"], "actions is an option of Doom environments"),
        (
            ["CartPole-v1", "--objectives", "variables"],
            "the objective variables has nothing to predict",
        ),
        (["CartPole-v1", "--objectives", "contrastive"], "the objective contrastive needs images"),
        (
            ["basic", "--objectives", "next_latent", "--next-latent.horizon", "0"],
            "next-latent.horizon must be greater than 0, got 0",
        ),
        (["missing.cfg"], "there is no ViZDoom .cfg at missing.cfg"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_line(capsys, monkeypatch, tmp_path, arguments, expected):
    monkeypatch.chdir(tmp_path)
    if arguments and not arguments[0].startswith("-") and "--num-envs" not in arguments:
        arguments = [arguments[0], "--num-envs", "1", "--num-groups", "1", *arguments[1:]]
    assert expected in refused(capsys, train, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hello, world", "the line 'hello, world' is not allowed"),
        ("doom_scenario_path = nowhere.wad\navailable_buttons = { ATTACK }", "nowhere.wad"),
        ("vizdoom_path = /bin/sh\navailable_buttons = { ATTACK }", "vizdoom_path"),
        (b"\xff\xfe\x00binary", "not readable text"),
    ],
)
def test_a_bad_cfg_gets_one_line(capsys, monkeypatch, tmp_path, content, expected):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.cfg"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert expected in refused(capsys, train, "mine.cfg")


def test_a_damaged_run_folder_gets_one_line(capsys, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert "is damaged" in refused(capsys, train, "basic", "--run-dir", tmp_path)


def test_a_file_is_no_run_folder(capsys, tmp_path):
    (tmp_path / "file").touch()
    line = refused(capsys, train, "basic", "--run-dir", tmp_path / "file")
    assert line.endswith("file is a file; name a folder")


def test_errors_of_the_real_command_have_status_2_and_no_traceback(tmp_path):
    done = command("bassic", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: there is no environment called 'bassic'; did you mean basic?\n"
    assert done.stdout == ""


# Help.


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        status_of(train, *arguments, "--help")
    assert not stop.value.code
    return capsys.readouterr().out


def test_help_shows_the_preset_of_the_environment(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    shown = help_of(capsys, "basic")
    assert "Height of the observed screen in pixels. (default: 60)" in shown
    for words in ("env options", "perception.encoder options", "agent options", "tuning options"):
        assert words in shown
    assert "type: ignore" not in shown
    assert os.listdir(tmp_path) == []


def test_help_shows_the_options_of_what_is_chosen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    plain = help_of(capsys, "basic")
    for flag in ("--memory-size", "--impala-channels", "--variables.coef", "--rho-clip"):
        assert flag not in plain
    chosen = ["--memory", "lstm", "--encoder=impala", "--objectives", "variables", "contrastive"]
    shown = help_of(capsys, "basic", *chosen, "--agent", "vtrace")
    for flag in ("--memory-size", "--impala-channels", "--rho-clip"):
        assert flag in shown
    for flag in ("--variables.coef", "--variables.names", "--contrastive.temperature"):
        assert flag in shown


# `--autotune`; a training of a second or two.
SMALL = [
    "CartPole-v1",
    "--num-workers",
    "1",
    "--eval-episodes",
    "1",
    "--num-envs",
    "4",
    "--rollout-length",
    "16",
    "--total-env-steps",
    "256",
]
SETTING = ("num_envs", "num_workers", "num_groups", "rollout_length", "num_threads", "precision")


def setting_of(run_dir):
    values = dotted(json.loads((run_dir / "config.json").read_text())["config"])
    return {name: values.get(name, values.get(f"agent.{name}")) for name in SETTING}


@pytest.fixture
def quick(monkeypatch):
    """Settings are measured for a moment only, and torch has its threads again afterwards."""
    monkeypatch.setattr(autotune, "_MEASURE_S", 0.0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_autotune_shows_what_it_measured_and_trains_with_the_fastest(tmp_path, capsys):
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
    # The env steps of an update stay the same.
    assert logged(tmp_path, "time/total_timesteps") == [128, 256]
    # When the run resumes, nothing is measured again.
    assert train.main([*begin, "--total-env-steps", "384"]) == 0
    captured = capsys.readouterr()
    assert "precision" not in captured.out
    assert "resuming at 256 env steps" in captured.err
    assert setting_of(tmp_path) == setting
    assert logged(tmp_path, "time/total_timesteps") == [128, 256, 384]


@pytest.mark.usefixtures("quick")
def test_autotune_resumes_with_the_setting_that_a_run_has(cartpole_run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(cartpole_run, folder)
    setting = setting_of(folder)
    more = ["CartPole-v1", "--total-env-steps", "192", "--eval-episodes", "1", "--autotune"]
    assert train.main([*more, "--run-dir", str(folder)]) == 0
    assert "resuming at 128 env steps" in capsys.readouterr().err
    assert setting_of(folder) == setting
