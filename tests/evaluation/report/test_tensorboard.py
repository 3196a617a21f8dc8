"""Tests of `evaluation.report.tensorboard`, by reading back what it wrote."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.backend_context import Context
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from evaluation.report.curves import read_curve
from evaluation.report.markdown import markdown
from evaluation.report.report import as_dict
from evaluation.report.skill import lines_of, rows_of
from evaluation.report.tensorboard import _naming, write_board, write_curves
from evaluation.statistics import band
from tests.evaluation.policies import renamed

STATISTICS = ("ci_low", "ci_high", "median", "iqm", "std", "mean_length")


def short(comparison, names=("good", "bad")):
    """Rename the entries."""
    return renamed(comparison, *names)


@pytest.fixture(scope="module")
def folder(comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    write_board(short(comparison), folder)
    return folder


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def scalars(folder):
    board = read(folder)
    return {
        tag: [(event.step, event.value) for event in board.Scalars(tag)]
        for tag in board.Tags()["scalars"]
    }


def event_files(folder):
    return sorted(folder.glob("**/events.out.tfevents*"))


def test_every_result_has_a_run_with_its_scores(folder, comparison):
    for result in short(comparison).results:
        found = scalars(folder / result.name.replace(" ", "-"))
        step = {"good": 300, "bad": 70, "random": 0}[result.entry]
        for name in STATISTICS:
            ((at, value),) = found.pop(f"scores_of_CartPole-v1/{name}")
            assert at == step
            assert value == pytest.approx(getattr(result.score, name), rel=1e-6)
        ((_, mean),) = found.pop("scores/CartPole-v1")
        assert mean == pytest.approx(result.score.mean, rel=1e-6)
        assert found == {}


def test_the_tables_are_shown_as_text(folder, comparison):
    (event,) = read(folder).Tensors("compare/CartPole-v1/text_summary")
    assert event.tensor_proto.string_val[0].decode() == markdown(short(comparison))


def test_hyperparameters_of_training_runs_keep_their_columns(comparison, tmp_path):
    hyperparameters = {f"agent.field_{i}": float(i) for i in range(59)}
    training = SummaryWriter(str(tmp_path / "zz" / "ppo-seed0"))
    for summary in hparams(hyperparameters, {"eval/mean_reward": 0.0}):
        training._get_file_writer().add_summary(summary)
    training.add_scalar("eval/mean_reward", 1.0, 10)
    training.close()
    write_board(short(comparison), tmp_path / "compare")
    names, tags = as_tensorboard_shows(tmp_path)
    assert names == set(hyperparameters)
    # TensorBoard opens on the first tag.
    assert tags[0] == "eval/mean_reward"
    _, tags = as_tensorboard_shows(tmp_path / "compare")
    assert tags[0] == "scores/CartPole-v1"


def as_tensorboard_shows(logdir):
    """Return the columns of the HParams tab, and the tags of scalars in their order."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    backend = Context(TBContext(data_provider=provider))
    context = RequestContext()
    experiment = backend.experiment_from_metadata(
        context,
        "",
        True,
        backend.hparams_metadata(context, ""),
        backend.hparams_from_data_provider(context, "", limit=None),
    )
    tags = [
        tag
        for run, found in multiplexer.Runs().items()
        for tag in found["tensors"]
        if multiplexer.SummaryMetadata(run, tag).plugin_data.plugin_name == "scalars"
    ]
    return {info.name for info in experiment.hparam_infos}, sorted(set(tags))


def test_the_margin_chart_shows_the_band_of_the_seeds(folder, runs):
    (event,) = read(folder).Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    (category,) = layout.category
    assert category.title == "CartPole-v1"
    (chart,) = category.chart
    (series,) = chart.margin.series
    found = scalars(folder / "good")
    assert set(found) == {series.value, series.lower, series.upper}
    expected = band([read_curve(runs / f"good-seed{seed}" / "progress.csv") for seed in (0, 1)])
    steps, *parts = expected
    for tag, values in zip((series.value, series.lower, series.upper), parts, strict=True):
        at, seen = zip(*found[tag], strict=True)
        np.testing.assert_array_equal(at, steps.astype(int))
        np.testing.assert_allclose(seen, values, rtol=1e-6)
    # An entry without a curve has no band.
    assert not (folder / "bad").exists()


def test_files_of_an_earlier_comparison_are_removed(comparison, tmp_path):
    write_board(short(comparison, ("old", "older")), tmp_path)
    write_board(short(comparison), tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        "good",
        "good-(sampled)",
        "good-(greedy)",
        "bad-(sampled)",
        "bad-(greedy)",
        "random",
    }
    assert len(event_files(tmp_path)) == 7


def test_files_of_a_training_in_the_same_folder_are_kept(comparison, tmp_path):
    training = tmp_path / "good" / "events.out.tfevents.1.host.2.0"
    training.parent.mkdir()
    training.write_bytes(b"")
    for _ in range(2):
        write_board(short(comparison), tmp_path)
    assert training.exists()
    assert len(event_files(tmp_path)) == 8


@pytest.mark.parametrize(
    "names",
    [
        ("../x", "a/b"),
        ("..", "."),
        ("", "///"),
        ("a/b", "a-b"),
        ("x" * 500, "y" + "x" * 499),
        ("random", "./random"),
        ("é\n\0", "\x1b[31m"),
    ],
    ids=json.dumps,
)
def test_every_name_has_its_own_folder_inside_the_folder(comparison, tmp_path, names):
    folder = tmp_path / "board"
    write_board(short(comparison, names), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["board"]
    # The table, five results and one band.
    assert len(event_files(folder)) == 7
    assert len({path.parent for path in event_files(folder)}) == 7


def fill_a_disk():
    """Write to a full disk, in a thread and in this one."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        thread = threading.Thread(target=os.write, args=(full, b"x"))
        thread.start()
        thread.join()
        os.write(full, b"x")
    finally:
        os.close(full)


def test_an_error_of_the_disk_names_the_folder_once(tmp_path, capfd):
    with pytest.raises(OSError, match="No space left") as error, _naming(tmp_path):
        fill_a_disk()
    assert error.value.filename == str(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_all_environments_are_charts_with_bands_and_lines(comparison, tmp_path):
    document = json.loads(json.dumps(as_dict(comparison), default=str))
    document["reference"] = {"mean": 60.0, "source": "a book"}
    other = document | {"env": "Other-v0", "reference": None}
    without = {**document, "env": "None-v0"}
    without["results"] = [r for r in document["results"] if "bad" in r["name"]]
    written = write_curves([document, other, without], tmp_path)
    assert written == ["CartPole-v1", "Other-v0"]
    assert {folder.name for folder in tmp_path.iterdir()} == {"good", "random", "reference"}
    (event,) = read(tmp_path / "good").Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(event.tensor_proto.string_val[0]).category
    assert {chart.title for chart in category.chart} == {"CartPole-v1", "Other-v0"}
    (series,) = category.chart[0].margin.series
    env = category.chart[0].title
    assert [series.value, series.lower, series.upper] == [
        f"seeds_of_{env}/{part}" for part in ("mean", "low", "high")
    ]
    steps, *parts = band(rows_of(document)[0].curves)
    found = scalars(tmp_path / "good")
    for part, values in zip(("mean", "low", "high"), parts, strict=True):
        points = found[f"seeds_of_CartPole-v1/{part}"]
        assert [step for step, _ in points] == steps.astype(int).tolist()
        assert [value for _, value in points] == pytest.approx(values.tolist(), rel=1e-6)
    lines = lines_of(document)
    assert lines["reference"] == 60.0
    for name in ("random", "reference"):
        points = scalars(tmp_path / name)["seeds_of_CartPole-v1/mean"]
        assert (points[0][0], points[-1][0]) == (100, 500)
        assert [value for _, value in points] == pytest.approx([lines[name]] * len(points))
    # In place of an earlier one.
    write_curves([other], tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == {"good", "random"}
    assert len(event_files(tmp_path)) == 2
