"""Tests of push and pull: the real client and real requests, to a hub on this machine."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

import evaluate
from commands.commandline import parse, run
from storage.run_folder import RunFolder
from tests.agents.files import rewrite
from tests.deploy.fake_hub import OWNER, READER, set_endpoint

PUSHED = {"policy.safetensors", "config.json", "evaluation.json", "replay.mp4", "README.md"}


def evaluated(*words: object) -> int:
    return evaluate.main([str(word) for word in words])


@pytest.fixture
def refuse(monkeypatch, capfd):
    """Run a command that must fail without writing a file; return its only line of output."""

    def refuse(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
        before = sorted(Path().rglob("*"))
        capfd.readouterr()
        assert run(evaluate.main) == 2
        captured = capfd.readouterr()
        (line,) = captured.err.splitlines()
        assert captured.out == ""
        assert [path for path in sorted(Path().rglob("*")) if path not in before] in (
            [],
            [Path("hub")],
        )
        return line.removeprefix("error: ")

    return refuse


def test_a_pushed_run_can_be_pulled_and_the_printed_commands_work(hub, trained, capsys, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    assert evaluated("push", folder, "me/cartpole") == 0
    assert "python evaluate.py pull me/cartpole" in capsys.readouterr().out
    files = hub.repositories["me/cartpole"].commits[hub.repositories["me/cartpole"].head]
    assert files.keys() == PUSHED
    best = RunFolder(folder).best_file.read_bytes()
    assert files["policy.safetensors"] == best
    assert files["config.json"] == (folder / "config.json").read_bytes()
    # They were made as by `score` and `replay`, and kept in the run folder.
    assert files["evaluation.json"] == (folder / "evaluation.json").read_bytes()
    assert files["replay.mp4"] == (folder / "replay.mp4").read_bytes()
    assert json.loads(files["evaluation.json"])["protocol"]["seeds"] == [0, 99]

    assert evaluated("pull", "me/cartpole") == 0
    pulled = Path("hub/me--cartpole")
    assert {path.name: path.read_bytes() for path in pulled.iterdir()} == files
    assert list(Path("hub").iterdir()) == [pulled]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "hub/me--cartpole: CartPole-v1, trained with ppo for 128 env steps"
    watch, score = (line.partition("evaluate.py ")[2].split() for line in lines[1:])
    assert parse(evaluate.Command, watch, program="evaluate.py").run == Path("hub/me--cartpole")
    assert evaluated(*score, "--episodes", 2) == 0
    assert "sampled" in capsys.readouterr().out

    # The token is not sent to the second host, from which large files are downloaded.
    tokens = {token for _, path, token in hub.requests if path.startswith("/cdn/")}
    assert tokens == {None}


def test_an_existing_score_and_video_are_pushed_and_nothing_is_pushed_twice(hub, scored):
    before = {name: (scored / name).read_bytes() for name in ("evaluation.json", "replay.mp4")}
    assert evaluated("push", scored, "me/cartpole") == 0
    repository = hub.repositories["me/cartpole"]
    files = repository.commits[repository.head]
    assert {name: files[name] for name in before} == before
    assert len(repository.commits) == 2  # Its creation, and the push.
    assert evaluated("push", scored, "me/cartpole") == 0
    assert len(repository.commits) == 2


def test_a_private_repository_stays_private(hub, scored, refuse, monkeypatch):
    assert evaluated("push", scored, "me/secret", "--private") == 0
    assert hub.repositories["me/secret"].private
    assert evaluated("pull", "me/secret") == 0
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no me/secret at http" in refuse("pull", "me/secret", "--out", "again")
    monkeypatch.setenv("HF_TOKEN", OWNER)
    hub.add("me/open", {})
    assert "me/open already exists and is public" in refuse("push", scored, "me/open", "--private")
    assert hub.repositories["me/open"].commits[hub.repositories["me/open"].head] == {}


def test_an_older_revision_can_be_pulled(hub, policy):
    repository = hub.add("me/x", {"policy.safetensors": policy.read_bytes()})
    first = repository.head
    repository.commit({"policy.safetensors": b"something else"})
    assert evaluated("pull", "me/x", "--revision", first, "--out", "first") == 0
    assert Path("first/policy.safetensors").read_bytes() == policy.read_bytes()


def test_what_the_hub_refuses_is_reported_in_one_line(hub, scored, refuse, monkeypatch):
    assert "there is no me/none at http" in refuse("pull", "me/none")
    hub.add("me/x", {"policy.safetensors": b""})
    assert refuse("pull", "me/x", "--revision", "v9").startswith("me/x has no revision v9; name")
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "token does not permit this for me/new" in refuse("push", scored, "me/new")
    assert "token does not permit this for me/x" in refuse("push", scored, "me/x")
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    assert "does not accept this machine's token" in refuse("push", scored, "me/x")
    monkeypatch.delenv("HF_TOKEN")
    assert "log in with `hf auth login`" in refuse("push", scored, "me/x")
    hub.lies["/api/models/me/x"] = (503, {}, b"")
    assert "answers with status 503" in refuse("pull", "me/x")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        set_endpoint(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert "failed: [Errno 111] Connection refused" in refuse("pull", "me/x")


def test_a_wrong_argument_is_reported_in_one_line(hub, scored, refuse, monkeypatch):
    assert "OWNER/basic" in refuse("pull", "basic")
    for name in ("../x", "me/..", "me/x/y", "me/x--y", "/etc", "me/ x"):
        assert name.split("/")[0] in refuse("pull", name)
    Path("mine").mkdir()
    assert "mine already exists" in refuse("pull", "me/x", "--out", "mine")
    policy = scored / "policy.safetensors"
    assert f"{policy} is not a run folder" in refuse("push", policy, "me/x")
    assert "there is no run at nowhere" in refuse("push", "nowhere", "me/x")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    line = 'huggingface_hub is not installed; pip install -e ".[hub]"'
    assert refuse("pull", "me/x") == refuse("push", scored, "me/x") == line
    assert hub.requests == []


def test_a_policy_for_an_environment_that_is_a_file_is_not_pushed(hub, scored, refuse):
    def change(description):
        description["env"]["env"] = "/home/me/mine.cfg"

    rewrite(scored / "best.safetensors", change)
    assert "mine.cfg is a file that others do not have" in refuse("push", scored, "me/x")


def test_files_are_never_written_outside_the_folder(hub, policy, tmp_path):
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
        ("/api/models/me/x", 200, {}, HTML, "does not answer like a Hugging Face hub"),
        ("/api/models/me/x", 200, {}, b"[]", "does not answer like a Hugging Face hub"),
        ("/api/models/me/x", 200, {}, b"{}", "does not answer like a Hugging Face hub"),
        ("/api/models/me/x", 404, {}, HTML, "there is no me/x"),
        ("/api/models/me/x", 500, {}, b"a\x1b[2J\nb" * 999, "status 500 (a[2J ba[2J b"),
        ("policy.safetensors", 200, {}, HTML, "me/x/policy.safetensors ends after"),
        ("policy.safetensors", 403, {}, HTML, "does not permit this"),
        ("policy.safetensors", 502, {}, HTML, "answers with status 502"),
        (
            "policy.safetensors",
            200,
            {"Content-Length": "5000"},
            b"0" * 99,
            "peer closed connection",
        ),
        ("policy.safetensors", 200, {}, b"0" * 10**7, "is longer than"),
        (
            "policy.safetensors",
            302,
            {"Location": "file:///etc/passwd"},
            b"",
            "unsupported protocol",
        ),
    ],
)
def test_an_invalid_answer_is_reported_in_one_line(
    hub, policy, refuse, path, status, headers, body, expected
):
    hub.add("me/x", {"policy.safetensors": policy.read_bytes()})
    hub.lies[path] = (status, headers, body)
    line = refuse("pull", "me/x")
    assert expected in line
    assert len(line) < 400
    assert line.isprintable()


@pytest.mark.parametrize("size", [2**40, -1, None, "many"])
def test_a_file_of_an_impossible_size_is_not_fetched(hub, refuse, size):
    siblings = [{"rfilename": "policy.safetensors", "size": size}]
    about = {"id": "me/x", "sha": "0" * 40, "private": False, "siblings": siblings}
    hub.lies["/api/models/me/x"] = (200, {}, json.dumps(about).encode())
    assert "bytes are fetched" in refuse("pull", "me/x")
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("policy.safetensors", HTML, "me/x/policy.safetensors is damaged"),
        ("policy.safetensors", b"PK\x03\x04" + b"0" * 99, "pickled code"),
        ("config.json", HTML, "me/x/config.json is damaged"),
        ("config.json", b'{"config": []}', "me/x/config.json is damaged"),
        ("evaluation.json", b"[1]" + b"[" * 10**5, "me/x/evaluation.json is damaged"),
        ("replay.mp4", HTML, "me/x/replay.mp4 is not an MP4 video"),
    ],
)
def test_a_file_of_another_kind_is_refused(hub, trained, refuse, name, content, expected):
    valid = ("policy.safetensors", "config.json")
    hub.add("me/x", {n: (trained / n).read_bytes() for n in valid} | {name: content})
    assert expected in refuse("pull", "me/x")


def test_a_repository_without_a_policy_is_refused(hub, refuse):
    hub.add("me/x", {"README.md": b"hello", "model.safetensors": b""})
    assert "me/x holds no policy.safetensors" in refuse("pull", "me/x")


def test_an_incomplete_policy_and_other_tensors_are_refused(hub, policy, refuse, tmp_path):
    hub.add("me/x", {"policy.safetensors": policy.read_bytes()[:-4]})
    assert "me/x/policy.safetensors is damaged" in refuse("pull", "me/x")
    save_file({}, tmp_path / "other.safetensors")
    hub.add("me/x", {"policy.safetensors": (tmp_path / "other.safetensors").read_bytes()})
    assert "was not written by doomgrad" in refuse("pull", "me/x")


def test_a_package_that_a_policy_names_is_imported_only_with_trust(
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
    assert not canary.exists()  # Pulling imports nothing: only playing needs it.
    assert "if you trust it, add --trust" in refuse("score", "hub/me--x")
