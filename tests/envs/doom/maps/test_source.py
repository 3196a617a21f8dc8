"""Maps in WADs: which map an episode has, and what is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from envs.doom.maps.arena import ArenaConfig
from envs.doom.maps.maze import MazeConfig
from envs.doom.maps.seeds import TRAINING, map_seed
from envs.doom.maps.source import MapSource, map_hash
from envs.doom.wad import check_start, maps, read_directory
from evaluation import seeds


def test_training_is_where_evaluation_says_it_is():
    assert TRAINING == seeds.TRAINING


@pytest.mark.parametrize("num_maps", [1, 10, 1000, None])
def test_maps_of_training_evaluation_and_scoring_are_disjoint(num_maps: int | None):
    config = MazeConfig(num_maps=num_maps, first_map=7)
    first = seeds.first_training_seed(3)
    trained = {map_seed(config, first + i) for i in range(2000)}
    scored = {map_seed(config, seeds.SCORING + i) for i in range(2000)}
    evaluated = {map_seed(config, seeds.EVALUATION + i) for i in range(2000)}
    tuned = {map_seed(config, seeds.TUNING + i) for i in range(2000)}
    assert len(trained) == (num_maps or 2000)
    if num_maps:  # Each as often as the others, but for turns that are cut at both ends.
        times = Counter(map_seed(config, first + i) for i in range(2000))
        assert max(times.values()) - min(times.values()) <= 2
    assert len(scored | evaluated | tuned) == 6000
    assert not trained & (scored | evaluated | tuned)
    # The last seed that scores may have, too.
    assert map_seed(config, seeds.MAX_SCORING) == seeds.MAX_SCORING not in trained


def test_an_exported_wad_has_the_maps_of_the_training(tmp_path: Path):
    source = MapSource("maps:maze", MazeConfig(num_maps=3))
    file = tmp_path / "maze.wad"
    assert source.export(file, seeds.first_training_seed(0)) == 3
    assert maps(file) == ["MAP01", "MAP02", "MAP03"]
    lumps = [lump for lump in read_directory(file) if lump[0] == "TEXTMAP"]
    content = file.read_bytes()
    for number, (_, offset, size) in enumerate(lumps):
        check_start(file, f"MAP{number + 1:02d}")
        # Episodes with these seeds are on these maps.
        config = source.config
        seed = next(
            s for s in range(TRAINING, TRAINING + 3) if map_seed(config, s) == TRAINING + number
        )
        assert content[offset : offset + size] == source.text(seed)


def test_a_map_is_put_where_the_engine_reads_it(tmp_path: Path):
    source = MapSource("maps:arena", ArenaConfig(monster_look="marine"))
    file = tmp_path / "maps.wad"
    source.place(file)
    before = read_directory(file)
    assert [name for name, *_ in before] == ["MAP01", "TEXTMAP", "ENDMAP", "DECORATE"]
    source.put(file, 5)
    assert read_directory(file) == before
    _, offset, size = before[1]
    assert file.read_bytes()[offset : offset + size].rstrip() == source.text(5).rstrip()


def test_the_hash_is_that_of_the_episodes_map():
    config = MazeConfig(num_maps=2)
    hashes = [map_hash("maps:maze", config, TRAINING + i) for i in range(4)]
    assert hashes[0] != hashes[1]
    assert set(hashes[:2]) == set(hashes[2:])


@pytest.mark.parametrize("num_envs", [16, 32])
@pytest.mark.parametrize("num_maps", [16, 100])
def test_every_environment_sees_all_training_maps(num_envs: int, num_maps: int):
    config = MazeConfig(num_maps=num_maps)
    first = seeds.first_training_seed(0)
    for lane in range(num_envs):
        seen = {map_seed(config, first + lane + num_envs * i) for i in range(20 * num_maps)}
        assert len(seen) == num_maps
