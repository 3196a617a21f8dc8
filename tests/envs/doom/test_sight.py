"""Tests of `envs.doom.sight`: what it says is compared with the engine's own facts."""

from __future__ import annotations

import math
import re
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import vizdoom

from envs.doom.cfg import ENGINE_FOLDER
from envs.doom.sight import (
    CLASSES,
    DEPTH_BOUNDS,
    DEPTH_KEYS,
    DEPTH_SHAPE,
    FARTHEST,
    ITEM,
    KIND_COLUMNS,
    KIND_KEYS,
    KINDS,
    MONSTER,
    PROJECTILE,
    UNITS_PER_DEPTH,
    Pose,
    bearing_of,
    bearing_of_column,
    class_map,
    class_of,
    depth_bands,
    depth_infos,
    distance_to,
    kind_infos,
    look,
)
from tests.envs.raw import doom, raw_game, start_episode

POSE = ("POSITION_X", "POSITION_Y", "ANGLE")


def states(name, episodes=2, steps=60, variables=POSE, **setters):
    """Yield states of a scenario in which buttons are pressed at random, with the player's pose."""
    listed = [vizdoom.GameVariable.__members__[variable] for variable in variables]
    buffers = {"labels_buffer_enabled": True, "depth_buffer_enabled": True}
    with raw_game(name, available_game_variables=listed, **buffers, **setters) as game:
        rng = np.random.default_rng(0)
        for seed in range(episodes):
            start_episode(game, seed)
            for _ in range(steps):
                if game.is_episode_finished():
                    break
                state = game.get_state()
                x, y, angle = state.game_variables
                yield state, Pose(x=x, y=y, angle=angle)
                game.make_action(
                    rng.integers(2, size=game.get_available_buttons_size()).tolist(), 4
                )


def looked(name, **options):
    for state, pose in states(name, **options):
        yield state, look(state.labels, state.labels_buffer, state.depth_buffer, pose)


# Kinds.


def test_basic_shows_its_one_monster():
    sights = [sight for _, sight in looked("basic")]
    assert {tuple(sight.counts) for sight in sights} == {(1, 0, 0)}
    assert all(sight.presence.tolist() == [True, False, False] for sight in sights)


def test_health_gathering_shows_items_and_take_cover_projectiles():
    sights = [sight for _, sight in looked("health_gathering")]
    assert not any(sight.counts[[0, 2]].any() for sight in sights)
    assert max(sight.counts[1] for sight in sights) > 2
    assert all(math.isnan(sight.bearing) and math.isnan(sight.distance) for sight in sights)
    counts = np.stack([sight.counts for _, sight in looked("take_cover")])
    assert not counts[:, 1].any()
    assert counts[:, 0].max() >= 1
    assert set(counts[:, 2] > 0) == {True, False}


def definitions():
    """Return each of Doom's actors and the text that defines it, from the engine's own files."""
    found = {}
    with zipfile.ZipFile(ENGINE_FOLDER / "vizdoom.pk3") as archive:
        for file in archive.namelist():
            if file.startswith("actors/doom/"):
                text = archive.read(file).decode("latin-1")
                for part in re.split(r"(?im)^(?=[ \t]*actor[ \t])", text)[1:]:
                    heading, _, body = part.partition("{")
                    names = re.findall(r"(?i)\w+", re.sub(r"(?i)\bnative\b|//.*", "", heading))
                    name, *parent = names[1:]
                    body = re.split(r"(?i)\bstates\b", body)[0]
                    found[name] = (parent[0] if parent else "", body)
    return found


def has(actors, name, pattern):
    """Return whether the definition of an actor or of one of its ancestors matches a pattern."""
    while name in actors:
        parent, body = actors[name]
        if re.search(pattern, body, re.IGNORECASE | re.MULTILINE):
            return True
        name = "" if "skip_super" in body.lower() else parent
    return False


ITEMS = {
    *("Ammo", "Health", "Armor", "Key", "DoomKey", "Weapon", "DoomWeapon", "PowerupGiver"),
    *("CustomInventory", "BackpackItem", "HealthPickup", "ArmorBonus", "BasicArmorPickup"),
    *("BasicArmorBonus", "MapRevealer"),
}


def is_item(actors, name):
    while name in actors:
        name = actors[name][0]
    return name in ITEMS


def test_classes_are_those_of_the_actors_definitions():
    """Every actor of Doom that can be put into the game, as its definition in DECORATE says."""
    actors = definitions()
    expected, found = {}, {}
    with raw_game("basic", labels_buffer_enabled=True) as game:
        game.send_game_command("sv_cheats 1")
        for name in actors:
            start_episode(game, 1)
            game.send_game_command(f"summon {name}")
            game.make_action([0, 0, 0], 1)
            shown = [] if game.is_episode_finished() else game.get_state().labels
            for label in shown:
                if label.object_name == name:
                    found[name] = class_of(name, label.object_category)
            expected[name] = (
                MONSTER
                if has(actors, name, r"^\s*(monster|\+countkill|\+ismonster)\s*$")
                else PROJECTILE
                if has(actors, name, r"^\s*(projectile|\+missile)\s*$")
                else ITEM
                if is_item(actors, name)
                else 0
            )
    assert len(found) > 120
    differing = {n: (found[n], expected[n]) for n in found if found[n] != expected[n]}
    # It can be killed, and the engine's categories count it among the monsters.
    assert differing == {"BossBrain": (MONSTER, 0)}


def test_a_class_map_has_the_class_of_each_object_that_is_drawn():
    kinds = dict(zip(CLASSES[1:], (MONSTER, ITEM, PROJECTILE), strict=True))
    assert tuple(kinds) == KINDS
    seen = set()
    for name in ("take_cover", "deadly_corridor"):
        for state, sight in looked(name):
            assert sight.classes.shape == state.labels_buffer.shape
            assert sight.classes.dtype == np.uint8
            slow = np.zeros_like(sight.classes)
            for label in state.labels:
                kind = class_of(label.object_name, label.object_category)
                slow[state.labels_buffer == label.value] = kind
            np.testing.assert_array_equal(sight.classes, slow)
            drawn = [bool((slow == kind).any()) for kind in kinds.values()]
            assert sight.presence.tolist() == drawn
            seen |= set(np.unique(slow).tolist())
    assert seen == {0, MONSTER, ITEM, PROJECTILE}


# Where monsters are.


def test_bearings_of_positions_are_those_of_the_columns_of_the_screen():
    """Of whole monsters: bounding boxes of others are not centred on them."""
    errors = []
    for name in ("basic", "defend_the_center", "defend_the_line", "take_cover"):
        for state, pose in states(name, episodes=1):
            width = state.labels_buffer.shape[1]
            for label in state.labels:
                inside = label.x > 0 and label.x + label.width < width
                if label.object_category == "Monster" and inside:
                    column = label.x + label.width / 2
                    errors.append(bearing_of(label, pose) - bearing_of_column(column, width))
    assert len(errors) > 200
    assert np.median(np.abs(errors)) < 0.5
    assert np.percentile(np.abs(errors), 95) < 2


@pytest.mark.parametrize(
    ("angle", "x", "y", "bearing"),
    [(0, 10, 0, 0), (0, 10, -10, 45), (0, 10, 10, -45), (90, 5, 5, 45), (350, 10, 0, -10)],
)
def test_bearings_are_positive_to_the_right(angle, x, y, bearing):
    label = SimpleNamespace(object_position_x=3.0 + x, object_position_y=4.0 + y)
    pose = Pose(x=3.0, y=4.0, angle=angle)
    assert bearing_of(label, pose) == pytest.approx(bearing)
    assert distance_to(label, pose) == pytest.approx(math.hypot(x, y))


def test_distances_by_depth_are_those_of_positions_up_to_the_farthest():
    pairs = []
    for name in ("basic", "defend_the_center", "defend_the_line"):
        for state, sight in looked(name):
            if (sight.classes == MONSTER).sum() > 20:
                pairs.append((sight.distance, sight.depth_distance, sight.bearing))
            assert state.depth_buffer.shape == (120, 160)
    true, by_depth, bearing = np.array(pairs).T
    ahead = true * np.cos(np.radians(bearing))
    near = ahead < FARTHEST
    assert near.sum() > 50
    relative = by_depth[near] / true[near] - 1
    assert np.median(np.abs(relative)) < 0.03
    assert np.percentile(np.abs(relative), 95) < 0.1
    far = ahead > 1.1 * FARTHEST
    assert far.any()
    assert (by_depth[far] < true[far]).all()


def test_the_nearest_visible_monster_is_meant():
    labels = [
        SimpleNamespace(
            value=value,
            object_name="Demon",
            object_category="Monster",
            object_position_x=float(distance),
            object_position_y=0.0,
        )
        for value, distance in ((10, 300), (20, 200), (30, 100))
    ]
    buffer = np.zeros((6, 8), np.uint8)
    buffer[2, 3], buffer[2:5, 5:7] = 10, 20  # The nearest one, 30, is hidden.
    depth = np.full((6, 8), 27, np.uint8)
    sight = look(labels, buffer, depth, Pose(x=0.0, y=0.0, angle=0.0))
    assert sight.counts.tolist() == [2, 0, 0]
    assert sight.distance == 200
    assert sight.depth_distance == pytest.approx(27.5 * UNITS_PER_DEPTH)
    np.testing.assert_array_equal(class_map(labels, buffer), buffer > 0)


# Depth.


def test_the_depth_map_has_the_bands_of_its_cells():
    depth = np.zeros((120, 160), np.uint8)
    expected = np.random.default_rng(0).integers(len(DEPTH_BOUNDS) + 1, size=DEPTH_SHAPE)
    middles = np.convolve((0, *DEPTH_BOUNDS, 900), (0.5, 0.5), "valid")
    values = np.rint(middles / UNITS_PER_DEPTH).astype(np.uint8)
    depth[30:90] = np.kron(values[expected], np.ones((15, 10), np.uint8))
    np.testing.assert_array_equal(depth_bands(depth), expected)
    infos = depth_infos(depth)
    assert tuple(infos) == DEPTH_KEYS
    assert list(infos.values()) == expected.ravel().tolist()
    assert set(depth_infos(None).values()) == {-1.0}


# As numeric infos of an environment.

TARGETS = {"depth_targets": True, "kind_targets": True}


@pytest.mark.parametrize("name", ["defend_the_center", "take_cover"])
def test_what_is_seen_and_played_is_the_same_with_targets(name):
    with doom(name) as plain, doom(name, **TARGETS) as env, doom(name, **TARGETS) as blind:
        blind.draws_targets = False
        envs = (plain, env, blind)
        assert env.info_keys == (*plain.info_keys, *DEPTH_KEYS, *KIND_KEYS) == blind.info_keys
        rng = np.random.default_rng(0)
        for seed in range(2):
            first, *others = [each.reset(seed=seed) for each in envs]
            ended = False
            while not ended:
                (obs, *_, info) = first[0], first[-1]
                for other in others:
                    np.testing.assert_array_equal(other[0], obs)
                    assert other[1:-1] == first[1:-1]
                    assert {key: other[-1][key] for key in info} == info
                drawn, missing = others[0][-1], others[1][-1]
                assert {missing[key] for key in (*DEPTH_KEYS, *KIND_KEYS)} == {-1.0}
                assert all(0 <= drawn[key] <= len(DEPTH_BOUNDS) for key in DEPTH_KEYS)
                assert all(drawn[key] in (0.0, 1.0) for key in KIND_KEYS)
                action = int(rng.integers(plain.action_space.n))
                ended = any(first[2:4]) if len(first) == 5 else False
                if not ended:
                    first, *others = [each.step(action) for each in envs]


def test_infos_are_those_of_the_engine():
    seen = set()
    with doom("take_cover", variables=True, **TARGETS) as env:
        env.reset(seed=0)
        for _ in range(60):
            state, info = env._state, env.info()
            assert kind_infos(state.labels, state.labels_buffer).items() <= info.items()
            assert depth_infos(state.depth_buffer).items() <= info.items()
            monsters = [la for la in state.labels if la.object_category == "Monster"]
            for i, strip in enumerate(np.split(state.labels_buffer, KIND_COLUMNS, axis=1)):
                drawn = [(strip == la.value).any() for la in monsters]
                assert info[f"MONSTER_IN_VIEW_{i}"] == any(drawn)
            seen |= {
                (key, info[key] > 0) for key in ("MONSTER_IN_VIEW_10", "PROJECTILE_IN_VIEW_10")
            }
            if any(env.advance(0)[1:]):
                break
    assert len(seen) == 4


def test_strips_cover_screens_of_any_width():
    labels = [SimpleNamespace(value=9, object_name="Demon", object_category="Monster")]
    for width in (160, 200, 250):
        for column in range(width):
            buffer = np.zeros((3, width), np.uint8)
            buffer[1, column] = 9
            infos = kind_infos(labels, buffer)
            [strip] = [i for i in range(KIND_COLUMNS) if infos[f"MONSTER_IN_VIEW_{i}"]]
            first, last = (i * width // KIND_COLUMNS for i in (strip, strip + 1))
            assert first <= column < last
            assert sum(infos.values()) == 1
