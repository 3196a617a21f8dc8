"""The documentation is true where a program can tell: what it shows runs, what it names exists."""

from __future__ import annotations

import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from stable_baselines3 import PPO

import evaluate
import train
from agents import AGENTS, OBJECTIVES, OUR_AGENTS
from commands import see
from commands.commandline import parse
from docs import flags, results, scenarios
from envs import SCENARIOS
from envs.doom.maps import MAPS
from evaluation.replay import terminal
from perception import ENCODERS, MEMORIES
from tests.deploy.fake_hub import logged_in_hub
from tests.envs.processes import run_script
from training.supervised import TASKS

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
READ_FIRST = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
# Flags of other programs (those with underscores or an equals sign are ignored), and of the
# examples in extending.md.
FOREIGN = {
    "logdir",
    "index-url",
    "pooled-channels",
    "thumbnail.coef",
    "thumbnail.coef-schedule",
    "thumbnail.stride",
    # Of torchrun.
    "standalone",
    "nproc-per-node",
    "nnodes",
    "rdzv-backend",
    "rdzv-endpoint",
    "rdzv-id",
    "shutdown-timeout",
}
# What is run is cut short: the last of two flags counts.
SHORT = {
    "train.py": "--total-env-steps 64 --num-envs 4 --rollout-length 16 --eval-episodes 2",
    "see": "--epochs 1",
    "score": "--episodes 2",
    "score see": "",
    "compare": "--episodes 2",
    "board": "",
    "plot": "--tag eval/mean_reward",  # No episode ends in so short a training.
    "gallery": "--size 160x120",
    "generalise": "--episodes 2 --num-envs 2",
    "league": "--matches 2 --num-envs 1",
    "suite": "--episodes 2 --seeds 0 --total-env-steps 16",
    "watch": "--episodes 1 --terminal --speed 1000",
    "replay": "--size 160x120",
    "attack": "--episodes 1 --num-envs 1 --attacks fgsm --epsilons 1 --shifts darker",
    "export": "",
    "explain": "--episodes 2 --states 1 --steps 2 --size 160x120",
    "compress": "--episodes 2 --students 0.25 --train-env-steps 64",
    "push": "",
    "pull": "",
}
FEW = {  # Scenes and clips of `see:TASK`.
    "see:objects": "--scenes 60",
    "see:segments": "--scenes 60",
    "see:video": "--clips 60",
    "see:next_frame": "--clips 40",
}
LONG = (
    "python.md",
    "from_stable_baselines3.md",
    "perception.md",
    "extending.md",
)  # Pages whose Python takes long.
TRAINED = ("train.py", "see", "score see")  # All other keys are commands of `evaluate.py`.


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fenced(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def is_file(block: str) -> re.Match[str] | None:
    """Match a block that begins with the name of the file it is."""
    return re.match(r"# ([\w.-]+\.(?:py|cfg))\n", block)


def write_files(page: Path, folder: Path) -> None:
    """Write the blocks of a page that are files."""
    for _, block in fenced(page):
        if match := is_file(block):
            (folder / match[1]).write_text(block)


def shown_commands(page: Path) -> list[list[str]]:
    """Return the project's commands in a page's blocks, as words."""
    lines = [line for _, block in fenced(page) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if re.match(r"python \w", line)]
    return [words[1:] for words in commands if words[1] in ("train.py", "evaluate.py")]


def named_commands(page: Path) -> list[list[str]]:
    """Return those in its sentences, except patterns such as `python train.py ENV`."""
    found = re.findall(r"`python ((?:train\.py|evaluate\.py \w+) [^`]+)`", page.read_text())
    return [shlex.split(text) for text in found if not re.search(r"\b[A-Z]+\b", text)]


@pytest.mark.parametrize("page", [*PAGES, *READ_FIRST], ids=name)
def test_every_command_would_be_understood(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_files(ROOT / "docs" / "extending.md", tmp_path)
    (tmp_path / "path" / "to").mkdir(parents=True)
    for mine in ("mine.cfg", "path/to/mine.cfg"):
        (tmp_path / mine).write_bytes((tmp_path / "marksman.cfg").read_bytes())
    for program, *arguments in shown_commands(page) + named_commands(page):
        if program == "evaluate.py":
            parse(evaluate.Command, arguments, program=program)
        elif arguments != ["--doctor"]:
            read = see.read_command_line if is_see(arguments) else train.read_command_line
            read(arguments)


@pytest.mark.parametrize("page", [*PAGES, *READ_FIRST], ids=name)
def test_every_target_of_make_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    for _, block in fenced(page):
        for target in re.findall(r"^make ([\w-]+)", block, re.MULTILINE):
            assert f"\n{target}:" in makefile


def run_commands(page: Path, folder: Path, monkeypatch) -> None:
    """Run a page's commands, in order, in a folder."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    monkeypatch.setattr(terminal.os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    write_files(page, folder)
    for program, *arguments in shown_commands(page):
        # What a page takes for granted has been trained before.
        for env, agent in re.findall(r"runs/(\w+)/(\w+)-seed[0*]", " ".join(arguments)):
            if not Path(f"runs/{env}/{agent}-seed0").exists():
                run_train([env, "--agent", agent])
        if program == "train.py":
            run_train(arguments)
        else:
            scores_see = arguments[0] == "score" and "see_" in arguments[1]
            short = SHORT["score see" if scores_see else arguments[0]].split()
            assert evaluate.main([*arguments, *short]) == 0, arguments


def is_see(arguments: list[str]) -> bool:
    """Return whether `train.py` trains perception alone."""
    return arguments[:1] != [] and arguments[0].startswith("see:")


def run_train(arguments: list[str]) -> None:
    short = (
        [] if "--doctor" in arguments else SHORT["see" if is_see(arguments) else "train.py"].split()
    )
    short += FEW.get(arguments[0], "").split()
    assert train.main([*arguments, *short]) == 0, arguments


@pytest.mark.slow
def test_the_quick_start_runs(tmp_path, monkeypatch):
    run_commands(ROOT / "docs" / "quickstart.md", tmp_path, monkeypatch)
    run = tmp_path / "runs" / "basic" / "ppo-seed0"
    made = {"evaluation.json", "replay.html", "replay.mp4", "best.safetensors"}
    assert made <= {path.name for path in run.iterdir()}
    assert (tmp_path / "runs" / "compare" / "basic" / "compare.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if shown_commands(page) and page.name not in ("quickstart.md", "python.md")
    ],
    ids=name,
)
def test_every_command_runs(page, tmp_path, monkeypatch):
    with logged_in_hub(monkeypatch, tmp_path):
        run_commands(page, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page.name in LONG else [])
        for page in [*PAGES, *READ_FIRST]
        if any(kind == "python" for kind, _ in fenced(page))
    ],
    ids=name,
)
def test_python_runs(page, tmp_path, monkeypatch):
    blocks = [block for kind, block in fenced(page) if kind == "python" and not is_file(block)]
    run_script("\n".join(blocks), tmp_path)
    if page.name == "python.md":  # Its last block is a command on what the others made.
        run_commands(page, tmp_path, monkeypatch)


def known_flags() -> set[str]:
    choices = {"agent": AGENTS, "encoder": ENCODERS, "memory": MEMORIES, "objectives": OBJECTIVES}
    chosen = [[f"--{kind}", name] for kind, names in choices.items() for name in names]
    helps = [("train", ["CartPole-v1", *each, "--help"]) for each in chosen]
    helps += [("train", [f"see:{name}", "--help"]) for name in TASKS]
    helps += [("train", [f"maps:{kind}", "--help"]) for kind in MAPS]
    helps += [("train", ["players:duel", "--help"])]
    helps += [("evaluate", [name, "--help"]) for name in SHORT if name not in TRAINED]
    groups = [flags.read_help(flags.help_of(program, *args)) for program, args in helps]
    shown = [flag for each in groups for flags_of in each.values() for flag in flags_of]
    names = {name.removeprefix("--") for flag in shown for name in flag.names}
    return names | {"help", "doctor"}


def test_every_flag_exists():
    known = known_flags()
    assert {"num-envs", "no-overlap", "html", "trust"} <= known
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--([a-z][a-z.-]*[a-z])(?![\w=-])", page.read_text()))
        assert named <= known | FOREIGN, page


def test_agents_encoders_memories_and_objectives_have_tables_of_their_options():
    text = (ROOT / "docs" / "commands" / "train.md").read_text()
    wanted = {f"--agent {name} --help: agent" for name in OUR_AGENTS}
    wanted |= {f"--encoder {name} --help: perception.encoder" for name in ENCODERS}
    wanted |= {f"--memory {name} --help: perception.memory" for name in MEMORIES}
    wanted |= {f"--objectives {name} --help: {name.replace('_', '-')}" for name in OBJECTIVES}
    # Those of the defaults stand under `basic`; without memory, there are no options.
    defaults = {"ppo --help: agent", "nature --help: perception.encoder"}
    missing = {each for each in wanted if f"<!-- python train.py basic {each} -->" not in text}
    assert {each.split(" ", 1)[1] for each in missing} == {
        *defaults,
        "none --help: perception.memory",
    }


def test_tables_of_flags_are_those_of_help():
    for page in PAGES:
        text = page.read_text()
        assert flags.rewritten(text) == text, f"{name(page)} is old: make docs"


def test_help_is_in_groups():
    groups = flags.read_help(flags.help_of("train", "--help"))
    assert list(groups) == [
        "positional arguments",
        "options",
        "env",
        "perception",
        "perception.encoder",
        "perception.vectors",
        "perception.sound",
        "perception.text",
        "agent",
        "self-play",
        "tuning",
    ]
    by_name = {flag.names[0]: flag for flag in groups["options"]}
    assert by_name["--num-envs"].default == "16"
    assert by_name["--device"].value == "{auto,cpu,cuda}"


def test_the_page_about_scenarios_is_the_programs_own():
    assert scenarios.PAGE.read_text() == scenarios.page(), "it is old: make docs"


def test_the_page_about_results_is_the_programs_own():
    assert results.PAGE.read_text() == results.page(), "it is old: make docs"
    assert results.README.read_text() == results.readme(), "its table is old: make docs"
    assert len(list(results.PICTURES.glob("*.svg"))) == len(list(results.RESULTS.glob("*.json")))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_has_a_small_picture(scenario):
    path = scenarios.PICTURES / f"{scenario}.png"
    assert path.stat().st_size < scenarios.MAX_BYTES
    with Image.open(path) as image:
        assert (image.size, image.mode) == ((scenarios.WIDTH, scenarios.HEIGHT), "P")


def test_pictures_are_of_the_game():
    committed = Image.open(scenarios.PICTURES / "basic.png").convert("RGB")
    assert committed == Image.open(io.BytesIO(scenarios.picture("basic"))).convert("RGB")


@pytest.mark.parametrize("page", [*PAGES, *READ_FIRST], ids=name)
def test_files_it_names_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    packages = "agents|commands|deploy|envs|evaluation|perception|storage|training"
    folders = f"{packages}|benchmarks|tests|docs"
    for file in re.findall(rf"`((?:{folders})/[\w./]+)`", text):
        assert (ROOT / file).exists(), file


def test_names_of_stable_baselines3_are_its_own():
    page = (ROOT / "docs" / "from_stable_baselines3.md").read_text()
    section = page.split("## Hyper-parameters of PPO")[1].split("\n## ")[0]
    names = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert len(names) > 10
    assert set(names) <= set(inspect.signature(PPO.__init__).parameters)


@pytest.mark.slow
def test_pages_are_built_without_a_warning(tmp_path):
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(tmp_path)]
    done = subprocess.run(sphinx, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<table" in (tmp_path / "scenarios.html").read_text()
