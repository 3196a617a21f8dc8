"""Compare returns on training and unseen maps, over the number of training maps.

    nice -n 5 python -m benchmarks.generalisation --env maps:gather

Trainings with 1, 10, 100 and 1,000 generated maps, which differ between seeds, otherwise with the
preset; then with augmentation, LayerNorm and the encoder impoola. The last policy plays
episodes on the training's maps and on unseen ones, with sampled actions. Trainings and episodes
that are there already are not repeated, so the command can be interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import tyro
from matplotlib.figure import Figure

from benchmarks.settings import run_program, with_interval, write_results
from envs import folder_name
from evaluation.entries import find_entries
from evaluation.generalise import TRAINING, UNSEEN, generalise
from evaluation.protocol import Protocol
from evaluation.report.layout import rendered
from evaluation.report.looks import COLOURS
from evaluation.report.markdown import markdown_table
from evaluation.statistics import over_seeds

_MOST_MAPS = 1_000
_FLAGS: dict[str, tuple[str, ...]] = {
    "preset": (),
    "augmentation": ("--objectives", "shift"),
    "layer_norm": ("--layer-norm",),
    "impoola": ("--encoder", "impoola", "--impala-channels", "8", "16", "16"),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is trained.

    Attributes:
        env: generated maps.
        num_maps: numbers of training maps.
        names: the preset, or what is changed in it.
        seeds: training seeds.
        total_env_steps: of each training.
        episodes: of each condition and policy.
        runs: folder of the run folders.
        out: path of the results, without extension: a table, a picture, and JSON.
    """

    env: str = "maps:gather"
    num_maps: tuple[int, ...] = (1, 10, 100, 1_000)
    names: tuple[str, ...] = tuple(_FLAGS)
    seeds: tuple[int, ...] = (0, 1, 2)
    total_env_steps: int = 150_000
    episodes: int = 100
    runs: Path = Path("runs/generalisation")
    out: Path = Path("generalisation")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result of one setting.

    Attributes:
        name: what is changed in the preset.
        num_maps: number of training maps.
        training: mean returns on the training's maps, for each seed.
        unseen: mean returns on unseen maps, for each seed.
    """

    name: str
    num_maps: int
    training: list[float] = field(default_factory=list)
    unseen: list[float] = field(default_factory=list)

    @property
    def gaps(self) -> list[float]:
        """For each seed, how much higher the return is on the training's maps."""
        return [seen - new for seen, new in zip(self.training, self.unseen, strict=True)]


def measure(study: Study, name: str, num_maps: int) -> Row:
    """Train and score one setting with all seeds, unless that has been done."""
    row = Row(name=name, num_maps=num_maps)
    for seed in study.seeds:
        folder = study.runs.absolute() / folder_name(study.env) / f"{name}-{num_maps}-{seed}"
        run_program(
            *("train.py", study.env, "--seed", str(seed), "--no-record", "--eval-envs", "none"),
            *("--num-maps", str(num_maps), "--first-map", str(seed * _MOST_MAPS)),
            *("--total-env-steps", str(study.total_env_steps), "--run-dir", str(folder)),
            *_FLAGS[name],
        )
        (entry,) = find_entries([str(folder)], trust=False)
        protocol = Protocol(episodes=study.episodes, seed=0, num_envs=16)
        outcomes = generalise(
            entry,
            protocol,
            greedy=False,
            file=folder / "generalise.json",
            progress=lambda condition: None,
            names=(TRAINING, UNSEEN),
        )
        means = {outcome.condition.name: outcome.score.mean for outcome in outcomes}
        row.training.append(means[TRAINING])
        row.unseen.append(means[UNSEEN])
    return row


def table(rows: list[Row]) -> list[str]:
    """Return the results as a Markdown table."""
    titles = ("", "training maps", "on them", "95 %", "on unseen maps", "95 %", "gap", "95 %")
    cells = [
        [
            *(row.name, f"{row.num_maps:,}", *with_interval(row.training, ".0f")),
            *(*with_interval(row.unseen, ".0f"), *with_interval(row.gaps, ".0f")),
        ]
        for row in rows
    ]
    return markdown_table(titles, cells, text=(0,))


def picture(study: Study, rows: list[Row]) -> Figure:
    """Draw the returns of each setting over the number of training maps."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(study.names):
        own = [row for row in rows if row.name == name]
        for where, style in (("training", "--"), ("unseen", "-")):
            values = [getattr(row, where) for row in own]
            places = [row.num_maps for row in own]
            label = f"{name}, {where} maps"
            axes.plot(places, [mean(each) for each in values], style, color=COLOURS[i], label=label)
            if len(study.seeds) > 1 and where == "unseen":
                bounds = [over_seeds(each) for each in values]
                lows, highs = [b.low for b in bounds], [b.high for b in bounds]
                axes.fill_between(places, lows, highs, color=COLOURS[i], alpha=0.2, linewidth=0)
    axes.set(xscale="log", xlabel="training maps", ylabel="native return", title=study.env)
    axes.set_xticks(study.num_maps, [f"{count:,}" for count in study.num_maps])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure


def main() -> None:
    """Train, score, and write the results."""
    study = tyro.cli(Study, description=__doc__)
    rows = [measure(study, name, count) for name in study.names for count in study.num_maps]
    write_results(study.out, table(rows), [vars(row) for row in rows])
    study.out.with_suffix(".png").write_bytes(rendered(picture(study, rows), "png"))


if __name__ == "__main__":
    main()
