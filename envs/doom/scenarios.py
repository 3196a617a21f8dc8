"""The bundled Doom scenarios as data: rewards, buttons, difficulty, time limit and scores.

Every value was read from the scenario's own files and scripts, or measured: the engine's
documentation is wrong about several rewards. Rewards are per tic (35 tics a second) or per event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A mean return in native rewards, and its source."""

    mean: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One bundled scenario: a ViZDoom .cfg and facts about it.

    Attributes:
        name: in snake_case, also the name of the .cfg.
        goal: the task, in one sentence.
        rewards: all rewards, in words; the environment returns exactly these.
        buttons: engine buttons in the .cfg's order.
        skill: Doom's difficulty, 1 (easiest) to 5 (nightmare); part of the task.
        time_limit: tics until the episode is truncated, counted from its first decision.
        noop: mean return of doing nothing.
        random: mean return of uniformly random actions.
        reference: a good policy's mean return, with its source.
        note: what else a reader should know.
    """

    name: str
    goal: str
    rewards: str
    buttons: tuple[str, ...]
    skill: int
    time_limit: int
    noop: float
    random: float
    reference: Reference | None = None
    note: str = ""


_SF_HUB = "Sample Factory's published models, other protocol"
_STRAFE_ATTACK = ("MOVE_LEFT", "MOVE_RIGHT", "ATTACK")
_TURN_ATTACK = ("TURN_LEFT", "TURN_RIGHT", "ATTACK")
_TURN_FORWARD = ("TURN_LEFT", "TURN_RIGHT", "MOVE_FORWARD")
_BASIC_REWARDS = "kill +106 (ends the episode), shot -5, -1 a tic"

# `noop` and `random` are means over 100 episodes at seeds 0 to 99, frame_skip 4, written by
# benchmarks/baselines.py (results in benchmarks/results/baselines.json).
SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="basic",
            goal="Find the monster along the wall ahead and shoot it.",
            rewards=_BASIC_REWARDS,
            buttons=_STRAFE_ATTACK,
            skill=5,
            time_limit=300,
            noop=-300.0,
            random=-133.7,
            reference=Reference(
                mean=80.4, source="a scripted player told where the monster stands"
            ),
        ),
        Scenario(
            name="basic_audio",
            goal="Shoot a monster that is heard, not seen.",
            rewards=_BASIC_REWARDS,
            buttons=_STRAFE_ATTACK,
            skill=5,
            time_limit=300,
            noop=-300.0,
            random=-133.7,
            note="the monster is heard, not seen; the preset observes sound, which needs OpenAL",
        ),
        Scenario(
            name="basic_notifications",
            goal="Shoot the one of three monsters that a message names.",
            rewards="right kill +106, wrong kill -44, shot -5, -1 a tic",
            buttons=_STRAFE_ATTACK,
            skill=5,
            time_limit=300,
            noop=-300.0,
            random=-149.4,
            note="the target is named in a message; the preset observes its words",
        ),
        Scenario(
            name="simpler_basic",
            goal="As basic, in a brighter room.",
            rewards=_BASIC_REWARDS,
            buttons=_STRAFE_ATTACK,
            skill=3,
            time_limit=300,
            noop=-300.0,
            random=-133.2,
        ),
        Scenario(
            name="learning",
            goal="As basic, at a lower skill.",
            rewards=_BASIC_REWARDS,
            buttons=_STRAFE_ATTACK,
            skill=3,
            time_limit=300,
            noop=-300.0,
            random=-133.7,
        ),
        Scenario(
            name="rocket_basic",
            goal="Shoot the monster with a rocket launcher.",
            rewards=_BASIC_REWARDS,
            buttons=_STRAFE_ATTACK,
            skill=3,
            time_limit=300,
            noop=-300.0,
            random=-160.0,
            note="a rocket launcher that does not aim by itself",
        ),
        Scenario(
            name="deadly_corridor",
            goal="Reach the vest at the end of a corridor lined with armed men.",
            rewards="distance gained towards the vest (0 to 1312), vest +1000, death -100",
            buttons=(
                "MOVE_LEFT",
                "MOVE_RIGHT",
                "ATTACK",
                "MOVE_FORWARD",
                "MOVE_BACKWARD",
                "TURN_LEFT",
                "TURN_RIGHT",
            ),
            skill=5,
            time_limit=2100,
            noop=-115.9,
            random=-28.7,
            reference=Reference(mean=1708.0, source=_SF_HUB),
        ),
        Scenario(
            name="defend_the_center",
            goal="Stand in the middle and shoot approaching monsters, with 26 bullets.",
            rewards="kill +1, death -1",
            buttons=_TURN_ATTACK,
            skill=3,
            time_limit=2100,
            noop=-1.0,
            random=0.38,
            reference=Reference(mean=24.6, source=_SF_HUB),
            note="26 bullets: 25 is nearly perfect",
        ),
        Scenario(
            name="defend_the_line",
            goal="Hold one end of a hall against monsters that return stronger.",
            rewards="kill +1 (monsters killing each other count too), death -1",
            buttons=_TURN_ATTACK,
            skill=3,
            time_limit=2100,
            noop=2.75,
            random=8.12,
            reference=Reference(mean=38.4, source=_SF_HUB),
            note="the .cfg sets no time limit; this one is ours",
        ),
        Scenario(
            name="health_gathering",
            goal="Stay alive on an acid floor by collecting medikits.",
            rewards="+1 a tic alive, death -100",
            buttons=_TURN_FORWARD,
            skill=3,
            time_limit=2100,
            noop=284.0,
            random=378.1,
            reference=Reference(mean=2100.0, source="survival to the time limit, the maximum"),
        ),
        Scenario(
            name="health_gathering_supreme",
            goal="Stay alive in an acid maze: find medikits, avoid poison.",
            rewards="+1 a tic alive, death -100",
            buttons=_TURN_FORWARD,
            skill=3,
            time_limit=2100,
            noop=284.0,
            random=310.4,
            reference=Reference(mean=2100.0, source="survival to the time limit, the maximum"),
            note="a maze; health is not visible without `--variables`",
        ),
        Scenario(
            name="my_way_home",
            goal="Find the vest in a maze of rooms, from one of 17 places.",
            rewards="vest +1 (ends the episode), -0.0001 a tic",
            buttons=("TURN_LEFT", "TURN_RIGHT", "MOVE_FORWARD", "MOVE_LEFT", "MOVE_RIGHT"),
            skill=5,
            time_limit=2100,
            noop=-0.21,
            random=-0.021,
            reference=Reference(mean=0.98, source=_SF_HUB),
        ),
        Scenario(
            name="predict_position",
            goal="Hit a walking monster across the room with the only rocket.",
            rewards="kill +1, -0.001 a tic",
            buttons=_TURN_ATTACK,
            skill=1,
            time_limit=300,
            noop=-0.3,
            random=0.056,
            note="one rocket; the episode ends 45 tics after the shot",
        ),
        Scenario(
            name="take_cover",
            goal="Dodge fireballs from ever more monsters.",
            rewards="+1 a tic alive",
            buttons=("MOVE_LEFT", "MOVE_RIGHT"),
            skill=4,
            time_limit=2100,
            noop=152.5,
            random=282.7,
            reference=Reference(
                mean=1092.0, source="World Models, Ha and Schmidhuber 2018, other protocol"
            ),
            note="the .cfg sets no time limit; this one is ours",
        ),
        Scenario(
            name="deathmatch",
            goal="Kill as many monsters as possible in an arena with weapons to pick up.",
            rewards="kill +1 zombie, +3 shotgunner, marine, demon, +4 chaingunner, +10 hell knight",
            buttons=(
                "ATTACK",
                "SPEED",
                "STRAFE",
                "MOVE_RIGHT",
                "MOVE_LEFT",
                "MOVE_BACKWARD",
                "MOVE_FORWARD",
                "TURN_RIGHT",
                "TURN_LEFT",
                "SELECT_WEAPON1",
                "SELECT_WEAPON2",
                "SELECT_WEAPON3",
                "SELECT_WEAPON4",
                "SELECT_WEAPON5",
                "SELECT_WEAPON6",
                "SELECT_NEXT_WEAPON",
                "SELECT_PREV_WEAPON",
                "LOOK_UP_DOWN_DELTA",
                "TURN_LEFT_RIGHT_DELTA",
                "MOVE_LEFT_RIGHT_DELTA",
            ),
            skill=3,
            time_limit=4200,
            noop=2.74,
            random=3.61,
            reference=Reference(
                mean=100.99, source="tsilva's VizdoomDeathmatch-v1 PPO, other protocol"
            ),
        ),
    )
}

# The buttons of Freedoom, in the order of the bundled freedoom1.cfg and freedoom2.cfg.
FREEDOOM_BUTTONS = (
    "ATTACK",
    "SPEED",
    "STRAFE",
    "USE",
    "MOVE_RIGHT",
    "MOVE_LEFT",
    "MOVE_BACKWARD",
    "MOVE_FORWARD",
    "TURN_RIGHT",
    "TURN_LEFT",
    "SELECT_WEAPON1",
    "SELECT_WEAPON2",
    "SELECT_WEAPON3",
    "SELECT_WEAPON4",
    "SELECT_WEAPON5",
    "SELECT_WEAPON6",
    "SELECT_WEAPON7",
    "SELECT_NEXT_WEAPON",
    "SELECT_PREV_WEAPON",
)

FREEDOOM_MAPS: dict[str, tuple[str, ...]] = {
    "freedoom1": tuple(f"E{e}M{m}" for e in range(1, 5) for m in range(1, 10)),
    "freedoom2": tuple(f"MAP{m:02d}" for m in range(1, 33)),
}


def camel_case(name: str) -> str:
    """Return a snake_case name in CamelCase, as in Gymnasium ids."""
    return "".join(part.capitalize() for part in name.split("_"))


# ViZDoom's Gymnasium ids, and what its names for scenarios are here where they differ.
_VIZDOOM_ID = re.compile(r"Vizdoom(\w+?)(?:-S([1-5]))?(?:-MultiBinary)?-v\d+")
_LEVEL = re.compile(r"(Freedoom[12])(E\dM\d|MAP\d\d)")
_ELSEWHERE = {
    "corridor": "deadly_corridor",
    "defendcenter": "defend_the_center",
    "defendline": "defend_the_line",
}


def name_here(name: str) -> str | None:
    """Return what an environment of ViZDoom or Sample Factory is called here, None if it is not.

    `VizdoomFreedoom2MAP01-S3-v0` is `freedoom2:MAP01 --skill 3`, and `doom_my_way_home` is
    `my_way_home`.
    """
    if match := _VIZDOOM_ID.fullmatch(name):
        skill = f" --skill {match[2]}" if match[2] else ""
        if level := _LEVEL.fullmatch(match[1]):
            return f"{level[1].lower()}:{level[2]}{skill}"
        name = match[1]
    elif not name.startswith("doom_"):
        return None
    squeezed = name.removeprefix("doom_").replace("_", "").lower()
    ours = {scenario.replace("_", ""): scenario for scenario in SCENARIOS}
    return _ELSEWHERE.get(squeezed, ours.get(squeezed))
