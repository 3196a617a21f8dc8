"""A scripted player that knows the map: an anchor for scores, and proof that maps can be solved.

It walks along shortest paths over the map's cells, and shoots at monsters in its view. It presses
buttons like any player, but it is told what no player is: the map, where it is, and where the
objects in its view are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gymnasium import spaces

from envs.config import EnvConfig
from envs.doom.env import DoomEnv
from envs.doom.maps.grid import distances, shortest_path
from envs.doom.maps.level import MEDIKIT, ZOMBIE, Level
from envs.doom.sight import Pose

Position = tuple[float, float]
_MONSTER = "Monster"  # the category of living monsters in the engine's labels
_HEADING = 15.0  # degrees within which it walks
_FINE = 2.0  # degrees within which it does not turn
_HALF_MONSTER = 14.0  # map units; a shot within this of its middle hits
_NEAR = 16.0  # map units at which a waypoint counts as reached
_TOUCH = 36.0  # map units, in x and y, within which a player picks an item up
_HURT = 75.0  # health up to which a medikit, which restores 25, is not wasted
_FULL = 100.0


def scripted_config(config: EnvConfig) -> EnvConfig:
    """Return the configuration in which it plays: it decides in every frame, and sees objects."""
    return replace(config, frame_skip=1, kind_targets=True, actions="groups")


class ScriptedPlayer:
    """Plays episodes on generated maps.

    Args:
        env: an environment with the configuration of `scripted_config`.
    """

    def __init__(self, env: DoomEnv) -> None:
        self._env = env
        assert isinstance(env.action_space, spaces.MultiDiscrete)
        self._choices = env.action_names

    def play(self, seed: int) -> dict[str, Any]:
        """Play an episode.

        Args:
            seed: seed of the episode.

        Returns:
            The episode's statistics, and whether it `terminated`.
        """
        env = self._env
        env.reset(seed=seed)
        assert env.level is not None
        goals = _Goals(env.level)
        self._waypoint: Position | None = None
        self._goal: Position | None = None
        while True:
            pressed = self._decide(goals)
            _, _, terminated, truncated, info = env.step(self._action(pressed))
            if terminated or truncated:
                return {**info["statistics"], "terminated": terminated}

    def _decide(self, goals: _Goals) -> tuple[str, ...]:
        """Return the buttons to press, by the names of the environment's choices."""
        env, pose, info = self._env, self._env.pose(), self._env.info()
        monsters = [
            (label.object_position_x, label.object_position_y)
            for label in env.labels()
            if label.object_category == _MONSTER
        ]
        if monsters and info.get("AMMO2", 0.0) > 0:
            nearest = min(monsters, key=lambda m: math.dist(m, (pose.x, pose.y)))
            self._waypoint = None
            return _aim(pose, nearest)
        goal = goals.next(pose, info["HEALTH"])
        if goal is None:
            return ()
        here = (pose.x, pose.y)
        if goal != self._goal:
            self._goal, self._waypoint = goal, None
        if self._waypoint is None or math.dist(self._waypoint, here) < _NEAR:
            self._waypoint = self._next_waypoint(goals.level, here, goal)
        return _walk(pose, self._waypoint)

    def _next_waypoint(self, level: Level, here: Position, goal: Position) -> Position:
        """Return where to walk straight to: the next cell on the way, or the goal in this one."""
        path = shortest_path(level.rooms, level.cell_at(*here), level.cell_at(*goal))
        return level.centre(path[1]) if len(path) > 1 else goal

    def _action(self, pressed: tuple[str, ...]) -> list[int]:
        return [
            next((i for i, name in enumerate(names) if name in pressed), 0)
            for names in self._choices
        ]


class _Goals:
    """Where to go next.

    Args:
        level: the map.
    """

    def __init__(self, level: Level) -> None:
        self.level = level
        self._targets = list(level.targets)
        self._medikits = [level.position(t) for t in level.things if t.kind == MEDIKIT]
        self._zombies = [level.position(t) for t in level.things if t.kind == ZOMBIE]
        self._left = list(self._zombies)
        self._health = _FULL

    def next(self, pose: Pose, health: float) -> Position | None:
        """Return the next position to go to; None to stay.

        Args:
            pose: where the player is.
            health: of the player.
        """
        here = (pose.x, pose.y)
        if self._targets:
            target = self.level.centre(self._targets[0])
            if len(self._targets) > 1 and math.dist(target, here) < _NEAR:
                self._targets.pop(0)
            return target
        if health > self._health:  # It has picked one up.
            self._medikits = [m for m in self._medikits if not _touches(here, m)]
        self._health = health
        if health <= _HURT and self._medikits:
            return self._nearest(here, self._medikits)
        if not self._zombies:
            return None
        self._left = [z for z in self._left if not _touches(here, z)] or list(self._zombies)
        return self._nearest(here, self._left)

    def _nearest(self, here: Position, positions: list[Position]) -> Position:
        away = distances(self.level.rooms, self.level.cell_at(*here))
        return min(positions, key=lambda p: (away[self.level.cell_at(*p)], math.dist(p, here)))


def _touches(here: Position, item: Position) -> bool:
    return max(abs(here[0] - item[0]), abs(here[1] - item[1])) < _TOUCH


def _off(pose: Pose, position: Position) -> float:
    """Return by how many degrees a position is to the left of where the player looks."""
    wanted = math.degrees(math.atan2(position[1] - pose.y, position[0] - pose.x))
    return (wanted - pose.angle + 180.0) % 360.0 - 180.0


def _turn(off: float) -> Iterator[str]:
    if abs(off) > _FINE:
        yield "turn left" if off > 0 else "turn right"


def _walk(pose: Pose, waypoint: Position) -> tuple[str, ...]:
    off = _off(pose, waypoint)
    return (*_turn(off), *(["move forward"] if abs(off) < _HEADING else []))


def _aim(pose: Pose, monster: Position) -> tuple[str, ...]:
    off, away = _off(pose, monster), math.dist(monster, (pose.x, pose.y))
    hits = abs(off) < math.degrees(math.atan2(_HALF_MONSTER, away))
    return (*_turn(off), *(["attack"] if hits else []))
