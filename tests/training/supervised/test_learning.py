"""Tests of `training.supervised.learning`: it learns, resumes bit for bit, and keeps the best."""

from __future__ import annotations

import csv
import errno
import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perception import ENCODERS, PerceptionConfig
from storage.files import FileError
from storage.perception_file import load_perception, save_perception
from storage.run_folder import RunFolder, find_policy
from tests.training.supervised.data import idx, quadrants, write_quadrants
from training.errors import TrainingError
from training.randomness import generator_of
from training.supervised.config import SeeConfig, default_see_config
from training.supervised.digits import Digits, DigitsConfig
from training.supervised.learning import check_resumable, see
from training.supervised.network import build_network
from training.supervised.scoring import rebuild, score

SMALL = {"mlp": {}, "impala": {"impala_channels": (4, 8)}, "impoola": {"impala_channels": (4, 8)}}


class After(list):
    """Signals of which there are none until they were asked for some times."""

    def __init__(self, times):
        super().__init__([signal.SIGINT])
        self.times = times

    def __bool__(self):
        self.times -= 1
        return self.times < 0


@pytest.fixture
def config(tmp_path):
    task = DigitsConfig(data=write_quadrants(tmp_path / "data"), classes=4)
    return SeeConfig(
        task=task,
        perception=PerceptionConfig(encoder=ENCODERS["mlp"][0]()),
        epochs=4,
        batch_size=16,
        augment=False,
        device="cpu",
        num_threads=1,
        precision="float32",
        run_dir=tmp_path / "run",
    )


def run(config, name="run", signals=()):
    folder = RunFolder(config.run_dir.with_name(name))
    see(config, folder, signals)
    return folder


def rows(folder):
    return list(csv.DictReader((folder.path / "progress.csv").open()))


def test_it_learns_and_is_scored_on_the_test_set(config, capsys):
    folder = run(config)
    assert "score it on the test set:  python evaluate.py score" in capsys.readouterr().out
    task, network = rebuild(load_perception(folder.perception_file), torch.device("cpu"))
    measures, test, statistics = score(task, network, task.source())
    measured = measures["accuracy"]
    assert measured.value > 0.8
    assert measured.low <= measured.value <= measured.high
    assert measured.baseline == 0.25
    assert len(statistics["label"]) == len(test["label"]) == 40


def test_everything_is_logged(config):
    config = replace(config, schedule="step", decay_steps=1, decay_factor=0.5)
    folder = run(config)
    events = EventAccumulator(str(folder.path)).Reload()
    rates = [event.value for event in events.Scalars("train/learning_rate")]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4])
    assert [e.step for e in events.Scalars("train/loss")] == [112, 224, 336, 448]
    assert "validation/confusion" in events.Tags()["images"]
    scores = [float(row["validation/log_likelihood"]) for row in rows(folder)]
    best = [float(row["validation/best_log_likelihood"]) for row in rows(folder)]
    assert best == [max(scores[: i + 1]) for i in range(4)]


def test_the_best_weights_are_kept_and_it_stops_when_it_stagnates(config):
    config = replace(config, learning_rate=0.2, schedule="constant", epochs=50, patience=3)
    folder = run(config)
    scores = [float(row["validation/log_likelihood"]) for row in rows(folder)]
    first_best = scores.index(max(scores))
    assert len(scores) == first_best + 1 + config.patience < 50
    trained = load_perception(folder.perception_file).trained
    assert trained.epoch == first_best + 1
    assert trained.score == max(scores)


@pytest.mark.parametrize("encoder", SMALL)
def test_an_interrupted_training_resumes_bit_for_bit(config, encoder):
    perception = PerceptionConfig(encoder=ENCODERS[encoder][0](**SMALL[encoder]))
    config = replace(config, perception=perception, epochs=2, dropout=0.2, augment=True)
    whole = run(config, "whole")
    signals = After(9)  # In the second minibatch of the second epoch.
    run(config, "parts", signals)
    parts = run(config, "parts")
    ours, theirs = (load_perception(f.perception_file) for f in (parts, whole))
    assert ours.trained == theirs.trained
    for name, tensor in theirs.tensors.items():
        assert torch.equal(ours.tensors[name], tensor), name
    assert parts.checkpoints[0].name == whole.checkpoints[0].name
    assert [row["train/loss"] for row in rows(parts)] == [row["train/loss"] for row in rows(whole)]


@pytest.mark.parametrize("encoder", [e for e in ENCODERS if e != "mlp"])
def test_an_epoch_is_that_of_plain_pytorch(config, encoder, tmp_path):
    """An independent loop, with an optimiser that is not fused, ends with the same weights."""
    data = write_quadrants(tmp_path / "large", train=48)
    sizes = SMALL.get(encoder, {})
    config = replace(
        config,
        perception=PerceptionConfig(encoder=ENCODERS[encoder][0](**sizes)),
        task=DigitsConfig(data=_enlarged(data), classes=4),
        epochs=1,
        weight_decay=0.1,
        schedule="linear",
    )
    folder = run(config)
    task = Digits(config.task)
    train = task.load("train")
    torch.manual_seed(config.seed)
    network = build_network(task.specs(train), config.perception, task.head)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.1, fused=False)
    order = torch.randperm(44, generator=generator_of(0, 0))
    for i, chosen in enumerate(order.split(16)):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - i / 3)
        features = network.perception.encode({"image": train["image"][chosen]})
        loss = torch.nn.functional.cross_entropy(network.head(features), train["label"][chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    ours = load_perception(folder.perception_file).tensors
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, atol=2e-5, rtol=1e-4)


def _enlarged(folder):
    """Write images that are large enough for every encoder."""
    for part, count in (("train", 48), ("t10k", 40)):
        images, _ = quadrants(count, 0)
        large = np.kron(images, np.ones((1, 4, 4), np.uint8))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(large))
    return folder


def test_a_finished_training_is_left_as_it_is(config, capsys):
    folder = run(config)
    before = folder.perception_file.read_bytes()
    run(config)
    assert "is already trained for 4 epochs; raise --epochs" in capsys.readouterr().out
    assert folder.perception_file.read_bytes() == before
    longer = replace(config, epochs=5)
    check_resumable(folder, longer)
    run(longer)
    assert [row["time/epoch"] for row in rows(folder)] == ["1", "2", "3", "4", "5"]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_not_used(config, capsys):
    run(config, "whole")
    folder = run(config, "parts", After(12))
    folder.checkpoints[0].write_bytes(b"damaged")
    run(config, "parts")
    assert "resuming from the checkpoint before it" in capsys.readouterr().err
    whole = RunFolder(config.run_dir.with_name("whole"))
    ours, theirs = (load_perception(f.perception_file).tensors for f in (folder, whole))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_other_settings_do_not_resume_it(config):
    folder = run(replace(config, epochs=1))
    with pytest.raises(FileError, match="with batch_size 16, not 8; choose another --run-dir"):
        check_resumable(folder, replace(config, batch_size=8))
    with pytest.raises(FileError, match="holds a perception without an agent"):
        folder.read_config()
    with pytest.raises(FileError, match="which can be scored, or start an agent"):
        find_policy(folder.path)
    folder.config_file.write_text(json.dumps({"config": {"objectives": {}}}))
    with pytest.raises(FileError, match="holds the training of an agent"):
        check_resumable(folder, config)


def test_other_data_do_not_resume_it(config):
    run(replace(config, epochs=1))
    write_quadrants(config.task.data, train=124)
    with pytest.raises(FileError, match="was trained with other data than those that are there"):
        run(config)


def test_a_perception_without_checkpoints_is_not_erased(config):
    folder = run(replace(config, epochs=1))
    before = folder.perception_file.read_bytes()
    for file in folder.checkpoints:
        file.unlink()
    with pytest.raises(FileError, match="holds a perception but no checkpoint to resume from"):
        run(config)
    assert folder.perception_file.read_bytes() == before


def test_the_best_weights_are_those_that_could_be_written(config, monkeypatch):
    """With a disk that is full after the first epoch, a worse epoch later is the best one."""
    tried = []

    def full(*arguments, **options):
        tried.append(options["trained"].epoch)
        if len(tried) == 1:
            raise OSError(errno.ENOSPC, "No space left on device", "perception.safetensors")
        return save_perception(*arguments, **options)

    monkeypatch.setattr("training.supervised.learning.save_perception", full)
    scores = iter((0.9, 0.5, 0.4, 0.3))
    monkeypatch.setattr(Digits, "measure", lambda task, statistics: {task.chosen_by: next(scores)})
    folder = run(config)
    assert tried == [1, 2]
    assert load_perception(folder.perception_file).trained.score == 0.5


def test_data_that_changed_are_not_scored(config):
    folder = run(replace(config, epochs=1))
    file = load_perception(folder.perception_file)
    write_quadrants(config.task.data, test=44)
    task, network = rebuild(file, torch.device("cpu"))
    with pytest.raises(FileError, match="the data have changed since the training"):
        score(task, network, file.trained.source)


def test_a_training_that_diverges_says_so(config, monkeypatch):
    monkeypatch.setattr(Digits, "loss", lambda self, p, batch: (p * float("nan")).sum())
    with pytest.raises(TrainingError, match="a gradient is not finite in epoch 1; try a lower"):
        run(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("dropout", 1.0),
        ("decay_factor", 0.0),
        ("patience", 0),
        ("seed", -1),
    ],
)
def test_values_out_of_range_are_refused(config, field, value):
    with pytest.raises(ValueError, match=f"{field} must"):
        replace(config, **{field: value})


def test_presets_name_fields_that_exist():
    config = default_see_config("digits")
    assert config.perception.encoder_name == "impala"
    assert config.perception.encoder.impala_channels == (32, 64, 64)
    assert config.epochs == 30
