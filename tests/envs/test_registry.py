"""Tests of `envs.registry`: names of environments, and errors for those that cannot be made."""

import gymnasium as gym
import pytest

from envs import SCENARIOS, DoomEnv, EnvConfig, EnvError, canonical_name, folder_name, make
from envs.doom.maps import MAPS
from envs.doom.scenarios import FREEDOOM_MAPS
from envs.registry import DOOMGRAD_IDS, frames_per_env_step, own_time_limit
from tests.envs import processes
from tests.envs.maps import room, write_wad


def test_every_scenario_and_freedoom_map_is_registered_once():
    maps = sum(len(names) for names in FREEDOOM_MAPS.values())
    assert len(DOOMGRAD_IDS) == len(SCENARIOS) + maps + len(MAPS)
    assert set(DOOMGRAD_IDS) == {name for name in gym.registry if name.startswith("doomgrad/")}
    assert DOOMGRAD_IDS["doomgrad/DefendTheCenter-v0"] == "defend_the_center"
    assert DOOMGRAD_IDS["doomgrad/Freedoom2MAP01-v0"] == "freedoom2:MAP01"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("basic", "basic"),
        ("doomgrad/Basic-v0", "basic"),
        ("doomgrad/Freedoom1E1M1-v0", "freedoom1:E1M1"),
        ("freedoom2:MAP01", "freedoom2:MAP01"),
        ("envs:doomgrad/Basic-v0", "basic"),
        ("CartPole-v1", "CartPole-v1"),
        ("ALE/Pong-v5", "ALE/Pong-v5"),
        ("ale_py:ALE/Pong-v5", "ALE/Pong-v5"),
        ("minigrid:MiniGrid-Empty-5x5-v0", "MiniGrid-Empty-5x5-v0"),
        ("gymnasium:CartPole-v1", "CartPole-v1"),
        ("tests.envs.toy:Shifted-v0", "tests.envs.toy:Shifted-v0"),
    ],
)
def test_an_environment_has_one_canonical_name(asked, name):
    assert canonical_name(asked) == name


@pytest.mark.parametrize(
    ("asked", "closest"),
    [
        ("basci", "basic"),
        ("Basic", "basic"),
        ("defend_center", "defend_the_center"),
        ("health-gathering", "health_gathering"),
        ("Cartpole-v1", "CartPole-v1"),
        ("CartPole-v9", "CartPole-v1"),
        ("doomgrad/basic-v0", "doomgrad/Basic-v0"),
        ("ALE/Pog-v5", "ALE/Pong-v5"),
        ("tests.envs.toy:Shfted-v0", "tests.envs.toy:Shifted-v0"),
        ("PongNoFrameskip-v4", "ALE/Pong-v5"),
        ("BreakoutDeterministic-v0", "ALE/Breakout-v5"),
        ("MsPacman-ramNoFrameskip-v4", "ALE/MsPacman-v5"),
        ("Pong-v4", "ALE/Pong-v5"),
        ("pong", "ALE/Pong-v5"),
        ("CartPole-v4", "CartPole-v1"),
        ("VizdoomBasic-v1", "basic"),
        ("VizdoomCorridor-v0", "deadly_corridor"),
        ("VizdoomDefendCenter-MultiBinary-v1", "defend_the_center"),
        ("VizdoomHealthGatheringSupreme-v0", "health_gathering_supreme"),
        ("VizdoomFreedoom2MAP01-S3-v0", "freedoom2:MAP01 --skill 3"),
        ("doom_my_way_home", "my_way_home"),
    ],
)
def test_the_error_for_an_unknown_name_has_the_closest_one(asked, closest):
    with pytest.raises(EnvError, match=f"did you mean {closest}\\?$") as refusal:
        canonical_name(asked)
    assert repr(asked) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("asked", ["", "xyzzyxyzzy", ":", "???"])
def test_the_error_for_a_name_unlike_any_other_is_one_line(asked):
    with pytest.raises(EnvError, match="there is no environment called") as refusal:
        make(EnvConfig(env=asked))
    assert "\n" not in str(refusal.value)


def test_env_error_is_a_value_error():
    assert issubclass(EnvError, ValueError)


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ("basic", "basic"),
        ("freedoom2:MAP01", "freedoom2-map01"),
        ("ALE/Pong-v5", "ALE-Pong-v5"),
        ("CartPole-v1", "CartPole-v1"),
        ("/home/me/my maps/Arena.cfg", "Arena"),
        ("maps/two words.wad", "two-words"),
        ("/home/me/two.wad:MAP02", "two-map02"),
    ],
)
def test_names_of_folders(env, folder):
    assert folder_name(env) == folder


@pytest.mark.parametrize("env", ["../../etc", "a/../b", "/", "ALE/../x"])
def test_a_folders_name_is_one_folder(env):
    assert "/" not in folder_name(env)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("extra_channels", ("depth",)),
        ("variables", True),
        ("enemy_in_view", True),
        ("depth_targets", True),
        ("kind_targets", True),
        ("targets_every", 2),
        ("skill", 3),
    ],
)
def test_options_of_doom_are_refused_elsewhere(option, value):
    message = f"^{option} is an option of Doom environments; CartPole-v1 is not one$"
    with pytest.raises(EnvError, match=message):
        make(EnvConfig(env="CartPole-v1", **{option: value}))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_pool", True),
        ("noop_max", 30),
        ("fire_reset", True),
        ("terminal_on_life_loss", True),
        ("env_kwargs", ("a=1",)),
    ],
)
def test_options_of_other_environments_are_refused_in_doom(option, value):
    message = f"^{option} is not an option of basic, which is Doom$"
    with pytest.raises(EnvError, match=message):
        make(EnvConfig(env="doomgrad/Basic-v0", **{option: value}))
    with pytest.raises(EnvError, match=message):
        gym.make("doomgrad/Basic-v0", **{option: value})


def test_doom_environments_are_made_by_any_name(tmp_path):
    path = write_wad(tmp_path / "own.wad", room())
    for name in ("basic", "doomgrad/Basic-v0", "freedoom1:E1M1", str(path)):
        env = make(EnvConfig(env=name))
        assert isinstance(env, DoomEnv)
        env.close()
    assert make(EnvConfig(env="doomgrad/Basic-v0")).config.env == "basic"


@pytest.mark.parametrize(
    ("env", "skip", "frames"),
    [
        ("basic", None, 4),
        ("basic", 2, 2),
        ("freedoom2:MAP01", None, 4),
        ("ALE/Pong-v5", None, 4),
        ("ALE/Pong-v5", 3, 3),
        ("CartPole-v1", None, 1),
        ("CartPole-v1", 2, 2),
    ],
)
def test_frames_of_an_env_step(env, skip, frames):
    assert frames_per_env_step(EnvConfig(env=env, frame_skip=skip)) == frames


@pytest.mark.parametrize(
    ("env", "options", "env_steps", "statistics"),
    [
        ("CartPole-v1", {"time_limit": 5}, 5, {"l": 5}),
        ("CartPole-v1", {"time_limit": 5, "frame_skip": 2}, 3, {"r": 5, "l": 3}),
        ("CliffWalking-v1", {"time_limit": 30}, 30, {"l": 30}),
        ("ALE/Pong-v5", {"time_limit": 42}, 11, {"l": 11}),
        ("ALE/Pong-v5", {"time_limit": 42, "max_pool": True}, 11, {"l": 11}),
        ("tests.envs.toy:Endless-v0", {"time_limit": 700}, 700, {"l": 700}),
        ("basic", {"time_limit": 42}, 11, {"frames": 42, "l": 11}),
        ("tests.envs.toy:OwnDoom-v0", {"time_limit": 42}, 11, {"frames": 42, "l": 11}),
    ],
)
def test_every_environment_is_truncated_after_a_time_limit_in_frames(
    env, options, env_steps, statistics
):
    env = make(EnvConfig(env=env, **options))
    env.reset(seed=0)
    for count in range(1, env_steps + 1):
        *_, terminated, truncated, info = env.step(0)
        assert not terminated
        assert truncated == (count == env_steps)
    assert statistics.items() <= info["statistics"].items()
    env.close()


@pytest.mark.parametrize(
    ("env", "limit"),
    [
        ("basic", 300),
        ("freedoom2:MAP01", 126_000),
        ("CartPole-v1", 500),
        ("ALE/Pong-v5", 108_000),
        ("CliffWalking-v1", None),
        ("tests.envs.toy:Shifted-v0", None),
    ],
)
def test_time_limits_that_environments_have_themselves(env, limit):
    assert own_time_limit(env) == limit


def test_an_unsupported_render_mode_is_refused():
    with pytest.raises(EnvError, match="render_mode 'human' is not supported"):
        make(EnvConfig(env="basic"), render_mode="human")


# A module that is None in `sys.modules` cannot be imported, as if it were not installed.
WITHOUT = """
import sys
for name in {names!r}:
    sys.modules[name] = None
from envs import EnvConfig, EnvError, make
make(EnvConfig()).close()
try:
    make(EnvConfig(env={env!r}))
except EnvError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("names", "env", "extra"),
    [
        (["ale_py"], "ALE/Pong-v5", "atari"),
        (["minigrid"], "MiniGrid-MemoryS7-v0", "minigrid"),
        (["Box2D"], "CarRacing-v3", "box2d"),
        (["Box2D"], "LunarLander-v3", "box2d"),
    ],
)
def test_a_missing_package_is_named_in_one_line(names, env, extra, tmp_path):
    output = processes.run_script(WITHOUT.format(names=names, env=env), tmp_path)
    assert output == f'{env} needs a package that is missing: pip install -e ".[{extra}]"\n'


def test_atari_games_are_known_by_their_old_endings_without_the_emulator(tmp_path):
    output = processes.run_script(
        WITHOUT.format(names=["ale_py"], env="QbertNoFrameskip-v4"), tmp_path
    )
    assert output.endswith("did you mean ALE/Qbert-v5?\n")
