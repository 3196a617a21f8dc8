"""The configuration of a supervised training, nested as its parts are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from envs import SCENARIOS
from perception import ENCODERS, MEMORIES, EncoderConfig, MemoryConfig, PerceptionConfig
from perception.lookup import as_named_dict, check_name, name_of
from training.config import default_config, resumable, with_values
from training.errors import TrainingError
from training.supervised import TASKS
from training.supervised.collected import CollectedConfig
from training.supervised.schedule import Schedule, decay
from training.supervised.task import TaskConfig

TaskT = TypeVar("TaskT", bound=TaskConfig)
EncoderT = TypeVar("EncoderT", bound=EncoderConfig)
MemoryT = TypeVar("MemoryT", bound=MemoryConfig)

PREFIX = "see:"
"""What a task's name begins with where an environment could be named."""


@dataclass(frozen=True, kw_only=True)
class SeeConfig(Generic[TaskT, EncoderT, MemoryT]):
    """Everything that a supervised training depends on.

    Raises:
        ValueError: If a value is out of range.
    """

    task: Annotated[TaskT, tyro.conf.OmitArgPrefixes]
    perception: Annotated[PerceptionConfig[EncoderT, MemoryT], tyro.conf.OmitArgPrefixes] = field(
        default_factory=PerceptionConfig
    )
    epochs: int = resumable(20)
    """Length of the training, in passes over its examples."""
    batch_size: int = 64
    """Examples in a minibatch."""
    learning_rate: float = 1e-3
    """Step size of AdamW at the beginning."""
    schedule: Schedule = "cosine"
    """How the learning rate decays: to zero along a line or a cosine, in steps, or not at all."""
    decay_steps: int = 2
    """With schedule step: the number of steps, which divide the training evenly."""
    decay_factor: float = 0.1
    """With schedule step: factor on the learning rate at each step."""
    weight_decay: float = 0.01
    """Weight decay of AdamW (Loshchilov and Hutter 2019)."""
    dropout: float = 0.0
    """Share of the features that are dropped in training."""
    augment: bool = True
    """Change images at random in training, as the task does it."""
    normalize_obs: bool = False
    """Normalise images by mean and standard deviation of those of training."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    patience: int | None = resumable(None)
    """Stop after this many epochs without improvement on the validation set. None: never."""
    seed: int = 0
    """Seed of everything random in the training."""
    device: Literal["auto", "cpu", "cuda"] = resumable("auto")
    """Device of the network. auto: the GPU if there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = resumable("auto")
    """Precision of image encoders and memory. auto: bfloat16 (bf16) if the hardware supports it."""
    num_threads: int | None = resumable(None)
    """Threads on the CPU. None: one for each core."""
    run_dir: Path | None = resumable(None)
    """The run folder. None: runs/see_TASK/ENCODER-seedS."""
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = resumable(False)
    """Start over, even if the run folder exists."""
    checkpoint_every_s: float = resumable(60.0)
    """Seconds between checkpoints within an epoch; one is written at the end of each epoch."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("epochs", "batch_size", "decay_steps", "patience", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if not 0 < self.decay_factor <= 1:
            raise ValueError(f"decay_factor must be above 0 and at most 1, got {self.decay_factor}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be between 0 and 2^31 - 1, got {self.seed}")

    @property
    def task_name(self) -> str:
        """The task's name in `TASKS`."""
        return name_of(TASKS, self.task)

    @property
    def default_run_dir(self) -> Path:
        """The run folder if none is named."""
        name = f"{self.perception.encoder_name}-seed{self.seed}"
        return Path("runs") / f"see_{self.task_name}" / name

    def learning_rate_at(self, epochs: float) -> float:
        """Return the learning rate after a number of epochs, which may be a fraction."""
        share = decay(
            self.schedule,
            min(1.0, epochs / self.epochs),
            factor=self.decay_factor,
            steps=self.decay_steps,
        )
        return self.learning_rate * share

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as nested dictionaries, with names from registries."""
        return {
            **asdict(self),
            "task": as_named_dict(TASKS, self.task),
            "perception": self.perception.as_dict(),
        }


AnySeeConfig = SeeConfig[Any, Any, Any]


def default_see_config(
    task: str,
    encoder: str | None = None,
    memory: str | None = None,
    like: str | None = None,
) -> AnySeeConfig:
    """Return the configuration that a task's presets make.

    Args:
        task: the task's name.
        encoder: name of the image encoder. None: the preset's.
        memory: name of the memory. None: the preset's.
        like: the scenario whose agents observe and encode in the same way. None: the preset's way.

    Raises:
        TrainingError: If the task does not learn from Doom, and a scenario is named.
        UnknownNameError: If a registry has no such entry.
    """
    check_name(TASKS, task, "task to see")
    config_type, kind = TASKS[task]
    if like is not None:
        return _like(default_see_config(task, encoder, memory), like, encoder)
    encoder = encoder or kind.presets.get("encoder", "nature")
    memory = memory or kind.presets.get("memory", "none")
    check_name(ENCODERS, encoder, "encoder")
    check_name(MEMORIES, memory, "memory")
    default: AnySeeConfig = SeeConfig(
        task=config_type(),
        perception=PerceptionConfig(encoder=ENCODERS[encoder][0](), memory=MEMORIES[memory][0]()),
    )
    return with_values(default, kind.presets)


def _like(config: AnySeeConfig, scenario: str, encoder: str | None) -> AnySeeConfig:
    """Return a configuration with the observation and the image encoder of a scenario's agents."""
    check_name(SCENARIOS, scenario, "scenario")
    if not isinstance(config.task, CollectedConfig):
        collected = ", ".join(
            f"{PREFIX}{name}"
            for name, (kind, _) in TASKS.items()
            if issubclass(kind, CollectedConfig)
        )
        raise TrainingError(f"--like is for tasks that learn from Doom: {collected}")
    agent = default_config(scenario, encoder=encoder)
    seen = {name: getattr(agent.env, name) for name in config.task.seen}
    perception = replace(
        config.perception,
        encoder=agent.perception.encoder,
        layer_norm=agent.perception.layer_norm,
    )
    return replace(config, task=replace(config.task, **seen), perception=perception)
