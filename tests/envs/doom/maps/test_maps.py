"""Every kind of generated maps: pure, connected, readable, and playable by the engine.

The maps are read from the text that is written, by a parser of its own.
"""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import EnvConfig, EnvError, make
from envs.doom.env import DoomEnv
from envs.doom.maps import MAPS, MapConfig, NoMap, map_options
from envs.doom.maps.level import DOOR, PLAYER, SOLID
from envs.doom.maps.maze import Maze, MazeConfig
from envs.doom.maps.scripted import ScriptedPlayer, scripted_config
from envs.doom.maps.source import MapSource

KINDS = list(MAPS)
SMALL = {"height": 60, "width": 80}
# What a scripted player that knows the map gets at least. In `gather` it does not plan ahead, and
# does not survive everywhere; doing nothing yields 188. In the other two, it may be shot.
SOLVED = {"maze": 0.8, "gather": 600, "key": 1.3, "two_colours": 1.2}


def source(kind: str, **options: object) -> MapSource:
    config = map_options(f"maps:{kind}", options)
    assert isinstance(config, MapConfig)
    return MapSource(f"maps:{kind}", config)


def blocks(text: str, kind: str) -> list[dict[str, str]]:
    """Parse the blocks of one kind in a UDMF text."""
    found = re.findall(rf"\b{kind}\s*{{([^}}]*)}}", text)
    return [dict(re.findall(r"(\w+)\s*=\s*\"?([^;\"]*)\"?;", block)) for block in found]


def reachable(text: str, step: float) -> set[tuple[int, int]]:
    """Return the squares of a map that can be walked to from the start, by flood fill.

    Squares are `step` wide. Lines with one side, and those that block, cannot be crossed.
    """
    vertices = [(float(v["x"]), float(v["y"])) for v in blocks(text, "vertex")]
    walls = set()
    for line in blocks(text, "linedef"):
        if "sideback" in line and line.get("blocking") != "true":
            continue
        (x0, y0), (x1, y1) = vertices[int(line["v1"])], vertices[int(line["v2"])]
        assert x0 == x1 or y0 == y1
        for i in range(round(min(y0, y1) / step), round(max(y0, y1) / step)):
            walls.add(("x", round(x0 / step), i))
        for i in range(round(min(x0, x1) / step), round(max(x0, x1) / step)):
            walls.add(("y", i, round(y0 / step)))
    start = next(t for t in blocks(text, "thing") if int(t["type"]) == PLAYER)
    first = (int(float(start["x"]) // step), int(float(start["y"]) // step))
    found, queue = {first}, deque([first])
    while queue:
        x, y = queue.popleft()
        for square, wall in (
            ((x + 1, y), ("x", x + 1, y)),
            ((x - 1, y), ("x", x, y)),
            ((x, y + 1), ("y", x, y + 1)),
            ((x, y - 1), ("y", x, y)),
        ):
            if wall not in walls and square not in found:
                assert max(map(abs, square)) < 500, "the map is not closed"
                found.add(square)
                queue.append(square)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_is_a_function_of_its_seed(kind: str):
    maps = source(kind)
    texts = [maps.text(seed) for seed in range(10)]
    assert [source(kind).text(seed) for seed in reversed(range(10))] == texts[::-1]
    assert len(set(texts)) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_everything_on_a_map_can_be_walked_to(kind: str):
    for seed in range(30):
        level, text = source(kind).level(seed), source(kind).text(seed).decode()
        step = float(level.cell_size)
        walked = reachable(text, step)
        things = blocks(text, "thing")
        at = [(int(float(t["x"]) // step), int(float(t["y"]) // step)) for t in things]
        assert set(at) <= walked, seed
        assert len(walked) == (level.rooms >= 0).sum(), seed
        assert [int(t["type"]) for t in things].count(PLAYER) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_room_of_a_map_has_cells(kind: str):
    for seed in range(100):
        level = source(kind).level(seed)
        assert set(level.rooms[level.rooms >= 0].tolist()) == set(range(len(level.looks))), seed


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_map_refers_to_exists(kind: str):
    for seed in range(5):
        text = source(kind).text(seed).decode()
        vertices, sides, sectors = (blocks(text, k) for k in ("vertex", "sidedef", "sector"))
        used = set()
        for line in blocks(text, "linedef"):
            assert line["v1"] != line["v2"]
            assert int(line["v1"]) < len(vertices)
            assert int(line["v2"]) < len(vertices)
            used |= {int(line[side]) for side in ("sidefront", "sideback") if side in line}
        assert used == set(range(len(sides)))
        assert {int(side["sector"]) for side in sides} == set(range(len(sectors)))


def test_only_the_key_kind_has_a_locked_door_which_the_key_is_not_behind():
    for seed in range(30):
        level = source("key").level(seed)
        text = source("key").text(seed).decode()
        doors = [line for line in blocks(text, "linedef") if line.get("special") == str(DOOR)]
        assert len(doors) == 2
        # Without the door's opening, the goal is out of reach, and the key is not.
        shut = re.sub(r"(special=13;)", r"blocking=true;\1", text)
        walked = reachable(shut, float(level.cell_size))
        key, goal = level.targets
        assert key[::-1] in walked
        assert goal[::-1] not in walked


@pytest.mark.parametrize("kind", KINDS)
def test_looks_do_not_change_the_layout(kind: str):
    plain = source(kind).level(3)
    other = source(kind, textures="test", light=[60, 90]).level(3)
    assert (plain.rooms == other.rooms).all()
    assert plain.things == other.things
    assert all(
        a.wall != b.wall for a, b in zip(plain.looks, other.looks, strict=True) if not a.lock
    )


@pytest.fixture(scope="module", params=KINDS)
def played(request: pytest.FixtureRequest) -> tuple[str, list[list[bytes]]]:
    """Episodes of seeds 1, 2, 1 in one engine, then of seed 1 in another: what was seen."""
    kind = request.param
    seen = []
    for seeds in ([1, 2, 1], [1]):
        env = DoomEnv(EnvConfig(env=f"maps:{kind}", variables=True, **SMALL))
        for seed in seeds:
            env.action_space.seed(0)
            obs, _ = env.reset(seed=seed)
            frames = [obs["screen"].tobytes() + obs["variables"].tobytes()]
            for _ in range(12):
                obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
                frames.append(obs["screen"].tobytes() + str(reward).encode())
                assert not terminated
                assert not truncated
            seen.append(frames)
        env.close()
    return kind, seen


def test_an_episode_is_a_function_of_its_seed_whatever_was_played_before(
    played: tuple[str, list[list[bytes]]],
):
    _, (first, other, again, elsewhere) = played
    assert first == again == elsewhere
    assert first != other


def test_time_that_runs_out_truncates_and_goals_terminate():
    env = DoomEnv(scripted_config(EnvConfig(env="maps:two_colours", time_limit=3, **SMALL)))
    try:
        result = ScriptedPlayer(env).play(0)
        assert not result["terminated"]
        assert result["frames"] == 3
        env.time_limit = 1050
        result = ScriptedPlayer(env).play(0)
        assert result["terminated"]
        assert result["r"] == pytest.approx(1.3, abs=0.06)
    finally:
        env.close()


def test_the_wrong_colour_ends_the_episode_and_pays_nothing():
    env = DoomEnv(scripted_config(EnvConfig(env="maps:two_colours", **SMALL)))
    original = env.maps.level
    try:

        def deceived(seed: int):
            level = original(seed)
            junction, right = level.targets
            wrong = tuple(2 * np.array(junction) - np.array(right))
            object.__setattr__(level, "targets", (junction, (int(wrong[0]), int(wrong[1]))))
            return level

        env.maps.level = deceived  # type: ignore[method-assign]
        result = ScriptedPlayer(env).play(0)
    finally:
        env.close()
    assert result["terminated"]
    assert result["r"] == pytest.approx(0.3, abs=0.06)  # The bonuses on the way.


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOLVED)
def test_a_player_that_knows_the_map_solves_it(kind: str):
    env = DoomEnv(scripted_config(EnvConfig(env=f"maps:{kind}", **SMALL)))
    player = ScriptedPlayer(env)
    try:
        for seed in range(40):
            assert player.play(seed)["r"] >= SOLVED[kind], seed
    finally:
        env.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_plays_maps_of_all_sizes(kind: str):
    largest = {"maze": 13, "key": 13, "corridors": 12, "two_colours": 12}.get(kind, 24)
    config = EnvConfig(env=f"maps:{kind}", map={"size": [2 if largest < 20 else 4, largest]})
    env = DoomEnv(config)
    try:
        for seed in range(100):
            env.reset(seed=seed)
            env.step(env.action_space.sample())
    finally:
        env.close()


def test_options_of_another_kind_or_out_of_range_are_refused():
    assert EnvConfig(env="basic").map == NoMap()
    for options, message in (
        ({"monsters": [1, 2]}, "monsters is not an option of maps:maze"),
        ({"size": [5, 3]}, "size must be two numbers from 2 to 13"),
        ({"num_maps": 0}, "num_maps must be at least 1"),
        ({"textures": "none"}, "Invalid enum value 'none'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            EnvConfig(env="maps:maze", map=options)
    with pytest.raises(EnvError, match="there is no kind of maps 'castle'; choose from maze"):
        DoomEnv(EnvConfig(env="maps:castle"))


def test_a_small_maze_has_as_many_rooms_as_cells_at_most():
    level = Maze(MazeConfig(size=(2, 2), rooms=(16, 16))).level(0)
    assert len(level.looks) == len(set(level.rooms[level.rooms != SOLID].tolist())) == 7


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gymnasium_finds_no_fault(kind: str):
    env = make(EnvConfig(env=f"maps:{kind}", observation="rgb", **SMALL))
    try:
        check_env(env, skip_render_check=True)
    finally:
        env.close()


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    env = DoomEnv(EnvConfig(env="maps:maze", **SMALL))
    env.reset(seed=0)
    assert list(tmp_path.rglob("*.wad"))
    env.close()
    assert not list(tmp_path.iterdir())
