"""Write the page about scenarios from what the program knows of them, and take their pictures.

    python -m docs.scenarios              # scenarios.md
    python -m docs.scenarios --pictures   # and images/scenarios/*.png, from the real game

`tests/test_docs.py` says where the page is out of date.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from gymnasium import spaces
from PIL import Image

from agents.commandline import as_flag
from agents.presets import preset
from envs import SCENARIOS, DoomEnv, EnvConfig, Scenario
from envs.actions import ActionSet
from envs.scenarios import camel_case
from evaluation.report import with_interval

DOCS = Path(__file__).resolve().parent
PAGE, PICTURES = DOCS / "scenarios.md", DOCS / "images" / "scenarios"
ZOO = DOCS.parent / "zoo"
WIDTH, HEIGHT, MAX_BYTES = 320, 240, 25_000
# The seed, and the env steps of doing nothing, after which there is something to see.
_MOMENTS = {
    "deadly_corridor": (3, 2),
    "deathmatch": (6, 4),
    "defend_the_center": (0, 60),
    "defend_the_line": (0, 20),
    "health_gathering": (1, 5),
    "health_gathering_supreme": (5, 3),
    "my_way_home": (3, 2),
    "take_cover": (0, 24),
}
_BEGINNING = (0, 5)

_HEAD = """\
# Scenarios

<!-- Written by docs/scenarios.py: change that, or envs/scenarios.py. -->

Fifteen scenarios come with ViZDoom and are known here by name: `python train.py NAME` trains one
with its preset, `gymnasium.make("doomgrad/Name-v0")` makes it. Rewards are what the scenarios' own
scripts pay, which differs in places from the engine's documentation. A tic is a frame of the game,
35 a second; an agent decides every fourth (`--frame-skip`).

*No-op* and *random* are mean returns over 100 episodes at seeds 0 to 99 of doing nothing and of
uniformly random actions: a score means little that is not read beside them. *Zoo* is the policy
that comes with the project, over the same episodes, with sampled actions. *Reference* is a good
score from elsewhere, under other rules unless it is a maximum. *Preset* is what a scenario's preset
for PPO sets beside what every preset of Doom sets, which is `{shared}`;
what is on the command line wins.

Whole levels are there too, `freedoom1:E1M1` to `freedoom1:E4M9` and `freedoom2:MAP01` to
`freedoom2:MAP32`: +1 for leaving one by its exit, and nothing else. What pays more is a `.cfg` of
yours, see [Extending](extending.md).

"""


def page() -> str:
    """Give the page as Markdown."""
    rows = [f"| [`{name}`](#{name}) | {s.goal} |" for name, s in SCENARIOS.items()]
    table = "\n".join(["| scenario | goal |", "| --- | --- |", *rows])
    head = _HEAD.format(shared=" ".join(sorted(_shared_flags(), key=_flags("basic").index)))
    return head + table + "\n\n" + "\n".join(map(section, SCENARIOS.values()))


def section(scenario: Scenario) -> str:
    """Give what there is to know of one scenario."""
    name = scenario.name
    space = ActionSet(scenario.buttons, "auto", EnvConfig().delta_bins).space
    facts = {
        "reward": scenario.rewards,
        "buttons": ", ".join(f"`{button}`" for button in scenario.buttons),
        "actions": _describe(space),
        "time limit": f"{scenario.time_limit:,} tics ({scenario.time_limit / 35:.0f} s)",
        "native skill": f"{scenario.skill} of 5",
        "no-op": f"{scenario.noop:,g}",
        "random": f"{scenario.random:,g}",
        **_zoo(name),
    }
    if scenario.reference:
        facts["reference"] = f"{scenario.reference.mean:,g}: {scenario.reference.source}"
    if flags := preset_flags(name):
        facts["preset"] = f"`{flags}`"
    if scenario.note:
        facts["note"] = scenario.note
    rows = [f"| {key} | {value} |" for key, value in facts.items()]
    lines = [
        *(f"## {name}", scenario.goal, f"![{name}](images/scenarios/{name}.png)"),
        f"`python train.py {name}`, `doomgrad/{camel_case(name)}-v0`",
        "\n".join(["| | |", "| --- | --- |", *rows]),
    ]
    return "\n\n".join(lines) + "\n"


def preset_flags(name: str) -> str:
    """Give what a scenario's preset for PPO sets beside what all those of Doom set, as flags."""
    shared = _shared_flags()
    return " ".join(flag for flag in _flags(name) if flag not in shared)


def _shared_flags() -> set[str]:
    return set.intersection(*(set(_flags(name)) for name in SCENARIOS))


def _flags(env: str) -> list[str]:
    return [" ".join(as_flag(key, value)) for key, value in preset(env, "ppo").items()]


def _describe(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.MultiDiscrete):
        return f"a choice in each of {len(space.nvec)} groups ({', '.join(map(str, space.nvec))})"
    assert isinstance(space, spaces.Discrete)
    return f"one of {space.n} combinations"


def _zoo(name: str) -> dict[str, str]:
    """Give the score of the policy that comes with the project, if one does."""
    file = ZOO / name / "compare.json"
    if not file.exists():
        return {}
    results = json.loads(file.read_text())["results"]
    (score,) = [result for result in results if result["name"] == f"zoo/{name} (sampled)"]
    written = with_interval(score["mean"], score["ci_low"], score["ci_high"])
    return {"zoo": f"{written}, 95 % interval"}


def picture(name: str) -> bytes:
    """Take a picture of a scenario, a PNG with a palette."""
    env = DoomEnv(EnvConfig(env=name, width=WIDTH, height=HEIGHT))
    seed, steps = _MOMENTS.get(name, _BEGINNING)
    try:
        obs, _ = env.reset(seed=seed)
        for _ in range(steps):
            obs, *_ = env.step(env.action_space.sample() * 0)
    finally:
        env.close()
    image = Image.fromarray(obs[..., 0], "P")
    image.putpalette(env.palette.tobytes())
    colours = 256
    while len(content := _png(image, colours)) >= MAX_BYTES:
        colours //= 2
    return content


def _png(image: Image.Image, colours: int) -> bytes:
    """Write a picture with at most so many colours."""
    if colours < 256:
        image = image.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def main() -> None:
    """Write what was asked for."""
    PAGE.write_text(page())
    if "--pictures" in sys.argv:
        PICTURES.mkdir(exist_ok=True)
        for name in SCENARIOS:
            (PICTURES / f"{name}.png").write_bytes(picture(name))


if __name__ == "__main__":
    main()
