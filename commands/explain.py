"""`evaluate.py explain`: what a policy looks at, what changes its mind, and what it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from commands.options import (
    CONSOLE,
    ReadingOptions,
    RunPath,
    check_at_least_one,
    check_folder,
    check_seeds,
)
from evaluation.printing import print_line
from evaluation.seeds import SCORING
from storage.files import check_writable


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(ReadingOptions):
    """Explain a policy: maps over a recorded episode, checks of them, interventions, and probes.

    The same command resumes an explanation that was interrupted.
    """

    run: RunPath
    """A run folder or a policy file."""
    episode: str = "highlight"
    """The episode that is shown: highlight, best, worst, last, a seed, or a name in episodes/."""
    episodes: int = 20
    """Number of episodes of checks, interventions and probes; intervals are over episodes."""
    seed: int = SCORING
    """Seed of the first of these episodes; the others follow."""
    states: int = 4
    """Number of env steps of each episode in which interventions are made."""
    steps: int = 100
    """Number of env steps of the shown episode that are explained, spread evenly."""
    policies: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """Further policy files of the same training, probed too, as a curve over the training."""
    out: Path | None = None
    """The folder to write to. None: explain/ in the run folder, or in runs/zoo/NAME."""
    size: str = "640x480"
    """Width and height of the video in pixels, both even."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_at_least_one(self, "states", "steps")
        check_seeds(self.seed, self.episodes)
        if self.episodes < 2:
            raise ValueError(f"episodes must be at least 2, got {self.episodes}")
        if self.out is not None:
            check_folder(self.out)


def run(options: ExplainOptions) -> None:
    """Explain a policy, and write a report, a page, and pictures for TensorBoard."""
    from commands.replay import parse_size
    from envs.playback import ActionNames
    from evaluation.entries import locate, output_folder
    from evaluation.explain.explain import Explainer, Plan
    from evaluation.explain.report import markdown, page_data, page_interventions, write_pictures
    from evaluation.protocol import native
    from evaluation.replay.chosen import chosen_episodes
    from evaluation.replay.video import page_of
    from storage.files import write_atomically, write_json
    from storage.run_folder import find_policy

    size = parse_size(options.size)
    file, folder = find_policy(locate(options.run), trust=options.trust)
    config = native(file, options.run, trust=options.trust)
    out = options.out or output_folder(options.run, folder) / "explain"
    check_writable(out)
    plan = Plan(
        steps=options.steps, episodes=options.episodes, states=options.states, seed=options.seed
    )
    explainer = Explainer(file, config, plan, out / "parts", print_line)
    others = _others(options, file)
    (shown,), _ = chosen_episodes(options.run, options.episode, 1, trust=options.trust)
    choices = ActionNames(config).choices
    with CONSOLE.status(f"explaining {options.run}"):
        maps = explainer.maps(shown)
        parts: dict[str, Any] = {
            "checks": explainer.checks(),
            "interventions": explainer.interventions(),
            "probes": explainer.probes(others),
        }
        explained = page_data(maps, parts["checks"])
        made = page_interventions(parts["interventions"], choices)
        page = page_of([shown], size, explained=explained, interventions=made)
    text = markdown(str(options.run), parts, choices)
    write_atomically(out / "explain.html", page.encode())
    write_atomically(out / "explain.md", text.encode())
    write_json(out / "explain.json", {"plan": vars(plan), **_without_pictures(parts)})
    write_pictures(out, maps, file.about.env_steps)
    if not explainer.is_doom:
        print_line(f"interventions and probes need Doom; {config.env} has maps and checks only")
    for name in ("explain.md", "explain.html"):
        print_line(str(out / name))


def _others(options: ExplainOptions, file: Any) -> dict[str, Any]:
    """Return the further policies by name: those named, or the run's other one.

    Raises:
        EvaluationError: If one has another configuration.
    """
    from evaluation.entries import locate
    from evaluation.errors import EvaluationError
    from storage.policy_file import load_policy
    from storage.run_folder import RunFolder

    named = list(options.policies)
    place = locate(options.run)
    if not named and place.is_dir():
        folder = RunFolder(place)
        both = (folder.policy_file, folder.best_file)
        named = [path for path in both if path.is_file() and path != folder.chosen_policy_file]
    found = {str(path): load_policy(locate(path), trust=options.trust) for path in named}
    for path, other in found.items():
        same = (other.policy.config, other.policy.specs) == (file.policy.config, file.policy.specs)
        if not same:
            raise EvaluationError(
                f"--policies {path}: its network or observations are not those of {options.run}; "
                "name policies of the same training"
            )
    return dict(sorted(found.items(), key=lambda pair: pair[1].about.env_steps))


def _without_pictures(parts: dict[str, Any]) -> dict[str, Any]:
    made = {
        name: {key: value for key, value in found.items() if key != "examples"}
        for name, found in parts["interventions"].items()
    }
    return {**parts, "interventions": made}
