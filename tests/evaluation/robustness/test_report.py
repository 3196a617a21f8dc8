"""Tests of `evaluation.robustness.report`."""

from __future__ import annotations

import pytest

from envs import EnvConfig
from evaluation.protocol import Protocol
from evaluation.report.layout import rendered
from evaluation.robustness.attacker import ATTACKS
from evaluation.robustness.measure import Cell, Measured
from evaluation.robustness.report import (
    COLUMNS,
    markdown,
    picture,
    recoveries,
    rows_of,
    table,
    text_of,
)
from evaluation.robustness.shifts import SHIFTS

EFFECT = {"distance": 0.25, "changed": 0.5, "value": -3.0}
RECOVERY = {
    "episodes": 4,
    "during": 0.4,
    "curve": [0.2, 0.1],
    "recovered": 0.75,
    "median_steps": 3.0,
}


def measured(*returns, **options):
    return Measured(returns=list(returns), length=5.0, seconds=1.0, **options)


def entry(name, shift=0.0):
    """Return the rows of an entry with two training seeds."""
    cells = {
        Cell(name="clean"): [measured(9.0, 11.0), measured(10.0, 10.0)],
        Cell(name="random"): [measured(-10.0, -10.0)] * 2,
        Cell(name="sign_noise", epsilon=1.0): [measured(10.0, 10.0, effect=EFFECT)] * 2,
        Cell(name="fgsm", epsilon=1.0): [measured(5.0 + shift, 5.0), measured(-4.0, -6.0)],
        Cell(name="fgsm", epsilon=2.0): [measured(-11.0, -9.0, effect=EFFECT)] * 2,
        Cell(name="darker"): [measured(10.0, 10.0, effect=EFFECT)] * 2,
        Cell(name="foreign"): [measured(8.0, 8.0, recovery=RECOVERY)] * 2,
    }
    return rows_of(name, {cell.key: (cell, seeds) for cell, seeds in cells.items()})


def test_kept_is_a_scale_from_random_to_clean():
    kept = {row.cell.key: row.kept for row in entry("a")}
    assert kept["clean"] == 1
    assert kept["random"] == 0
    assert kept["fgsm 1"] == pytest.approx(0.5)
    assert kept["fgsm 2"] == pytest.approx(0.0)


def test_rows_are_over_seeds():
    rows = {row.cell.key: row for row in entry("a")}
    assert rows["fgsm 1"].score.seed_means == (5.0, -5.0)
    cells = dict(zip(COLUMNS, table([rows["fgsm 2"]])[0], strict=True))
    assert cells["mean"] == "\N{MINUS SIGN}10.00"
    assert (cells["decisions"], cells["distance"], cells["value"]) == ("50 %", "0.250", "-3.00")
    content = rows["fgsm 1"].as_dict()
    assert content["returns"] == [[5.0, 5.0], [-4.0, -6.0]]
    assert (content["change"], content["epsilon"], content["seconds"]) == ("fgsm", 1.0, 2.0)


def test_the_time_of_recovery_is_told():
    (first, second) = recoveries(entry("a"))
    assert first == second
    for words in ("75 % of 4 episodes recovered, after 3 env steps", "0.400", "0.200"):
        assert words in first
    none = {**RECOVERY, "recovered": 0.0, "median_steps": None}
    no_episode = {**RECOVERY, "episodes": 0, "curve": []}
    cells = {name: Cell(name=name) for name in ("clean", "random", "foreign")}
    for found, words in ((none, "none recovered"), (no_episode, "no episode lasted")):
        measured_cells = {
            key: (cell, [measured(float(len(key)), recovery=found if key == "foreign" else None)])
            for key, cell in cells.items()
        }
        assert words in recoveries(rows_of("a", measured_cells))[0]


def test_the_report_names_and_explains_everything():
    rows = [*entry("runs/plain"), *entry("runs/robust", 3.0)]
    text = markdown(rows, EnvConfig(env="basic"), Protocol(episodes=2), "sampled", "attack.png")
    for words in ("runs/plain", "runs/robust", "Protocol: 2 episodes", "(attack.png)"):
        assert words in text
    for name in (*ATTACKS, *SHIFTS, "clean", "random"):
        assert text_of(name)
    assert text_of("fgsm") in text


def test_the_picture_has_a_row_for_each_entry():
    rows = [*entry("runs/plain"), *entry("runs/robust", 3.0)]
    figure = picture(rows, "basic")
    assert len(figure.axes) == 4
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == [
        "runs/plain",
        "runs/robust",
    ]
    curves = {line.get_label(): line for line in figure.axes[0].containers}
    assert set(curves) == {"sign_noise", "fgsm"}
    assert list(curves["fgsm"].lines[0].get_ydata()) == [0.0, -10.0]
    assert rendered(figure, "png")[:4] == b"\x89PNG"
    only_shifts = [row for row in rows if row.cell.name not in ATTACKS]
    assert len(picture(only_shifts, "basic").axes) == 2
    only_attacks = [row for row in rows if row.cell.name not in SHIFTS]
    assert len(picture(only_attacks, "basic").axes) == 2
