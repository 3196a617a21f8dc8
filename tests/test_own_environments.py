"""Environments of the user's own, named as `module:Id-v0`, are trained, scored and watched."""

import contextlib
import csv
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from envs import EnvConfig, EnvError, SharedVectorEnv, make
from envs.registry import frames_per_env_step
from evaluation.protocol import bounded, is_bounded

ROOT = Path(__file__).parent.parent
TINY = [
    "--num-envs",
    "2",
    "--num-workers",
    "2",
    "--rollout-length",
    "8",
    "--total-env-steps",
    "32",
    "--eval-episodes",
    "2",
    "--height",
    "40",
    "--width",
    "40",
]

MODULE = '''
import gymnasium as gym
import numpy as np
from gymnasium import spaces

class Toy(gym.Env):
    """Ten steps of random observations; each has a reward of 1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, actions, observed, render_mode=None):
        self.action_space, self.observation_space = actions, observed
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.count = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.count += 1
        return self.observation_space.sample(), 1.0, False, self.count == 10, {}

    def render(self):
        return np.full((48, 64, 3), 25 * self.count, np.uint8)

class Shaped(gym.Wrapper):
    """Doom, whose rewards are scaled for learning."""

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward / 100, terminated, truncated, info

class Sevenfold(gym.RewardWrapper):
    """Rewards for learning."""

    def reward(self, reward):
        return 7 * reward

def shaped(**more):
    options = {"height": 40, "width": 40, "frame_skip": 8, "time_limit": 64, **more}
    return Shaped(gym.make("envs:doomgrad/Basic-v0", **options))

def stacked():
    return gym.wrappers.FrameStackObservation(shaped(), 4)

camera, arm = spaces.Box(0, 255, (48, 48, 3), np.uint8), spaces.Box(-1, 1, (2,), np.float32)
envs = {
    "Robot": (spaces.MultiDiscrete([2, 3]), spaces.Dict({"camera": camera, "arm": arm})),
    "Image": (spaces.Discrete(3), camera),
    "Switches": (spaces.MultiBinary(4), spaces.Dict({"arm": arm, "mode": spaces.Discrete(3)})),
    "Driver": (spaces.Box(-2.0, 5.0, (2,), np.float64), spaces.Tuple((arm, arm))),
    "Speaker": (spaces.Text(5), arm),
}
for name, (actions, observed) in envs.items():
    kwargs = {"actions": actions, "observed": observed}
    gym.register(f"own/{name}-v0", entry_point=Toy, kwargs=kwargs)
gym.register("own/Shaped-v0", entry_point=shaped)
gym.register("own/Stacked-v0", entry_point=stacked)
'''


@pytest.fixture
def folder(tmp_path) -> Path:
    """A user's folder, with modules in it."""
    (tmp_path / "my_envs.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "lacking.py").write_text("import no_such_module_at_all\n")
    return tmp_path


@pytest.fixture
def here(folder, monkeypatch):
    """This process, as if it were a command that was run in the folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("my_envs", None)
    for name in [name for name in gym.registry if name.startswith("own/")]:
        del gym.registry[name]


def command(program: str, *arguments: str, cwd: Path, path: str = "") -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path:
        environment["PYTHONPATH"] = path
    done = subprocess.run(
        [sys.executable, str(ROOT / program), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_module_in_the_current_folder_is_trained_scored_and_watched(folder, tmp_path_factory):
    wrapped = ["--wrappers", "my_envs:Sevenfold", "--time-limit", "9"]
    status, _, said = command("train.py", "my_envs:own/Robot-v0", *TINY, *wrapped, cwd=folder)
    assert status == 0, said
    run = str(folder / "runs/my_envs-own-robot-v0/ppo-seed0")
    with open(f"{run}/progress.csv") as file:
        rows = list(csv.DictReader(file))
    # What is reported is native.
    assert float(rows[-1]["rollout/ep_rew_mean"]) == float(rows[-1]["eval/mean_reward"]) == 9
    # What a run names is not imported before the user says so.
    status, _, said = command("evaluate.py", "score", run, "--episodes=2", cwd=folder)
    assert status == 2
    (line,) = said.splitlines()
    assert "importing my_envs" in line
    assert line.endswith("add --trust")
    arguments = ["score", run, "--episodes=2", "--trust"]
    status, said, _ = command("evaluate.py", *arguments, cwd=folder)
    assert status == 0
    assert "9.00" in said  # It has no time limit that Gymnasium knows of.
    # On Python's path it is found from anywhere.
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    arguments = ["replay", run, "--trust", "--out", "it.mp4"]
    status, _, said = command("evaluate.py", *arguments, cwd=elsewhere, path=str(folder))
    assert status == 0, said
    assert (elsewhere / "it.mp4").stat().st_size > 1000


@pytest.mark.parametrize("name", ["Robot", "Image", "Switches", "Driver"])
@pytest.mark.usefixtures("here")
def test_workers_step_it_too(name):
    envs = SharedVectorEnv(EnvConfig(env=f"my_envs:own/{name}-v0"), 2, num_workers=2)
    with contextlib.closing(envs):
        obs, _ = envs.reset(seed=0)
        assert envs.observation_space.contains(obs)
        for _ in range(10):
            obs, rewards, _, truncated, infos = envs.step(envs.action_space.sample())
            assert rewards.tolist() == [1, 1]
            assert envs.observation_space.contains(obs)
        assert truncated.all()
        assert infos["final_info"]["episode"]["r"].tolist() == [10, 10]


@pytest.mark.usefixtures("here")
def test_doom_in_a_wrapper_is_reported_in_native_rewards():
    envs = SharedVectorEnv(EnvConfig(env="my_envs:own/Shaped-v0"), 2, num_workers=2)
    with contextlib.closing(envs):
        assert envs.metadata["channels"] == ("palette",)
        assert envs.reset(seed=0)[0].shape == (2, 40, 40, 1)
        shaped = sum(envs.step(np.zeros(2, np.int64))[1] for _ in range(7))
        _, rewards, _, truncated, infos = envs.step(np.zeros(2, np.int64))
        assert truncated.all()
        assert infos["final_info"]["episode"]["r"].tolist() == [-64, -64]
        assert shaped + rewards == pytest.approx([-0.64, -0.64])
    with pytest.raises(EnvError, match=r"^height is decided by my_envs:own/Shaped-v0 it"):
        make(EnvConfig(env="my_envs:own/Shaped-v0", height=60))


@pytest.mark.usefixtures("here")
def test_doom_in_a_wrapper_is_scored_as_it_is_registered():
    config = EnvConfig(env="my_envs:own/Shaped-v0")
    scored = bounded(config)
    assert scored.time_limit is None
    assert not is_bounded(scored)
    assert frames_per_env_step(scored) == 8
    with contextlib.closing(make(scored)) as env:
        assert env.unwrapped.time_limit == 64
        env.reset(seed=0)
        steps = [env.step(0) for _ in range(8)]
        assert steps[-1][3]
        assert [step[1] for step in steps] == [-8.0] * 8  # Native, as what is reported.


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("broken:Robot-v0", "the module broken cannot be imported: SyntaxError: "),
        ("lacking:Robot-v0", "the module lacking cannot be imported: ModuleNotFoundError: No mod"),
        ("nowhere:Robot-v0", "imported: it is neither installed nor in the current folder$"),
        ("nowhere.at.all:Robot-v0", "imported: it is neither installed nor in the current folder$"),
        (".:Robot-v0", r"the module \. cannot be imported: "),
        ("my_envs:own/Robto-v0", r"did you mean my_envs:own/Robot-v0\?"),
        (
            "my_envs:own/Stacked-v0",
            r"observes Box\(0, 255, \(4, 40, 40, 1\), u.* instead",
        ),
        ("my_envs:own/Speaker-v0", r"has the action space Text\(1, 5, "),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_made_is_refused_in_one_line(env, said):
    with pytest.raises(EnvError, match=said) as refusal:
        make(EnvConfig(env=env))
    assert "\n" not in str(refusal.value)
