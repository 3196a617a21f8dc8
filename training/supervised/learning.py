"""Supervised training of a perception: minibatches, validation, the best weights, checkpoints.

The order of the examples is a function of seed and epoch, and the state of PyTorch's generator is
in the checkpoints: a training that resumes continues bit for bit on a CPU, also within an epoch.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from agents.device import choose_device, choose_precision
from envs import StoppedError
from evaluation.printing import print_line
from perception.lookup import as_named_dict
from storage.checkpoint import optimizer_state, optimizer_tensors, under
from storage.files import FileError, check_writable, decode
from storage.perception_file import Trained, save_perception
from storage.run_folder import RunFolder
from storage.tensor_file import TensorFile, expect_kinds, kind_of, one_line, write_tensors
from training.config import dotted, dotted_fields
from training.errors import TrainingError
from training.guard import continuing_without_disk
from training.logger import RunLogger, Shown
from training.randomness import generator_of
from training.resume import check_same, load_newest
from training.supervised import TASKS, Task
from training.supervised.config import AnySeeConfig
from training.supervised.network import Network, build_network
from training.supervised.scoring import statistics_of
from training.supervised.task import Examples, count, on_device


@dataclass
class SeeProgress:
    """How far a supervised training is; saved with every checkpoint.

    Attributes:
        epoch: complete passes over the examples.
        batch: minibatches of the next pass that are done already.
        examples: that were learned from.
        seconds: spent learning and validating.
        loss: sum of the losses of these minibatches.
        best_score: of the best epoch, on the validation set.
        epochs_since_best: epochs without improvement.

    Raises:
        ValueError: If a value is out of range.
    """

    epoch: int = 0
    batch: int = 0
    examples: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    best_score: float | None = None
    epochs_since_best: int = 0

    def __post_init__(self) -> None:
        """Check ranges: a checkpoint may come from a stranger."""
        for name in ("epoch", "batch", "examples", "epochs_since_best", "seconds"):
            if not 0 <= getattr(self, name) < 2**53:
                raise ValueError(f"{name} cannot be {getattr(self, name)}")


@dataclass
class SupervisedTraining:
    """A supervised training in progress.

    Attributes:
        config: its configuration.
        folder: its folder.
        task: what is learned.
        network: learns it.
        optimizer: of the network's parameters.
        train: the examples of training.
        validation: the examples by which the best weights are chosen.
        source: SHA-256 of the data.
        progress: how far it is.
        logger: logs to TensorBoard, progress.csv and the terminal.
        signals: is filled when the training is to stop.
    """

    config: AnySeeConfig
    folder: RunFolder
    task: Task[Any]
    network: Network
    optimizer: torch.optim.Optimizer
    train: Examples
    validation: Examples
    source: str
    progress: SeeProgress
    logger: RunLogger
    signals: Sequence[int]
    _saved_at: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, is complete, or has stopped improving."""
        return bool(self.signals) or is_finished(self.config, self.progress)

    @property
    def num_batches(self) -> int:
        """Minibatches of an epoch; the last one may be smaller."""
        return math.ceil(count(self.train) / self.config.batch_size)

    def learn(self) -> None:
        """Learn epoch by epoch, until the end, a signal, or stagnation."""
        while not self.is_over:
            start, before = time.perf_counter(), self.progress.examples
            done = self.learn_epoch()
            seconds = time.perf_counter() - start
            self.progress.seconds += seconds
            if done:
                self.finish_epoch((self.progress.examples - before) / seconds)
            else:
                self.save()

    def learn_epoch(self) -> bool:
        """Learn from each example once, and return whether there was no signal to stop."""
        progress, config = self.progress, self.config
        order = torch.randperm(
            count(self.train), generator=generator_of(config.seed, progress.epoch)
        )
        batches = order.split(config.batch_size)
        self.network.train()
        for chosen in batches[progress.batch :]:
            batch = {name: part[chosen] for name, part in self.train.items()}
            progress.loss += self.update(batch)
            progress.batch += 1
            progress.examples += len(chosen)
            if self.signals:
                return False
            if time.monotonic() - self._saved_at > config.checkpoint_every_s:
                self.save()
        return True

    def update(self, batch: Examples) -> float:
        """Update the network with a minibatch, and return the loss.

        Raises:
            TrainingError: If the loss or a gradient is not finite.
        """
        config, progress = self.config, self.progress
        batch = on_device(self.task.augment(batch) if config.augment else batch, self.network)
        rate = config.learning_rate_at(progress.epoch + progress.batch / self.num_batches)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.task.loss(self.task.predict(self.network, batch), batch)
        self.optimizer.zero_grad()
        # `backward`, unlike `autograd.grad`, lays gradients out as their parameters are.
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"a gradient is not finite in epoch {progress.epoch + 1}; try a lower "
                "--learning-rate"
            )
        self.optimizer.step()
        return float(loss.detach())

    def finish_epoch(self, examples_per_s: float) -> None:
        """Validate, log, keep the best weights, and save.

        Args:
            examples_per_s: speed of learning.
        """
        progress, task, logger = self.progress, self.task, self.logger
        start = time.perf_counter()
        rate = self.optimizer.param_groups[0]["lr"]
        statistics = statistics_of(task, self.network, self.validation)
        measures = task.measure(statistics)
        score = measures[task.chosen_by]
        best = progress.best_score
        # Not a number: nothing could be measured, and any other score is better.
        is_best = best is None or score > best or (math.isnan(best) and not math.isnan(score))
        progress.epoch += 1
        progress.epochs_since_best = 0 if is_best else progress.epochs_since_best + 1
        if is_best:
            if self.save_best(score):
                progress.best_score = score
            for name, picture in task.pictures(self.network, self.validation, statistics).items():
                logger.record_picture(f"validation/{name}", picture, progress.examples)
        progress.seconds += time.perf_counter() - start
        logger.record("time/epoch", progress.epoch)
        logger.record("time/examples_per_s", examples_per_s)
        logger.record("time/time_elapsed", progress.seconds)
        logger.record("time/total_timesteps", progress.examples)
        logger.record("train/learning_rate", rate)
        logger.record("train/loss", progress.loss / progress.batch)
        for name, value in measures.items():
            logger.record(f"validation/{name}", value)
        if progress.best_score is not None:
            logger.record(f"validation/best_{task.chosen_by}", progress.best_score)
        with continuing_without_disk(logger.progress.say):
            logger.dump(progress.examples)
        progress.batch, progress.loss = 0, 0.0
        self.save()

    def save_best(self, score: float) -> bool:
        """Write the perception file, and return whether it could be written."""
        trained = Trained(
            task=self.config.task_name,
            epoch=self.progress.epoch,
            score=score,
            source=self.source,
        )
        with continuing_without_disk(self.logger.progress.say) as written:
            save_perception(
                self.folder.perception_file,
                self.network.state_dict(),
                specs=self.network.specs,
                config=self.config.perception,
                normalize_obs=self.config.normalize_obs,
                task=_json(as_named_dict(TASKS, self.config.task)),
                trained=trained,
            )
            written.append(True)
        return bool(written)

    def save(self) -> None:
        """Write a checkpoint."""
        self._saved_at = time.monotonic()
        tensors = {f"network/{n}": t for n, t in self.network.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer)
        tensors["generator"] = torch.get_rng_state()
        with continuing_without_disk(self.logger.progress.say):
            file = self.folder.checkpoint_file(self.progress.examples)
            about = {"progress": asdict(self.progress), "source": self.source}
            write_tensors(file, tensors, about)
            self.folder.keep_checkpoints(file)


def is_finished(config: AnySeeConfig, progress: SeeProgress) -> bool:
    """Return whether a training is complete, or has stopped improving."""
    stagnates = config.patience and progress.epochs_since_best >= config.patience
    return progress.epoch >= config.epochs or bool(stagnates)


def see(config: AnySeeConfig, folder: RunFolder, signals: Sequence[int]) -> None:
    """Start a supervised training, or resume it, and run it to its end or to a signal.

    Raises:
        FileError: If data are damaged, or the run in the folder cannot be resumed.
        PerceptionError: If images are too small for the encoder.
        TrainingError: If a package is missing, or the training diverges.
    """
    check_writable(folder.path)
    say = functools.partial(print_line, file=sys.stderr)
    torch.set_num_threads(config.num_threads or torch.get_num_threads())
    task = TASKS[config.task_name][1](config.task)
    try:
        task.collect(lambda: bool(signals))
    except StoppedError:
        print_line("interrupted while collecting; the same command begins again")
        return
    train, validation = task.load("train"), task.load("validation")
    torch.manual_seed(config.seed)
    device = choose_device(config.device)
    network = build_network(
        task.specs(train),
        config.perception,
        task.head,
        normalize_obs=config.normalize_obs,
        dropout=config.dropout,
        device=device,
        precision=choose_precision(config.precision, device),
    )
    if config.normalize_obs:
        network.perception.observe({n: train[n].to(device) for n in network.specs})
    optimizer = torch.optim.AdamW(
        network.parameters(),
        config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    with folder.locked(say):
        folder.remove_leftovers()
        source = task.source()
        progress = _resume(folder, config, network, optimizer, source, say)
        if is_finished(config, progress):
            print_line(
                f"{folder.path} is already trained for {progress.epoch:,} epochs; raise --epochs, "
                "or start over with --fresh"
            )
            return
        if progress.examples == 0:
            folder.clear()
        folder.write_config(config.as_dict(), network.perception.precision)
        with _logging(config, folder, task, train, progress) as logger:
            training = SupervisedTraining(
                config=config,
                folder=folder,
                task=task,
                network=network,
                optimizer=optimizer,
                train=train,
                validation=validation,
                source=source,
                progress=progress,
                logger=logger,
                signals=signals,
            )
            training.learn()
    _report(training)


@contextlib.contextmanager
def _logging(
    config: AnySeeConfig,
    folder: RunFolder,
    task: Task[Any],
    train: Examples,
    progress: SeeProgress,
) -> Iterator[RunLogger]:
    """Open the logger of a run folder; the x axis is examples."""
    shown = Shown(
        unit="examples",
        score=(f"validation {task.score}", f"validation/{task.score}"),
        speed=("examples/s", "time/examples_per_s"),
    )
    total = config.epochs * count(train)
    logger = RunLogger(folder.path, total=total, start=progress.examples, shown=shown)
    with contextlib.closing(logger):
        values = dotted(config.as_dict())
        logger.record_config(values, {f"validation/best_{task.chosen_by}": 0.0})
        yield logger


def _report(training: SupervisedTraining) -> None:
    """Print what came of a training, and what to do next."""
    progress, folder = training.progress, training.folder
    verb = "interrupted after" if training.signals else "trained for"
    print_line(
        f"{verb} {progress.epoch:,} epochs, {progress.examples:,} examples in "
        f"{progress.seconds:,.0f} s"
    )
    if progress.best_score is not None:
        print_line(f"best validation {training.task.chosen_by}: {progress.best_score:.4f}")
        print_line(f"score it on the test set:  python evaluate.py score {folder.path}")


def check_resumable(folder: RunFolder, config: AnySeeConfig) -> None:
    """Check that a configuration may resume the run in a folder.

    Raises:
        FileError: If the run is of another kind, or differs in a field that changes what is
            learned.
    """
    before, now = dotted(folder.read_record()["config"]), dotted(config.as_dict())
    if "task.name" not in before:
        raise FileError(
            f"{folder.path} holds the training of an agent; choose another --run-dir, or start "
            "over with --fresh"
        )
    free = set(dotted_fields(config, lambda metadata: metadata.get("resumable", False)))
    check_same(folder, before, now, free)


def _resume(
    folder: RunFolder,
    config: AnySeeConfig,
    network: Network,
    optimizer: torch.optim.Optimizer,
    source: str,
    say: Callable[[str], None],
) -> SeeProgress:
    """Restore a training from the last undamaged checkpoint, or return a new progress.

    Raises:
        FileError: If the folder holds a perception but no checkpoint, or checkpoints but no
            configuration, or only damaged ones; or if the data are others.
    """
    folder.check_complete()
    if config.fresh or not folder.checkpoints:
        if folder.perception_file.exists() and not config.fresh:
            raise FileError(
                f"{folder.path} holds a perception but no checkpoint to resume from; choose "
                "another --run-dir, or start over with --fresh"
            )
        return SeeProgress()
    progress = load_newest(folder, lambda file: _load(file, network, optimizer, source), say)
    say(f"resuming at {progress.examples:,} examples in {folder.path}")
    return progress


def _load(
    path: Path, network: Network, optimizer: torch.optim.Optimizer, source: str
) -> SeeProgress:
    """Restore a network and its optimiser from a checkpoint, and return the progress.

    Raises:
        DamagedError: If the file is not what was written.
        FileError: If it belongs to another configuration, or to other data.
    """
    content = TensorFile(path)
    if content.description.get("source", source) != source:
        raise FileError(
            f"{path} was trained with other data than those that are there now; restore them, or "
            "use --fresh to start over"
        )
    tensors = content.tensors()
    try:
        weights = under("network/", tensors)
        expect_kinds({n: kind_of(t) for n, t in weights.items()}, network.state_dict())
        state = optimizer_state(optimizer, under("optimizer/", tensors))
        network.load_state_dict(weights)
        optimizer.load_state_dict(state)
        torch.set_rng_state(tensors["generator"])
        return decode(SeeProgress, content.description["progress"])
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(
            f"{path} belongs to another configuration ({one_line(error)}); use --fresh to start "
            "over"
        ) from error


def _json(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with paths as text, absolute, since it is read in other folders."""

    def as_text(value: Any) -> Any:
        if isinstance(value, tuple):
            return [as_text(each) for each in value]
        return str(value.resolve()) if isinstance(value, Path) else value

    return {name: as_text(value) for name, value in values.items()}
