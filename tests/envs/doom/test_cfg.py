"""Tests of `envs.doom.cfg`: ViZDoom's syntax, what files may not set, and playing them."""

import re

import pytest
import vizdoom

from envs import SCENARIOS, EnvError
from envs.doom.cfg import (
    BUNDLED,
    ENGINE_FOLDER,
    FREEDOOM2,
    GameSpec,
    game_spec,
    read_cfg,
    strange_wads,
)
from envs.doom.scenarios import FREEDOOM_MAPS
from tests.envs.maps import room, write_wad
from tests.envs.raw import doom, noop

PLAYABLE = "doom_scenario_path = basic.wad\navailable_buttons = { MOVE_LEFT ATTACK }\n"
# These name WADs that are sold and not bundled.
SOLD = {"doom.cfg", "doom2.cfg"}


@pytest.fixture
def read(tmp_path):
    def read(text: str, beginning: str = PLAYABLE) -> GameSpec:
        path = tmp_path / "own.cfg"
        path.write_bytes((beginning + text).encode())
        return read_cfg(path)

    return read


def test_reads_a_plain_file(read):
    spec = read(
        "doom_map = map01\nepisode_timeout = 300\nepisode_start_time = 14\ndoom_skill = 5\n"
        "living_reward = -1.5\nrender_hud = true\navailable_game_variables = { AMMO2 HEALTH }\n"
    )
    assert spec == GameSpec(
        cfg=spec.cfg,
        wad=(BUNDLED / "basic.wad").resolve(),
        iwad=FREEDOOM2,
        map="map01",
        buttons=("MOVE_LEFT", "ATTACK"),
        variables=("AMMO2", "HEALTH"),
        time_limit=300,
        settings={
            "doom_skill": 5,
            "episode_start_time": 14,
            "living_reward": -1.5,
            "render_hud": True,
        },
    )


def test_contains_the_path_of_the_file(tmp_path):
    path = tmp_path / "mine.cfg"
    path.write_text("doom_scenario_path = basic.wad\navailable_buttons = { ATTACK }")
    assert read_cfg(path).cfg == path


def test_settings_that_are_missing_have_the_engines_defaults(read):
    spec = read("")
    assert (spec.time_limit, spec.settings, spec.arguments, spec.variables) == (None, {}, "", ())


@pytest.mark.parametrize(
    "text",
    [
        "available_buttons={TURN_LEFT ATTACK}",
        "available_buttons = { turn_left attack }",
        "available_buttons =\n    {\n        TURN_LEFT\n\n        ATTACK\n    }\n",
        "available_buttons\t=\t{\tTURN_LEFT\r\nATTACK }\r\n",
        "available_buttons = { TURN_LEFT }\navailable_buttons += { ATTACK }",
        "available_buttons = { TURN_LEFT }\navailable_buttons += ATTACK",
        "AVAILABLE_BUTTONS = { TURN_LEFT ATTACK TURN_LEFT }",
        "availableButtons = TURN_LEFT ATTACK",
        "available_buttons = { SPEED }\navailable_buttons = { TURN_LEFT ATTACK }",
        "available_buttons =\n{\n# a comment\nTURN_LEFT\n   # another\nATTACK\n}",
    ],
)
def test_reads_lists_however_they_are_written(read, text):
    assert read(text).buttons == ("TURN_LEFT", "ATTACK")


def test_an_empty_list_leaves_the_next_line_alone(read):
    spec = read("available_game_variables = {  }\n\nepisode_timeout = 35\n")
    assert (spec.variables, spec.time_limit) == ((), 35)


def test_comments_and_blank_lines_are_ignored(read):
    assert read("\n# vizdoom_path = /bin/sh\n   # game_args += +quit\n\n") == read("")


def test_keys_are_read_with_or_without_underscores_in_any_case(read):
    spec = read("episodeTimeout = 70\nLIVING_REWARD = 2\n")
    assert spec.time_limit == 70
    assert spec.settings == {"living_reward": 2.0}


def test_the_last_value_counts(read):
    assert read("episode_timeout = 70\nepisode_timeout = 140\n").time_limit == 140


def test_keys_about_the_window_and_the_mode_are_ignored(read):
    assert read("mode = ASYNC_SPECTATOR\nwindow_visible = true\nseed = 3\nticrate = 1\n") == read(
        ""
    )


@pytest.mark.parametrize("name", sorted(p.name for p in BUNDLED.glob("*.cfg")))
def test_bundled_files_are_read_as_the_engine_reads_them(name):
    if name in SOLD:
        with pytest.raises(EnvError, match="names a WAD that does not exist"):
            read_cfg(BUNDLED / name)
        return
    spec = read_cfg(BUNDLED / name)
    game = vizdoom.DoomGame()
    game.load_config(str(BUNDLED / name))
    # The engine may move delta buttons to the front; only the set of buttons matters.
    assert sorted(spec.buttons) == sorted(b.name for b in game.get_available_buttons())
    assert list(spec.variables) == [v.name for v in game.get_available_game_variables()]
    assert (spec.time_limit or 0) == game.get_episode_timeout()
    assert spec.settings.get("doom_skill", 3) == game.get_doom_skill()
    assert spec.settings.get("episode_start_time", 1) == game.get_episode_start_time()
    assert spec.settings.get("living_reward", 0.0) == game.get_living_reward()
    penalty = -game.get_death_reward() if game.get_death_reward() else 0.0
    death = spec.settings.get("death_penalty", -spec.settings.get("death_reward", 0.0))
    assert death == penalty
    assert spec.settings.get("map_exit_reward", 0.0) == game.get_map_exit_reward()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vizdoom_path = /bin/sh", "'vizdoom_path = /bin/sh' is not allowed"),
        ("ViZDoomPath = /bin/sh", "is not allowed"),
        ("doom_config_path = /etc/x.ini", "is not allowed"),
        ("game_args += +exec evil.cfg", "the engine arguments '+exec evil.cfg' are not allowed"),
        ("game_args = +sv_noautoaim 1 +logfile /tmp/x", "may only set +sv_noautoaim to 0 or 1"),
        ("game_args = +sv_noautoaim 1\ngame_args += -file x.wad", "are not allowed"),
        ("no_such_key = 1", "'no_such_key = 1' is not allowed"),
        ("just words", "'just words' is not allowed"),
        ("available_buttons = { ATTACK FLY }", "FLY is not a vizdoom.Button"),
        ("available_buttons = { }", "sets no available_buttons; list at least one"),
        ("available_game_variables = { LUCK }", "LUCK is not a vizdoom.GameVariable"),
        ("doom_scenario_path = missing.wad", "names a WAD that does not exist: missing.wad"),
        ("doom_scenario_path =", "names a WAD that does not exist"),
        ("doom_game_path = doom2.wad", "names a WAD that does not exist: doom2.wad"),
        ("doom_map = map77", "its WADs contain no map 'map77'; the first is MAP01"),
        ("doom_map =", "its WADs contain no map ''"),
        ("doom_map = map01; logfile /tmp/x", "its WADs contain no map"),
        (f"doom_map = {'m' * 200}", "its WADs contain no map"),
        (
            "living_reward = much",
            "living_reward must be a number from -1,000,000 to 1,000,000, not 'much'",
        ),
        ("living_reward = nan", "living_reward must be a number"),
        ("living_reward = inf", "living_reward must be a number"),
        ("doom_skill = 2.5", "doom_skill must be an integer"),
        ("episode_timeout = -1", "episode_timeout must be an integer from 0"),
        ("episode_start_time = 2000000000", "episode_start_time must be an integer"),
        ("render_hud = perhaps", "render_hud must be true or false, not 'perhaps'"),
    ],
)
def test_refuses_in_one_line_what_a_file_may_not_set(read, text, message):
    with pytest.raises(EnvError, match=re.escape(message)) as refusal:
        read(text)
    assert "\n" not in str(refusal.value)
    assert "own.cfg" in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "sets nothing"),
        (b"\n# only a comment\n", "sets nothing"),
        (b"\x00\xff\xfe\x80binary", "not readable text"),
        (b"# large\n" * 10_000, "too large"),
        (b"doom_map = map01\n", "sets no available_buttons"),
    ],
)
def test_refuses_a_file_that_is_not_a_cfg(tmp_path, content, message):
    path = tmp_path / "own.cfg"
    path.write_bytes(content)
    with pytest.raises(EnvError, match=message) as refusal:
        read_cfg(path)
    assert "\n" not in str(refusal.value)


def test_refuses_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(EnvError, match=r"there is no ViZDoom \.cfg at"):
        game_spec(str(tmp_path / "own.cfg"))
    (tmp_path / "folder.cfg").mkdir()
    with pytest.raises(EnvError, match="not readable text"):
        game_spec(str(tmp_path / "folder.cfg"))


@pytest.mark.parametrize("content", [b"", b"not a WAD at all", b"PWAD\x01\0\0\0\x0c\0\0\0"])
def test_refuses_a_file_whose_wad_is_not_a_wad(read, tmp_path, content):
    (tmp_path / "own.wad").write_bytes(content)
    with pytest.raises(EnvError, match="is not a WAD"):
        read("doom_scenario_path = own.wad")


def test_a_wad_beside_the_file_comes_before_a_bundled_one(read, tmp_path):
    own = write_wad(tmp_path / "basic.wad", room("MAP05"))
    spec = read("")
    assert spec.wad == own.resolve()
    assert spec.map == "MAP05"


def test_names_of_doom_environments():
    assert game_spec("basic").time_limit == SCENARIOS["basic"].time_limit
    assert game_spec("freedoom1:e2m3").map == "E2M3"
    assert game_spec("freedoom1:E2M3").iwad == ENGINE_FOLDER / "freedoom1.wad"
    assert game_spec("freedoom2:MAP07").wad is None
    assert game_spec("CartPole-v1") is None
    assert game_spec("basi") is None


@pytest.mark.parametrize("game", FREEDOOM_MAPS)
def test_the_error_for_an_unknown_freedoom_map_names_the_range_of_maps(game):
    first, last = FREEDOOM_MAPS[game][0], FREEDOOM_MAPS[game][-1]
    for name in (f"{game}:", game, f"{game}:MAP99", f"{game}:quit"):
        with pytest.raises(EnvError, match=f"it has {game}:{first} to {game}:{last}"):
            game_spec(name)


def test_a_users_cfg_is_played_by_its_own_rules(tmp_path):
    write_wad(tmp_path / "arena.wad", room("ARENA", zombie_at=128))
    (tmp_path / "arena.cfg").write_text(
        "doom_scenario_path = arena.wad\ndoom_map = arena\nepisode_timeout = 200\n"
        "living_reward = 0.25\nkill_reward = 100\nepisode_start_time = 20\n"
        "available_buttons = { ATTACK }\navailable_game_variables = { AMMO2 HEALTH }\n"
    )
    with doom(str(tmp_path / "arena.cfg"), variables=True) as env:
        obs, info = env.reset(seed=0)
        assert obs["variables"].tolist() == [1.0, 1.0]  # 50 bullets, 100 health
        assert info["AMMO2"] == 50
        rewards, truncated = [], False
        while not truncated:
            _, reward, terminated, truncated, info = env.step(1)
            assert not terminated
            rewards.append(reward)
        assert info["statistics"]["kills"] == 1
        assert info["statistics"]["frames"] == 200
        assert sum(rewards) == 100 + 200 * 0.25


def test_a_users_wad_has_the_buttons_of_freedoom(tmp_path):
    path = write_wad(tmp_path / "Arena.WAD", room("ARENA"))
    with doom(str(path), time_limit=40) as env:
        assert env.game_spec.map == "ARENA"
        _, start = env.reset(seed=0)
        assert start["HEALTH"] == 100
        forward = noop(env)
        forward[env.action_names.index(["-", "move forward", "move backward"])] = 1
        first = last = env.reset(seed=0)[0]
        truncated = False
        while not truncated:
            last, _, terminated, truncated, _ = env.step(forward)
            assert not terminated
        assert (first != last).mean() > 0.2


def test_a_users_cfg_may_name_an_iwad_only(tmp_path):
    (tmp_path / "own.cfg").write_text(
        "doom_game_path = freedoom1.wad\nepisode_timeout = 8\navailable_buttons = { ATTACK }\n"
    )
    with doom(str(tmp_path / "own.cfg")) as env:
        env.reset(seed=0)
        assert env.game_spec.map == "E1M1"
        assert [env.step(0)[3] for _ in range(2)] == [False, True]


def test_wads_that_do_not_come_with_vizdoom_are_returned(tmp_path):
    assert [wad for name in SCENARIOS for wad in strange_wads(name)] == []
    assert strange_wads("freedoom2:MAP01") == strange_wads("CartPole-v1") == []
    (tmp_path / "bundled.cfg").write_text(PLAYABLE)
    assert strange_wads(str(tmp_path / "bundled.cfg")) == []
    mine = tmp_path / "basic.wad"
    mine.write_bytes((BUNDLED / "basic.wad").read_bytes())
    assert strange_wads(str(tmp_path / "bundled.cfg")) == [mine]
    assert strange_wads(str(mine)) == [mine]
