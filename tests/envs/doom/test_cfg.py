"""Tests of `envs.doom.cfg`: ViZDoom's syntax, what files may not set, and playing them."""

import codecs
import contextlib
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


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", [" ", "\n ", "{", "} {"])
def test_reading_takes_time_in_proportion_to_the_length(read, text):
    with contextlib.suppress(EnvError):
        read(text * (60_000 // len(text)))


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


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.encode("latin-1"),
        lambda text: text.encode("utf-16"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    ],
)
def test_reads_what_editors_write(tmp_path, encode):
    path = tmp_path / "own.cfg"
    path.write_bytes(encode(f"# grün, für später\n{PLAYABLE}episode_timeout = 70\n"))
    assert read_cfg(path).time_limit == 70


@pytest.mark.parametrize(
    ("key", "value", "comment"),
    [
        ("episode_timeout", "100 # three seconds", "# three seconds"),
        ("living_reward", "-1.5#x", "#x"),
        ("render_hud", "true # as played", "# as played"),
        ("available_buttons", "{ ATTACK # shoot\nMOVE_LEFT }", "# shoot MOVE_LEFT"),
        ("doom_map", "map01 # the first", "# the first"),
    ],
)
def test_a_comment_after_a_value_is_named(read, key, value, comment):
    message = f"the value of {key} is followed by '{comment}'; a comment needs a line of its own"
    with pytest.raises(EnvError, match=re.escape(message)):
        read(f"{key} = {value}\n")


def test_a_number_that_is_out_of_range_is_told_the_range(read):
    for text in ("living_reward = -1e7", "episode_timeout = 1000001"):
        with pytest.raises(EnvError, match=r"(number|integer) from (-1,000,000|0) to 1,000,000"):
            read(text)


def test_the_name_of_a_wad_may_contain_a_hash(read, tmp_path):
    write_wad(tmp_path / "my #1.wad", room())
    assert read("doom_scenario_path = my #1.wad").wad == tmp_path / "my #1.wad"
    with pytest.raises(EnvError, match="comments into lines of their own"):
        read("doom_scenario_path = basic.wad # the one of ViZDoom")


def test_a_wad_that_was_elsewhere_is_found_beside_the_file(read, tmp_path):
    own = write_wad(tmp_path / "own.wad", room())
    for path in ("/home/else/maps/own.wad", "../maps/own.wad", str(own)):
        assert read(f"doom_scenario_path = {path}").wad == own


@pytest.mark.parametrize("name", ["a" * 300, "b/" * 5_000, "../" * 3_000, "loop"])
def test_a_wad_that_no_path_can_name_does_not_exist(read, tmp_path, name):
    (tmp_path / "loop.wad").symlink_to(tmp_path / "loop.wad")
    with pytest.raises(EnvError, match="names a WAD that does not exist") as refusal:
        read(f"doom_scenario_path = {name}.wad")
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("suffix", ["pk3", "PK3", "ipk3", "pk7", "zip"])
def test_archives_are_refused_by_name(read, suffix):
    message = rf"mod\.{suffix}: \.{suffix} is not supported; a \.wad is"
    with pytest.raises(EnvError, match=message):
        game_spec(f"some where/mod.{suffix}")
    for key in ("doom_scenario_path", "doom_game_path"):
        with pytest.raises(EnvError, match=message):
            read(f"{key} = mod.{suffix}")


def test_a_name_may_choose_one_of_the_maps(tmp_path):
    two = write_wad(tmp_path / "two.wad", [*room("MAP01"), *room("MAP02")])
    (tmp_path / "two.cfg").write_text(f"doom_scenario_path = two.wad\n{PLAYABLE.splitlines()[1]}")
    assert game_spec(str(two)).map == "MAP01"
    for name in ("two.wad:map02", "two.cfg:MAP02"):
        spec = game_spec(str(tmp_path / name))
        assert (spec.wad, spec.map) == (two, "MAP02")
    with pytest.raises(EnvError, match=r"two\.wad has no map 'MAP09'; it has MAP01, MAP02"):
        game_spec(f"{two}:MAP09")
    with pytest.raises(EnvError, match="contain no map 'MAP77'"):
        game_spec(f"{tmp_path}/two.cfg:MAP77")
    with pytest.raises(EnvError, match="has no map 'quit; exec x'"):
        game_spec(f"{two}:quit; exec x")


@pytest.mark.parametrize("name", ["a\0.cfg", "\ud800.wad", "a\0.wad:MAP01"])
def test_what_cannot_be_the_name_of_a_file_is_refused(name):
    with pytest.raises(EnvError, match="is not the name of a file"):
        game_spec(name)


def test_names_of_files_that_are_elsewhere_get_a_useful_answer(tmp_path):
    for name, answer in (
        ("basic.cfg", "did you mean the scenario basic?"),
        ("deathmatch.wad", "did you mean the scenario deathmatch?"),
        ("cig.cfg", f"did you mean {BUNDLED / 'cig.cfg'}?"),
        ("own.cfg", "there is no ViZDoom .cfg at"),
        ("own.wad", "there is no WAD at"),
    ):
        with pytest.raises(EnvError, match=re.escape(answer)):
            game_spec(str(tmp_path / name))
    with pytest.raises(EnvError, match=r"name the file of its WAD, as doom2\.wad:MAP01"):
        game_spec("doom2:MAP01")
    assert game_spec("doom2:Env-v0") is None


def test_refuses_a_wad_without_a_map(tmp_path):
    with pytest.raises(EnvError, match="contains no map"):
        game_spec(str(write_wad(tmp_path / "a.wad", [("CREDIT", b"x")])))


def test_refuses_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(EnvError, match=r"there is no ViZDoom \.cfg at"):
        game_spec(str(tmp_path / "own.cfg"))
    (tmp_path / "folder.cfg").mkdir()
    with pytest.raises(EnvError, match="is a folder; name a file"):
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
