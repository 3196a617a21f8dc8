"""The kinds of matches and their maps."""

import pytest

from envs.config import EnvConfig
from envs.doom.cfg import game_spec
from envs.doom.maps.arena import Arena, ArenaConfig
from envs.doom.maps.grid import distances, open_cells
from envs.doom.maps.level import ZOMBIE
from envs.doom.maps.udmf import text
from envs.doom.players.kinds import KINDS, PREFIX, players_kind
from envs.errors import EnvError
from envs.registry import (
    canonical_name,
    folder_name,
    is_imported,
    is_plain_doom,
    make,
    own_time_limit,
)

SEEDS = range(20)


@pytest.mark.parametrize("name", KINDS)
def test_the_map_of_a_seed(name):
    kind = KINDS[name]
    texts = {text(kind.level(seed)) for seed in SEEDS}
    assert len(texts) == len(SEEDS), "every seed has its own map"
    assert texts == {text(kind.level(seed)) for seed in SEEDS}, "a map is a function of its seed"
    assert all(t.count("dm=true") == t.count("coop=true") == t.count("thing{") for t in texts)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_everybody_starts_at_a_place_that_all_can_reach(name, seed):
    kind = KINDS[name]
    level = kind.level(seed)
    cells = open_cells(level.rooms)
    assert len(distances(level.rooms, level.start.cell)) == len(cells)
    starts = [t.cell for t in level.things if t.kind <= 4]
    assert len(set(starts)) == len(starts) == kind.num_players
    respawns = [t.cell for t in level.things if t.kind == 11]
    assert len(set(respawns)) == (0 if kind.is_team else kind.num_players + kind.num_bots)
    zombies = [t.cell for t in level.things if t.kind == ZOMBIE]
    assert bool(zombies) == kind.is_team
    away = distances(level.rooms, starts[0])
    assert all(away[cell] >= 3 for cell in zombies)
    if kind.is_team:
        assert max(away[cell] for cell in starts) == 1, "side by side"


def test_maps_for_one_player_are_as_they_were():
    assert "dm=true" not in text(Arena(ArenaConfig()).level(0))


def test_names():
    for name, kind in KINDS.items():
        env = PREFIX + name
        assert canonical_name(env) == env
        assert folder_name(env) == f"players-{name}"
        assert players_kind(env) is kind
        assert own_time_limit(env) == kind.time_limit
        assert not is_imported(env)
        assert not is_plain_doom(EnvConfig(env=env)), "a match cannot be repeated"
        assert game_spec(env).buttons == kind.buttons
    assert players_kind("maps:arena") is None
    with pytest.raises(EnvError, match="no kind of matches 'dual'; choose from duel, deathmatch"):
        canonical_name("players:dual")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sound": True}, "sound is not an option of players:duel, which is a match"),
        ({"noop_max": 3}, "noop_max is not an option of players:duel, which is Doom"),
        ({"env": "basic", "opponent": "bot"}, "opponent is an option of matches; basic is not one"),
        ({"env": "CartPole-v1", "opponent": "bot"}, "opponent is an option of Doom"),
    ],
)
def test_options_that_do_not_apply(options, message):
    with pytest.raises(EnvError, match=message):
        make(EnvConfig(**{"env": "players:duel", **options}))


def test_evaluations_play_against_what_is_fixed():
    assert EnvConfig(env="players:duel").whole_games().opponent == "bot"
    assert EnvConfig(env="players:cooperation").whole_games().opponent == "random"
    assert EnvConfig(env="players:duel", opponent="still").whole_games().opponent == "bot"
    assert EnvConfig(env="basic").whole_games() == EnvConfig(env="basic")
