"""Tests of `training.logger`, by reading back what it wrote."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import time

import pytest
from PIL import Image
from stable_baselines3.common.logger import KVWriter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from storage.files import FileError
from training.logger import RunLogger


@contextlib.contextmanager
def logging(folder, *, start=0, total=1000, writers=()):
    if start:
        # TensorBoard reads files in the order of their names, which contain the second.
        time.sleep(1.001 - time.time() % 1.0)
    logger = RunLogger(folder, total=total, start=start, writers=writers)
    with contextlib.closing(logger):
        yield logger


def log(logger, steps):
    """Log as a training does, with a return that is a tenth of the step."""
    for step in steps:
        logger.record("time/total_timesteps", step)
        logger.record("time/env_steps_per_s", 100.0)
        logger.record("rollout/ep_rew_mean", step / 10)
        logger.dump(step)


def board(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def scalars(folder, tag):
    return [(event.step, event.value) for event in board(folder).Scalars(tag)]


def rows(folder):
    with (folder / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_tensorboard_has_every_tag_at_its_env_step(tmp_path):
    with logging(tmp_path) as logger:
        log(logger, [10, 20, 30])
    tags = board(tmp_path).Tags()["scalars"]
    assert {"time/total_timesteps", "time/env_steps_per_s", "rollout/ep_rew_mean"} <= set(tags)
    expected = [(10, 1.0), (20, 2.0), (30, 3.0)]
    assert scalars(tmp_path, "rollout/ep_rew_mean") == expected


def test_the_csv_has_the_same_scalars(tmp_path):
    with logging(tmp_path) as logger:
        log(logger, [10, 20, 30])
    table = [
        (int(r["time/total_timesteps"]), float(r["rollout/ep_rew_mean"])) for r in rows(tmp_path)
    ]
    assert table == scalars(tmp_path, "rollout/ep_rew_mean")


def test_a_later_tag_gets_a_column(tmp_path):
    with logging(tmp_path) as logger:
        log(logger, [10])
        logger.record("eval/mean_reward", 7.0)
        log(logger, [20, 30])
    assert [row["eval/mean_reward"] for row in rows(tmp_path)] == ["", "7.0", ""]
    assert scalars(tmp_path, "eval/mean_reward") == [(20, 7.0)]


@pytest.mark.parametrize("parts", [((10, 20), (30, 40)), ((10,), (20,), (30, 40))])
def test_a_run_that_resumes_neither_loses_nor_repeats_a_record(tmp_path, parts):
    start = 0
    for part in parts:
        with logging(tmp_path, start=start) as logger:
            if part == parts[0]:
                logger.record("eval/mean_reward", 7.0)
            log(logger, part)
        start = part[-1]
    assert [int(row["time/total_timesteps"]) for row in rows(tmp_path)] == [10, 20, 30, 40]
    assert [float(row["rollout/ep_rew_mean"]) for row in rows(tmp_path)] == [1, 2, 3, 4]
    assert [row["eval/mean_reward"] for row in rows(tmp_path)] == ["7.0", "", "", ""]
    expected = [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)]
    assert scalars(tmp_path, "rollout/ep_rew_mean") == expected
    assert scalars(tmp_path, "eval/mean_reward") == [(10, 7.0)]


def test_records_after_the_checkpoint_are_replaced(tmp_path):
    with logging(tmp_path) as logger:
        log(logger, [10, 20, 30])
    # The last checkpoint was at 20; the env steps after it are repeated.
    with logging(tmp_path, start=20) as logger:
        logger.record("rollout/ep_rew_mean", 99.0)
        logger.record("time/total_timesteps", 30)
        logger.dump(30)
    expected = [(10, 1.0), (20, 2.0), (30, 99.0)]
    assert scalars(tmp_path, "rollout/ep_rew_mean") == expected
    assert [float(row["rollout/ep_rew_mean"]) for row in rows(tmp_path)] == [1, 2, 99]


def test_an_incomplete_last_line_of_the_csv_is_dropped(tmp_path):
    with logging(tmp_path) as logger:
        log(logger, [10, 20])
    path = tmp_path / "progress.csv"
    path.write_text(path.read_text() + "3")
    with logging(tmp_path, start=20) as logger:
        log(logger, [30])
    assert [int(row["time/total_timesteps"]) for row in rows(tmp_path)] == [10, 20, 30]


def test_a_gif_is_logged_as_an_image(tmp_path):
    frames = [Image.new("RGB", (8, 6), (shade, 0, 0)) for shade in (0, 120, 240)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    with logging(tmp_path) as logger:
        log(logger, [10])
        logger.record_gif("eval/episode", buffer.getvalue(), 8, 6, 10)
    (event,) = board(tmp_path).Images("eval/episode")
    assert (event.step, event.width, event.height) == (10, 8, 6)
    assert event.encoded_image_string == buffer.getvalue()
    with Image.open(io.BytesIO(event.encoded_image_string)) as image:
        assert image.format == "GIF"
        assert image.n_frames == 3


def test_hyperparameters_are_in_their_tab_and_not_in_the_csv(tmp_path):
    config = {"gamma": 0.9, "memory": "lstm", "sizes": (64, 64), "anneal": True, "limit": None}
    with logging(tmp_path) as logger:
        logger.record_config(config, {"eval/mean_reward": 0.0})
        log(logger, [10])
    tags = board(tmp_path).PluginTagToContent("hparams")
    assert "_hparams_/experiment" in tags
    written = tags["_hparams_/session_start_info"]
    for word in (b"gamma", b"lstm", b"(64, 64)", b"anneal", b"None"):
        assert word in written
    assert not any("hparams" in key for key in rows(tmp_path)[0])


def test_means_are_over_the_last_100_episodes(tmp_path):
    with logging(tmp_path) as logger:
        logger.record_episodes([{"r": 1000.0, "l": 5.0, "t": 1.0, "kills": 9.0}])
        logger.record_episodes(
            [{"r": float(r), "l": 2.0, "t": 1.0, "kills": 1.0} for r in range(100)]
        )
        logger.record_update({"loss": 0.5, "objectives/contrastive/loss": 0.25})
        log(logger, [])
        logger.dump(10)
    assert scalars(tmp_path, "rollout/ep_rew_mean") == [(10, 49.5)]
    assert scalars(tmp_path, "rollout/ep_len_mean") == [(10, 2.0)]
    assert scalars(tmp_path, "rollout/ep_kills_mean") == [(10, 1.0)]
    assert scalars(tmp_path, "train/loss") == [(10, 0.5)]
    assert scalars(tmp_path, "objectives/contrastive/loss") == [(10, 0.25)]
    assert "rollout/ep_t_mean" not in board(tmp_path).Tags()["scalars"]


def test_without_episodes_there_is_no_return(tmp_path):
    with logging(tmp_path) as logger:
        logger.record_episodes([])
        logger.record("time/fps", 1.0)
        logger.dump(10)
    assert "rollout/ep_rew_mean" not in board(tmp_path).Tags()["scalars"]


def test_without_a_terminal_progress_is_about_20_lines(tmp_path, capsys):
    with logging(tmp_path) as logger:
        log(logger, range(1, 1001))
        logger.progress.say("an evaluation")
    lines = [line for line in capsys.readouterr().err.splitlines() if "env steps" in line]
    assert 15 <= len(lines) <= 25
    assert "1,000 env steps" in lines[-1]
    assert "env steps/s" in lines[-1]


class Stop(Exception):  # noqa: N818 # not an error
    """The return is high enough."""


class Reader(KVWriter):
    """Reads returns, and raises as soon as one is high enough."""

    def __init__(self):
        self.read = []

    def write(self, key_values, key_excluded, step=0):
        self.read.append((step, key_values["rollout/ep_rew_mean"]))
        if key_values["rollout/ep_rew_mean"] >= 2:
            raise Stop

    def close(self):
        self.read.append("closed")


def test_another_writer_receives_each_record_and_may_raise(tmp_path):
    reader = Reader()
    with pytest.raises(Stop), logging(tmp_path, writers=[reader]) as logger:
        log(logger, [10, 20, 30])
    assert reader.read == [(10, 1.0), (20, 2.0), "closed"]
    assert scalars(tmp_path, "rollout/ep_rew_mean") == reader.read[:2]
    assert [float(row["rollout/ep_rew_mean"]) for row in rows(tmp_path)] == [1.0, 2.0]


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n",
        b"time/total_timesteps,a\nx,2\n",
        b"time/total_timesteps,a\n,2\n",
        b"\x00\xff" * 99 + b"\n" + b"1\n",
        b"a,time/total_timesteps\n1\n",
    ],
)
def test_a_csv_that_no_training_wrote_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "progress.csv").write_bytes(content)
    message = r"progress\.csv is not what a training wrote; move it elsewhere"
    with pytest.raises(FileError, match=message), logging(tmp_path, start=10):
        pass
    assert (tmp_path / "progress.csv").read_bytes() == content


@pytest.mark.parametrize("kind", ["a fifo", "a device", "sparse"])
def test_a_csv_that_is_no_regular_file_of_bounded_size_is_not_read(tmp_path, kind):
    path = tmp_path / "progress.csv"
    if kind == "a fifo":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 2**31)
    with pytest.raises(FileError, match=r"is not a regular file|is too large"):
        RunLogger(tmp_path, total=10, start=10)


def test_a_csv_is_not_written_through_a_link(tmp_path):
    outside, folder = tmp_path / "outside.csv", tmp_path / "run"
    folder.mkdir()
    outside.write_text("time/total_timesteps,time/fps\n10,1\n")
    for name in ("progress.csv", ".progress.csv.tmp"):
        (folder / name).symlink_to(outside)
    with logging(folder, start=10) as logger:
        log(logger, [20])
    assert outside.read_text() == "time/total_timesteps,time/fps\n10,1\n"
    assert [row["time/total_timesteps"] for row in rows(folder)] == ["10", "20"]


@pytest.mark.parametrize("values", [[1e308] * 100, [float("inf"), -float("inf")], [float("nan")]])
def test_a_mean_that_is_not_finite_ends_nothing(tmp_path, values):
    with logging(tmp_path) as logger:
        logger.record_episodes([{"r": value, "l": 1.0, "kills": value} for value in values])
        logger.restore_episodes(values, values)
        log(logger, [10])
    assert rows(tmp_path)[0]["rollout/ep_kills_mean"] in ("inf", "nan")


def test_columns_are_in_the_order_in_which_they_first_appear(tmp_path):
    records = [{"b": 1, "a": 2.5}, {"c": "x, y", "a": 3, "d": 4}, {"b": 5, "e": 6}]

    def log(logger, numbers):
        for number in numbers:
            for name, value in records[number].items():
                logger.record(name, value)
            logger.record("time/total_timesteps", number)
            logger.dump(number)
        logger.close()

    log(RunLogger(tmp_path, total=10, start=0), (0, 1))
    log(RunLogger(tmp_path, total=10, start=1), (2,))  # It resumes.
    lines = (tmp_path / "progress.csv").read_text().splitlines()
    assert lines == [
        "b,a,time/total_timesteps,c,d,e",
        "1,2.5,0,,,",
        ',3,1,"x, y",4,',
        "5,,2,,,6",
    ]
