"""Tests of push and pull: the real client and real requests, to a hub on this machine."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

import evaluate
import train
from agents.checkpoint import FileError, load_policy
from agents.commandline import run
from agents.run import RunFolder
from evaluation.card import read_evaluation
from evaluation.protocol import Protocol, native
from tests.agents.files import rewrite
from tests.evaluation.fake_hub import OWNER, READER, logged_in_hub, set_endpoint
from tests.evaluation.policies import save_run

PUSHED = {"policy.safetensors", "config.json", "evaluation.json", "replay.mp4", "README.md"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder as training leaves it: neither scored nor filmed."""
    folder = tmp_path_factory.mktemp("runs") / "CartPole-v1" / "ppo-seed0"
    options = ["--num-envs", "4", "--rollout-length", "16", "--total-env-steps", "128"]
    options += ["--eval-episodes", "2", "--eval-every", "128", "--run-dir", str(folder)]
    assert train.main(["CartPole-v1", *options]) == 0
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that this machine is logged in to, from an empty folder."""
    pytest.importorskip("huggingface_hub", reason='pip install -e ".[hub]"')
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with logged_in_hub(monkeypatch, tmp_path) as hub:
        yield hub


def evaluated(*words: object) -> int:
    return evaluate.main([str(word) for word in words])


@pytest.fixture
def refuse(monkeypatch, capfd):
    """Give the one line that a command ends with, which leaves no file behind."""

    def refuse(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
        before = sorted(Path().rglob("*"))
        capfd.readouterr()
        assert run(evaluate.main, evaluate.USER_ERRORS) == 2
        captured = capfd.readouterr()
        (line,) = captured.err.splitlines()
        assert captured.out == ""
        assert [path for path in sorted(Path().rglob("*")) if path not in before] in (
            [],
            [Path("hub")],
        )
        return line.removeprefix("error: ")

    return refuse


@pytest.fixture
def policy(tmp_path):
    return Path(save_run(tmp_path / "made")) / "policy.safetensors"


def test_what_is_pushed_is_pulled_and_the_printed_lines_work(hub, trained, capsys, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    assert evaluated("push", folder, "me/cartpole") == 0
    assert "python evaluate.py pull me/cartpole" in capsys.readouterr().out
    files = hub.repositories["me/cartpole"].commits[hub.repositories["me/cartpole"].head]
    assert files.keys() == PUSHED
    best = RunFolder(folder).best_file.read_bytes()
    assert files["policy.safetensors"] == best
    assert files["config.json"] == (folder / "config.json").read_bytes()
    # Made as score and replay do, and kept.
    assert files["evaluation.json"] == (folder / "evaluation.json").read_bytes()
    assert files["replay.mp4"] == (folder / "replay.mp4").read_bytes()
    assert json.loads(files["evaluation.json"])["protocol"]["seeds"] == [0, 99]

    assert evaluated("pull", "me/cartpole") == 0
    pulled = Path("hub/me--cartpole")
    assert {path.name: path.read_bytes() for path in pulled.iterdir()} == files
    assert list(Path("hub").iterdir()) == [pulled]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "hub/me--cartpole: CartPole-v1, learned by ppo in 128 env steps"
    watch, score = (line.partition("evaluate.py ")[2].split() for line in lines[1:])
    assert evaluated(*watch, "--episodes", 1, "--speed", 1000, "--terminal") == 0
    assert "episode with seed" in capsys.readouterr().out
    assert evaluated(*score, "--episodes", 2) == 0
    assert "sampled" in capsys.readouterr().out

    # The second host, which large files come from, is told no secrets.
    tokens = {token for _, path, token in hub.requests if path.startswith("/cdn/")}
    assert tokens == {None}


def test_the_card_tells_the_score_as_the_hub_reads_it(hub, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    assert evaluated("score", folder, "--episodes", 6) == 0
    shutil.copy(__file__, folder / "replay.mp4")  # What is there is not made again.
    scored = json.loads((folder / "evaluation.json").read_text())
    assert evaluated("push", folder, "me/cartpole") == 0
    repository = hub.repositories["me/cartpole"]
    files = repository.commits[repository.head]
    assert files["replay.mp4"] == Path(__file__).read_bytes()
    _, front, text = files["README.md"].decode().split("---\n", 2)
    front = yaml.safe_load(front)
    tags = {"reinforcement-learning", "deep-reinforcement-learning", "doomgrad", "CartPole-v1"}
    assert set(front["tags"]) == tags
    (result,) = front["model-index"][0]["results"]
    assert result["task"]["type"] == "reinforcement-learning"
    assert result["dataset"]["type"] == "CartPole-v1"
    (metric,) = result["metrics"]
    assert metric["type"] == "mean_reward"
    assert metric["value"] == f"{scored['mean']:.2f} +/- {scored['std']:.2f}"
    for name in ("sampled", "greedy", "random"):
        s = scored["scores"][name]
        interval = f"{s['ci_low']:,.2f} to {s['ci_high']:,.2f}"
        assert f"| {name} | {s['mean']:,.2f} | {interval} |" in text
    assert "Protocol: 6 episodes at seeds 0 to 5, which training never plays" in text
    record = json.loads((folder / "config.json").read_text())
    assert record["git"] in text
    assert f", in {record['precision']};" in text
    assert "128 env steps and" in text
    for command in ("pull me/cartpole", "watch hub/me--cartpole", "score hub/me--cartpole"):
        assert f"\n    python evaluate.py {command}\n" in text

    # What has not changed is not pushed again.
    assert evaluated("push", folder, "me/cartpole") == 0
    assert len(repository.commits) == 2


def test_a_score_is_one_policys_at_one_task(scored):
    path, best = scored / "evaluation.json", load_policy(scored / "best.safetensors")
    config = native(best, path, trust=False)
    evaluation = read_evaluation(path, best, config)
    assert evaluation.protocol == Protocol(episodes=2, num_envs=2)
    assert list(evaluation.scores) == ["greedy", "random"]
    older = replace(best, about=replace(best.about, env_steps=64))
    assert read_evaluation(path, older, config) is None
    assert read_evaluation(path, best, replace(config, frame_skip=2)) is None
    assert read_evaluation(path, best, replace(config, env="Acrobot-v1")) is None
    content = json.loads(path.read_text())
    for change in ({"protocol": 1}, {"scores": {"greedy": {"mean": "high"}}}, {"scores": 1}):
        path.write_text(json.dumps(content | change))
        with pytest.raises(FileError, match="is not what `score` wrote; remove it"):
            read_evaluation(path, best, config)
    path.unlink()
    assert read_evaluation(path, best, config) is None


@pytest.fixture(scope="module")
def scored_once(trained, tmp_path_factory):
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("scored") / "run")
    assert evaluated("score", folder, "--episodes", 2, "--greedy") == 0
    (folder / "replay.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    return folder


@pytest.fixture
def scored(scored_once, tmp_path):
    """A run folder that has all that a push needs."""
    return shutil.copytree(scored_once, tmp_path / "scored")


def test_private_is_private(hub, scored, refuse, monkeypatch):
    assert evaluated("push", scored, "me/secret", "--private") == 0
    assert hub.repositories["me/secret"].private
    assert evaluated("pull", "me/secret") == 0
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no me/secret at http" in refuse("pull", "me/secret", "--out", "again")
    monkeypatch.setenv("HF_TOKEN", OWNER)
    hub.add("me/open", {})
    assert "me/open is there already, and public" in refuse("push", scored, "me/open", "--private")
    assert hub.repositories["me/open"].commits[hub.repositories["me/open"].head] == {}


def test_a_revision_is_pulled(hub, policy):
    repository = hub.add("me/x", {"policy.safetensors": policy.read_bytes()})
    first = repository.head
    repository.commit({"policy.safetensors": b"something else"})
    assert evaluated("pull", "me/x", "--revision", first, "--out", "first") == 0
    assert Path("first/policy.safetensors").read_bytes() == policy.read_bytes()


def test_what_the_service_refuses_is_one_line(hub, scored, refuse, monkeypatch):
    assert "there is no me/none at http" in refuse("pull", "me/none")
    hub.add("me/x", {"policy.safetensors": b""})
    assert refuse("pull", "me/x", "--revision", "v9") == "me/x has no revision v9"
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "gives no right to do that with me/new" in refuse("push", scored, "me/new")
    assert "gives no right to do that with me/x" in refuse("push", scored, "me/x")
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    assert "does not know this machine's token" in refuse("push", scored, "me/x")
    monkeypatch.delenv("HF_TOKEN")
    assert "log in with `hf auth login`" in refuse("push", scored, "me/x")
    hub.lies["/api/models/me/x"] = (503, {}, b"")
    assert "answers with status 503" in refuse("pull", "me/x")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        set_endpoint(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert "failed: [Errno 111] Connection refused" in refuse("pull", "me/x")


def test_what_cannot_be_asked_for_is_one_line(hub, scored, refuse, monkeypatch):
    assert "OWNER/basic" in refuse("pull", "basic")
    for name in ("../x", "me/..", "me/x/y", "me/x--y", "/etc", "me/ x"):
        assert name.split("/")[0] in refuse("pull", name)
    Path("mine").mkdir()
    assert "mine is there already" in refuse("pull", "me/x", "--out", "mine")
    policy = scored / "policy.safetensors"
    assert f"{policy} is no run folder" in refuse("push", policy, "me/x")
    assert "there is no run at nowhere" in refuse("push", "nowhere", "me/x")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    line = 'huggingface_hub is not installed; pip install -e ".[hub]"'
    assert refuse("pull", "me/x") == refuse("push", scored, "me/x") == line
    assert hub.requests == []


def test_a_world_that_is_a_file_is_not_pushed(hub, scored, refuse):
    def change(description):
        description["env"]["env"] = "/home/me/mine.cfg"

    rewrite(scored / "best.safetensors", change)
    assert "mine.cfg is a file that nobody else has" in refuse("push", scored, "me/x")


def test_names_of_a_repository_lead_nowhere(hub, policy, tmp_path):
    evil = ("../../evil", "/etc/evil", "hub/../../evil", "..\\evil", "other.safetensors")
    hub.add("me/x", {"policy.safetensors": policy.read_bytes(), **dict.fromkeys(evil, b"evil")})
    assert evaluated("pull", "me/x") == 0
    assert [path.name for path in Path("hub/me--x").iterdir()] == ["policy.safetensors"]
    assert not list(tmp_path.rglob("*evil*"))
    assert not [path for _, path, _ in hub.requests if "evil" in path]


PICKLES = ["pytorch_model.bin", "ppo-CartPole-v1.zip", "a/b.PKL", "model.pt", "vecnormalize.pkl"]


@pytest.mark.parametrize("name", PICKLES)
def test_a_repository_with_pickles_is_refused(hub, policy, scored, refuse, name):
    hub.add("me/x", {"policy.safetensors": policy.read_bytes(), name: b"\x80\x04."})
    line = refuse("pull", "me/x")
    assert f"me/x holds {name}, which may be pickled code" in line
    assert refuse("push", scored, "me/x") == line
    assert not [path for _, path, _ in hub.requests if "/resolve/" in path]


HTML = b"<html><body>Service temporarily unavailable</body></html>"


@pytest.mark.parametrize(
    ("path", "status", "headers", "body", "expected"),
    [
        ("/api/models/me/x", 200, {}, HTML, "does not answer as a hub"),
        ("/api/models/me/x", 200, {}, b"[]", "does not answer as a hub"),
        ("/api/models/me/x", 200, {}, b"{}", "does not answer as a hub"),
        ("/api/models/me/x", 404, {}, HTML, "there is no me/x"),
        ("/api/models/me/x", 500, {}, b"a\x1b[2J\nb" * 999, "status 500 (a[2J ba[2J b"),
        ("policy.safetensors", 200, {}, HTML, "me/x/policy.safetensors ends after"),
        ("policy.safetensors", 403, {}, HTML, "gives no right"),
        ("policy.safetensors", 502, {}, HTML, "answers with status 502"),
        (
            "policy.safetensors",
            200,
            {"Content-Length": "5000"},
            b"0" * 99,
            "peer closed connection",
        ),
        ("policy.safetensors", 200, {}, b"0" * 10**7, "goes on after"),
        (
            "policy.safetensors",
            302,
            {"Location": "file:///etc/passwd"},
            b"",
            "unsupported protocol",
        ),
    ],
)
def test_answers_that_are_none(hub, policy, refuse, path, status, headers, body, expected):
    hub.add("me/x", {"policy.safetensors": policy.read_bytes()})
    hub.lies[path] = (status, headers, body)
    line = refuse("pull", "me/x")
    assert expected in line
    assert len(line) < 400
    assert line.isprintable()


@pytest.mark.parametrize("size", [2**40, -1, None, "many"])
def test_a_size_that_cannot_be_is_not_fetched(hub, refuse, size):
    siblings = [{"rfilename": "policy.safetensors", "size": size}]
    about = {"id": "me/x", "sha": "0" * 40, "private": False, "siblings": siblings}
    hub.lies["/api/models/me/x"] = (200, {}, json.dumps(about).encode())
    assert "are the most that is fetched" in refuse("pull", "me/x")
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("policy.safetensors", HTML, "me/x/policy.safetensors is damaged"),
        ("policy.safetensors", b"PK\x03\x04" + b"0" * 99, "pickled code"),
        ("config.json", HTML, "me/x/config.json is damaged"),
        ("config.json", b'{"config": []}', "me/x/config.json is damaged"),
        ("evaluation.json", b"[1]" + b"[" * 10**5, "me/x/evaluation.json is damaged"),
        ("replay.mp4", HTML, "me/x/replay.mp4 is no video"),
    ],
)
def test_a_file_that_is_something_else(hub, policy, refuse, name, content, expected):
    files = {"policy.safetensors": policy.read_bytes(), "config.json": b'{"config": {}}'}
    hub.add("me/x", files | {name: content})
    assert expected in refuse("pull", "me/x")


def test_a_repository_without_a_policy(hub, refuse):
    hub.add("me/x", {"README.md": b"hello", "model.safetensors": b""})
    assert "me/x holds no policy.safetensors" in refuse("pull", "me/x")


def test_a_policy_cut_short_or_of_other_tensors(hub, policy, refuse, tmp_path):
    hub.add("me/x", {"policy.safetensors": policy.read_bytes()[:-4]})
    assert "me/x/policy.safetensors is damaged" in refuse("pull", "me/x")
    save_file({}, tmp_path / "other.safetensors")
    hub.add("me/x", {"policy.safetensors": (tmp_path / "other.safetensors").read_bytes()})
    assert "was not written by doomgrad" in refuse("pull", "me/x")


def test_a_foreign_package_is_imported_for_those_who_trust_it(
    hub, policy, refuse, monkeypatch, tmp_path, capfd
):
    canary = tmp_path / "imported"
    (tmp_path / "foreign.py").write_text(f"open({str(canary)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)

    def change(description):
        description["env"]["env"] = "foreign:Name-v0"

    hub.add("me/x", {"policy.safetensors": rewrite(policy, change).read_bytes()})
    assert "if you trust it, add --trust" in refuse("pull", "me/x")
    assert evaluated("pull", "me/x", "--trust") == 0
    assert "python evaluate.py watch hub/me--x --trust" in capfd.readouterr().out
    assert not canary.exists()  # Only who plays it needs it.
    assert "if you trust it, add --trust" in refuse("score", "hub/me--x")
