"""Files from strangers: none is executed, ends in a traceback, or exhausts the memory."""

import io
import json
import os
import pickle
import resource
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save as safetensors

import evaluate
import train
from envs import EnvError
from envs.doom.cfg import BUNDLED, read_cfg
from envs.doom.wad import maps
from envs.video import read_mp4
from storage.files import FileError
from storage.policy_file import load_policy
from storage.recording import load_recording
from storage.run_folder import RunFolder
from storage.tensor_file import TensorFile
from tests.agents.files import rewrite
from tests.programs import SHARED, refused, status_of

MOST_MEMORY = 200 * 2**20
ARMED = "DOOMGRAD_CANARY"


class Canary:
    """Runs a command as soon as it is unpickled."""

    def __reduce__(self):
        return os.system, (f'touch "${ARMED}"',)


RESUME = ["basic", "--memory", "gru", *SHARED, "--total-env-steps", "192"]
"""The command that resumes the shared run."""


@pytest.fixture
def run(doom_run, tmp_path):
    """A copy of a run of `basic`, to be spoilt."""
    folder = tmp_path / "run"
    shutil.copytree(doom_run, folder)
    return folder


@pytest.fixture
def canary(tmp_path, monkeypatch):
    path = tmp_path / "canary"
    monkeypatch.setenv(ARMED, str(path))
    return path


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def refuse(capsys, program, *arguments):
    """Run a program that must refuse in one line, in little memory, and return the line."""
    before = peak_memory()
    line = refused(capsys, program, *arguments)
    assert peak_memory() - before < MOST_MEMORY
    return line


def header(description, **tensors):
    """Return a safetensors file that is a header and nothing else."""
    content = json.dumps({**tensors, "__metadata__": description}).encode()
    return struct.pack("<Q", len(content)) + content


def pickled(protocol):
    return pickle.dumps(Canary(), protocol=protocol)


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def torch_saved(**options):
    buffer = io.BytesIO()
    torch.save({"weights": torch.zeros(2), "canary": Canary()}, buffer, **options)
    return buffer.getvalue()


def numpy_saved(name, value):
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.array([value], dtype=object)})
    return buffer.getvalue()


HUGE = {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}
SB3_DATA = json.dumps({"policy_class": {":type:": "type", ":serialized:": pickled(2).hex()}})
POLICIES = {
    **{f"pickle {protocol}": pickled(protocol) for protocol in range(6)},
    "torch zip": torch_saved(),
    "torch legacy": torch_saved(_use_new_zipfile_serialization=False),
    "sb3 zip": zipped(**{"data": SB3_DATA, "policy.pth": pickled(2), "pytorch_variables.pth": b""}),
    "zip of a pickle": zipped(archive=pickled(4)),
    "numpy of objects": numpy_saved("weights", Canary()),
    "joblib": b"\x80\x04\x95" + pickled(4),
    "nothing": b"",
    "one byte": b"\x00",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "a script": b"#!/bin/sh\ntouch $DOOMGRAD_CANARY\n",
    "an html page": b"<html>404</html>",
    "header of a terabyte": struct.pack("<Q", 2**40) + b"{}",
    "header of all there is": struct.pack("<Q", 2**64 - 1) + b"{}",
    "header of ninety megabytes": struct.pack("<Q", 90 * 2**20) + b" " * 1000,
    "header that is no json": struct.pack("<Q", 4) + b"{{{{",
    "header that is a list": struct.pack("<Q", 2) + b"[]",
    "header nested deeply": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "tensor of a terabyte": header({"doomgrad": "{}"}, weights=HUGE),
    "tensor of negative size": header({}, w={"dtype": "U8", "shape": [-1], "data_offsets": [0, 4]}),
    "tensor of no type": header({}, w={"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}),
    "tensor beyond the end": header({}, w={"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}),
    "tensors that overlap": header(
        {},
        a={"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
        b={"dtype": "U8", "shape": [4], "data_offsets": [2, 6]},
    )
    + bytes(6),
    "foreign safetensors": safetensors({"w": torch.zeros(3)}),
    "description that is no json": safetensors({"w": torch.zeros(3)}, {"doomgrad": "{"}),
    "description nested deeply": safetensors(
        {"w": torch.zeros(3)}, {"doomgrad": "[" * 100_000, "sha256": ""}
    ),
    "another format": safetensors({"w": torch.zeros(1)}, {"doomgrad": '{"format": 99}'}),
    "unsigned": safetensors({"w": torch.zeros(1)}, {"doomgrad": '{"format": 2}'}),
    "wrongly signed": safetensors(
        {"w": torch.zeros(1)}, {"doomgrad": '{"format": 2}', "sha256": "0" * 64}
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_no_policy(capsys, tmp_path, canary, name):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(POLICIES[name])
    assert str(path) in refuse(capsys, evaluate, "score", path)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["pickle 4", "torch zip", "sb3 zip", "tensor of a terabyte"])
def test_what_is_no_checkpoint(capsys, run, canary, name):
    for file in (run / "checkpoint").iterdir():
        file.write_bytes(POLICIES[name])
    capsys.readouterr()
    assert status_of(train, *RESUME, "--run-dir", run) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "resuming from the checkpoint before it" in lines[0]
    assert lines[1].startswith("error: ")
    assert not canary.exists()


def change(**fields):
    return lambda description: description.update(fields)


def nested(part, **fields):
    return lambda description: description[part].update(fields)


def of_encoder(**fields):
    return lambda description: description["perception"]["encoder"].update(fields)


LIES = {
    "a network of terabytes": lambda d: d["perception"]["memory"].update(memory_size=2**20),
    "features without end": of_encoder(features=2**40),
    "channels without end": of_encoder(conv_channels=[2**30] * 3),
    "strides of nothing": of_encoder(conv_strides=[0, 0, 0]),
    "an encoder that is none": of_encoder(name="os"),
    "an encoder that is no name": of_encoder(name=["nature"]),
    "a memory that is none": nested("perception", memory={"name": "__class__"}),
    "a screen of terabytes": lambda d: d["specs"]["obs"].update(shape=[2**20, 2**20, 1]),
    "a palette of nothing": lambda d: d["specs"]["obs"].update(palette=[]),
    "choices without end": change(actions={"kind": "discrete", "sizes": [2**62]}),
    "choices below nothing": change(actions={"kind": "multi_discrete", "sizes": [-1, 2]}),
    "too many choices": change(actions={"kind": "multi_discrete", "sizes": [2] * 10_000}),
    "code for an environment": nested("env", env="os:system-v0"),
    "an environment that is no text": nested("env", env=["basic"]),
    "a cfg that does not exist": nested("env", env="/etc/passwd.cfg"),
    "a wad that is none": nested("env", env="/dev/zero.wad"),
    "a frame skip without end": nested("env", frame_skip=-(10**9)),
    "a stack without end": nested("env", frame_stack=10**6),
    "bins without end": nested("env", delta_bins=10**9 + 1),
    "a field of its own": nested("env", __class__="os"),
    "nothing at all": lambda d: [d.pop(key) for key in ("specs", "env")],
    "the wrong type everywhere": change(perception=7, env=7, specs=7, actions=7),
    "an old format": change(format=3),
    "an old format of the wrong type": change(format=3, perception={"layers": 7, "encoder": 7}),
    "an old format with another encoder": change(
        format=3, perception={"layers": {}, "encoder": "os", "memory": "none"}
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_policy_that_lies(capsys, run, canary, name):
    path = run / "policy.safetensors"
    rewrite(path, LIES[name])
    refuse(capsys, evaluate, "score", path, "--episodes", "1")
    assert not canary.exists()


@pytest.mark.parametrize("name", ["policy.safetensors", "checkpoint"])
def test_a_file_of_gigabytes_of_nothing(capsys, run, name):
    size = 2**33
    zeros = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    with safe_open(run / "policy.safetensors", "pt") as content:
        metadata = content.metadata()
    (run / "best.safetensors").unlink()
    files = run.glob("checkpoint/*") if name == "checkpoint" else [run / name]
    for file in files:
        file.write_bytes(header(metadata, zeros=zeros))
        os.truncate(file, file.stat().st_size + size)  # It takes no room on the disk.
    if name == "checkpoint":
        before = peak_memory()
        assert status_of(train, *RESUME, "--run-dir", run) == 2
        assert peak_memory() - before < MOST_MEMORY
        assert "too large to be a checkpoint" in capsys.readouterr().err
    else:
        assert "is missing" in refuse(capsys, evaluate, "score", run)


def test_weights_of_another_type_or_shape(capsys, doom_run, tmp_path):
    path = tmp_path / "policy.safetensors"
    for weight in (torch.zeros(1, dtype=torch.float64), torch.zeros(2), torch.zeros(1, 1, 1)):
        shutil.copy(doom_run / "policy.safetensors", path)
        rewrite(path, lambda _: None, replace={"critic.bias": weight})
        assert "critic.bias" in refuse(capsys, evaluate, "score", path)


CFGS = {
    "an executable": "vizdoom_path = {script}\n",
    "a configuration": "doom_config_path = {script}\n",
    "arguments": "game_args += +exec {script}\n",
    "arguments in braces": "game_args = {{ +set vid_defwidth 1 ; exec {script} }}\n",
    "a map that is a command": 'doom_map = "map01; exec {script}"\n',
    "a wad outside": "doom_scenario_path = ../../../../../../etc/hostname\n",
    "an absolute wad": "doom_scenario_path = {script}\n",
    "a game outside": "doom_game_path = /etc/passwd\n",
    "a number that is none": "episode_timeout = 1e999\n",
    "a skill of code": "doom_skill = __import__('os')\n",
    "a start beyond the end": "episode_start_time = 999999999999\n",
    "a button of its own": "available_buttons = {{ ATTACK SYSTEM }}\n",
    "a variable of its own": "available_game_variables = {{ HEALTH os.system }}\n",
    "a key of its own": "__class__ = os\n",
    "bytes": "\x00\x01\x02",
    "too much": "# filler\n" * 10_000,
}


@pytest.mark.parametrize("name", CFGS)
def test_a_cfg_that_asks_for_more(capsys, monkeypatch, tmp_path, canary, name):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch '{canary}'\n")
    script.chmod(0o700)
    text = CFGS[name].format(script=script)
    if "button" not in name:
        text += "available_buttons = { ATTACK }\n"
    (tmp_path / "mine.cfg").write_text(text)
    refuse(capsys, train, "mine.cfg")
    assert not canary.exists()


WADS = {
    "nothing": b"",
    "text": b"IWAD, honestly",
    "lumps without end": b"PWAD" + struct.pack("<ii", 2**31 - 1, 12),
    "lumps below nothing": b"PWAD" + struct.pack("<ii", -1, 12),
    "a directory beyond the end": b"PWAD" + struct.pack("<ii", 1, 2**31 - 1),
    "no map": b"PWAD" + struct.pack("<ii", 1, 12) + struct.pack("<ii8s", 0, 0, b"CREDIT\0\0"),
}


@pytest.mark.parametrize("name", WADS)
def test_a_wad_that_is_none(capsys, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.wad").write_bytes(WADS[name])
    refuse(capsys, train, "mine.wad")


def npy(shape, data=b""):
    head = repr({"descr": "<f8", "fortran_order": False, "shape": shape}).encode()
    head += b" " * (-(10 + len(head) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


EPISODES = {
    "a pickle": pickled(4),
    "objects": numpy_saved("actions", Canary()),
    "an array of terabytes": zipped(**{"about.npy": npy((2**40,)), "actions.npy": npy((2**40,))}),
    "a bomb": None,
    "nothing": b"",
    "a zip of nothing": zipped(),
}


@pytest.mark.parametrize("name", EPISODES)
def test_an_episode_that_is_none(capsys, run, canary, name):
    content = EPISODES[name]
    if content is None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("about.npy", npy((2**27,), bytes(2**28)))
        content = buffer.getvalue()
    for file in run.glob("episodes/*.npz"):
        file.write_bytes(content)
    refuse(capsys, evaluate, "replay", run)
    assert not canary.exists()


def test_an_episode_of_an_environment_of_code(capsys, run):
    for file in run.glob("episodes/*.npz"):
        with np.load(file) as content:
            arrays = dict(content)
        about = json.loads(str(arrays["about"]))
        about["env"]["env"] = "os:system-v0"
        np.savez(file, **{**arrays, "about": np.array(json.dumps(about))})
    line = refuse(capsys, evaluate, "replay", run)
    assert "os:system-v0" in line
    assert "--trust" in line


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "7",
        '{"config": 7}',
        '{"config": {"env": {}}}',
        '{"config": {"objectives": 7}}',
        '{"config": {"learning": {}, "perception": {}}}',
        '{"config": {"learning": {}, "agent": {}, "perception": {"layers": 7, "encoder": []}}}',
        "[" * 10**5,
    ],
)
def test_a_config_that_is_none(capsys, run, content):
    (run / "config.json").write_text(content)
    refuse(capsys, train, "basic", "--run-dir", run)


def test_a_config_of_gigabytes(capsys, run):
    os.truncate(run / "config.json", 2**32)
    assert "too large" in refuse(capsys, train, "basic", "--run-dir", run)


def test_links_out_of_a_folder(capsys, monkeypatch, tmp_path, doom_run):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("policy.safetensors", "best.safetensors"):
        (folder / name).symlink_to(doom_run / name)
    line = refuse(capsys, evaluate, "score", folder)
    assert "is a link to a place outside its folder" in line
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "mine.cfg").write_text(
        "doom_scenario_path = mine.wad\navailable_buttons = { ATTACK }\n"
    )
    (tmp_path / "inner" / "mine.wad").symlink_to(Path("/etc/hostname"))
    assert "outside its folder" in refuse(capsys, train, "inner/mine.cfg")


READERS = {
    "policy.safetensors": load_policy,
    "config.json": lambda path: RunFolder(path.parent).read_config(),
    "mine.cfg": read_cfg,
    "mine.wad": maps,
    "episode.npz": load_recording,
}


@pytest.mark.parametrize("kind", READERS)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_a_file_contains(tmp_path, doom_run, canary, kind, data):
    origins = {
        "mine.cfg": BUNDLED / "basic.cfg",
        "mine.wad": BUNDLED / "basic.wad",
        "episode.npz": next((doom_run / "episodes").glob("*.npz")),
    }
    content = bytearray(origins.get(kind, doom_run / kind).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        where = data.draw(st.integers(0, max(0, len(content) - 1)))
        content[where : where + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
    path = tmp_path / kind
    path.write_bytes(content)
    before = peak_memory()
    try:
        READERS[kind](path)
        said = ""
    except (FileError, EnvError) as error:
        said = str(error)
    assert "\n" not in said
    assert peak_memory() - before < MOST_MEMORY
    assert not canary.exists()


def make_odd(path, kind):
    """Make something in place of a file that is none, or that is far too large."""
    if kind == "a fifo":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a loop":
        path.symlink_to(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 2**33)


@pytest.mark.parametrize("kind", ["a fifo", "a device", "a loop", "a folder", "gigabytes"])
def test_what_is_no_regular_file_of_bounded_size(tmp_path, kind):
    """Nothing waits for a writer that never comes, or reads without end."""
    for name, read in {
        "policy.safetensors": load_policy,
        "config.json": lambda path: RunFolder(path.parent).read_config(),
        "episode.npz": load_recording,
        "checkpoint": lambda path: TensorFile(path).tensors(),
        "video.mp4": lambda path: next(read_mp4(path)),
    }.items():
        path, before = tmp_path / name, peak_memory()
        make_odd(path, kind)
        with pytest.raises((FileError, EnvError)) as error:
            read(path)
        assert str(tmp_path) in str(error.value)
        assert "\n" not in str(error.value)
        assert peak_memory() - before < MOST_MEMORY
