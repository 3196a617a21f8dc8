"""The configuration of a training run, nested as its parts are.

A field can be addressed by its dotted name, as in `agent.learning_rate`: presets and stored
configurations do so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from agents import AGENTS, OBJECTIVES, SB3_AGENTS, AgentConfig, ObjectiveConfig
from agents.gradients import GradientMode
from agents.inference import Inference
from envs import EnvConfig, folder_name
from envs.doom.maps import AnyMap, NoMap, options_type
from perception import ENCODERS, MEMORIES, PerceptionConfig
from perception.encoders import EncoderConfig
from perception.lookup import as_named_dict, check_name, name_of
from perception.memory import MemoryConfig
from training.errors import TrainingError
from training.presets import preset
from training.self_play import SelfPlayConfig
from training.tracking import TrackerName

AgentT = TypeVar("AgentT", bound=AgentConfig)
EncoderT = TypeVar("EncoderT", bound=EncoderConfig)
MemoryT = TypeVar("MemoryT", bound=MemoryConfig)
ObjectivesT = TypeVar("ObjectivesT")
MapT = TypeVar("MapT", bound=AnyMap)
ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, kw_only=True)
class EnvOptions(EnvConfig, Generic[MapT]):
    """How the environment is observed and acted upon."""

    env: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(metavar="ENV", help_behavior_hint="(required)"),
    ] = "basic"
    """A scenario, a Gymnasium id, a Freedoom map, maps:KIND, players:KIND or a .cfg."""
    map: MapT = field(
        default_factory=NoMap  # type: ignore[assignment] # the default of MapT
    )
    """Generated maps only: what they are like."""
    # Set for evaluations, by `whole_games`.
    native_reward: Annotated[bool, tyro.conf.Suppress] = field(
        default=False, metadata={"has_flag": False}
    )
    # Noted when a training starts, and compared when it resumes.
    files: Annotated[tuple[str, ...], tyro.conf.Suppress] = field(
        default=(), metadata={"resumable": True, "compares_trials": False, "has_flag": False}
    )


@dataclass(frozen=True, kw_only=True)
class NoObjectives:
    """No objectives beside the agent's own loss."""


def resumable(default: Any, *, compares_trials: bool = False) -> Any:
    """Declare a field that may differ when a run is resumed.

    Such a field does not change what is learned.

    Args:
        default: the field's default.
        compares_trials: whether it must nevertheless be the same in all trials of a search, because
            they are compared by it.
    """
    return field(default=default, metadata={"resumable": True, "compares_trials": compares_trials})


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Generic[AgentT, EncoderT, MemoryT, ObjectivesT, MapT]):
    """Everything that a training run depends on.

    Raises:
        ValueError: If a value is out of range.
    """

    env: Annotated[EnvOptions[MapT], tyro.conf.OmitArgPrefixes] = field(default_factory=EnvOptions)
    perception: Annotated[PerceptionConfig[EncoderT, MemoryT], tyro.conf.OmitArgPrefixes] = field(
        default_factory=PerceptionConfig
    )
    agent: Annotated[AgentT, tyro.conf.OmitArgPrefixes]
    objectives: Annotated[ObjectivesT, tyro.conf.arg(name="")] = field(
        default_factory=NoObjectives  # type: ignore[assignment] # the default of ObjectivesT
    )
    import_: Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="FILE.py ...")] = (
        resumable(())
    )
    """Python files or modules that add agents, encoders, memories or objectives of your own."""
    self_play: Annotated[SelfPlayConfig, tyro.conf.OmitArgPrefixes] = field(
        default_factory=SelfPlayConfig
    )
    init_from: Path | None = None
    """Run, policy file or zoo/NAME whose weights a new training starts from. None: new weights."""
    perception_from: Path | None = None
    """Run of see:TASK or of an agent whose image encoder a new training starts with."""
    teacher: Path | None = None
    """Run, policy file or zoo/NAME that the objective distill learns from."""
    # Set by `training.ranks.with_ranks`.
    num_ranks: Annotated[int, tyro.conf.Suppress] = field(default=1, metadata={"has_flag": False})
    sync_every: int | None = None
    """Under torchrun: ranks learn separately and average their weights after this many updates.
    None: they average the gradients of every minibatch, and learn like one process."""
    # Annealing stretches over more env steps, too.
    total_env_steps: int = resumable(1_000_000, compares_trials=True)
    """Length of the training, in env steps over all environments; whole rollouts are collected."""
    num_envs: int = 8
    """Number of environments that run in parallel, N; under torchrun, those of each rank."""
    num_workers: int | None = resumable(None)
    """Number of worker processes that hold the environments. None: one for each CPU core."""
    num_groups: int = 1
    """Groups of environments that alternate: one steps while the policy acts for another."""
    overlap: bool = False
    """Collect the next rollout during an update, with a policy that is one update old."""
    seed: int = 0
    """Seed of everything random in the training."""
    device: Literal["auto", "cpu", "cuda"] = resumable("auto")
    """Device of the policy. auto: the GPU if there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = resumable("auto")
    """Precision of image encoders and memory. auto: bfloat16 (bf16) if the hardware supports it."""
    inference: Inference = resumable("auto")
    """How the policy runs while it collects. auto: as a CUDA graph on a GPU, eager on a CPU."""
    gradients: GradientMode = resumable("auto")
    """How gradients are computed. auto: as a CUDA graph on a GPU, without objectives, overlap and
    other ranks; eager elsewhere."""
    num_threads: int | None = resumable(None)
    """Threads of an update on the CPU. None: one for each core."""
    autotune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = resumable(False)
    """First measure, in less than a minute, which settings are fastest on this machine."""
    run_dir: Path | None = resumable(None)
    """The run folder. None: runs/ENV/AGENT-seedS."""
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = resumable(False)
    """Start over, even if the run folder exists."""
    eval_every: int | None = resumable(None, compares_trials=True)
    """Env steps between evaluations. None: a tenth of the training."""
    eval_episodes: int = resumable(20, compares_trials=True)
    """Episodes of an evaluation."""
    eval_envs: Literal["own", "shared", "none"] = resumable("own")
    """Evaluate in environments of its own, in the training's (episodes continue), or never."""
    record: bool = resumable(True)
    """Record the episodes of evaluations and some of training, for replays."""
    track: TrackerName | None = resumable(None)
    """Also log to an experiment tracker: offline, into the run folder."""
    patience: int | None = resumable(None, compares_trials=True)
    """Stop after this many evaluations without improvement. None: never."""
    checkpoint_every_s: float = resumable(60.0)
    """Seconds between checkpoints."""
    hang_after_s: float = resumable(30.0)
    """Seconds after which an env step counts as hung; the environment is then restarted."""
    max_restarts: int = resumable(100)
    """The training stops if more environments than this are restarted within a minute."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in (
            "total_env_steps",
            "sync_every",
            "num_envs",
            "num_workers",
            "num_groups",
            "num_threads",
            "eval_every",
            "eval_episodes",
            "patience",
            "max_restarts",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.num_envs % self.num_groups:
            raise ValueError(
                f"num_envs ({self.num_envs}) must be a multiple of num_groups ({self.num_groups})"
            )
        if self.autotune and self.teacher is not None:
            raise ValueError("autotune measures without a teacher: leave out one of the two")
        if self.agent_name in SB3_AGENTS:
            self._check_what_sb3_agents_lack()
        # With both, updates on large rollouts hung: benchmarks/results/gpu.md.
        if self.overlap and self.gradients == "cuda-graph":
            raise ValueError(
                "gradients cuda-graph does not work with overlap: leave out one of them"
            )
        if self.eval_envs == "none" and self.patience is not None:
            raise ValueError("patience counts evaluations, and eval_envs none makes none")
        if self.eval_envs == "shared":
            self._check_shared_environments()
        if self.init_from and self.perception_from:
            raise ValueError("init_from copies the perception too: leave out perception_from")
        if not self.hang_after_s > 0:
            raise ValueError(f"hang_after_s must be greater than 0, got {self.hang_after_s}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be between 0 and 2^31 - 1, got {self.seed}")

    def _check_what_sb3_agents_lack(self) -> None:
        """Check that agents of Stable-Baselines3 collect, act and learn as it does."""
        if self.overlap or self.autotune:
            raise ValueError(
                f"{self.agent_name} has its own collector: leave out --overlap and --autotune"
            )
        for flag in ("inference", "gradients"):
            value = getattr(self, flag)
            if value not in ("auto", "eager"):
                raise ValueError(f"{flag} {value} is not for {self.agent_name}; use eager")

    def _check_shared_environments(self) -> None:
        """Check that evaluations can be played in the training's environments."""
        opponent = self.env.whole_games().opponent
        for remedy, is_needed in (
            ("add --num-groups 1", self.num_groups > 1),
            ("leave out --overlap", self.overlap),
            ("leave out torchrun", self.num_ranks > 1),
            ("add --no-terminal-on-life-loss", self.env.terminal_on_life_loss),
            ("leave out --wrappers", bool(self.env.wrappers)),
            ("leave out --shaping", bool(self.env.shaping)),
            (f"add --opponent {opponent}", self.env.opponent not in ("self", opponent)),
            ("choose an agent of this project", self.agent_name in SB3_AGENTS),
        ):
            if is_needed:
                raise ValueError(f"with eval_envs shared, {remedy}")

    @property
    def agent_name(self) -> str:
        """The agent's name in `AGENTS`."""
        return name_of(AGENTS, self.agent)

    @property
    def objective_configs(self) -> dict[str, ObjectiveConfig]:
        """The configurations of the objectives by name."""
        return {f.name: getattr(self.objectives, f.name) for f in fields(self.objectives)}  # type: ignore[arg-type] # a dataclass made by `objectives_of`

    @property
    def evaluation_interval(self) -> int:
        """Env steps between evaluations."""
        return self.eval_every or max(1, self.total_env_steps // 10)

    @property
    def env_steps_per_update(self) -> int:
        """Env steps in a rollout of all environments, those of all ranks."""
        return self.num_ranks * self.num_envs * self.agent.rollout_length

    @property
    def default_run_dir(self) -> Path:
        """The run folder if none is named."""
        return Path("runs") / folder_name(self.env.env) / f"{self.agent_name}-seed{self.seed}"

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as nested dictionaries, with names from registries."""
        return {
            **asdict(self),
            "perception": self.perception.as_dict(),
            "agent": as_named_dict(AGENTS, self.agent),
        }


AnyTrainConfig = TrainConfig[Any, Any, Any, Any, Any]


def _choices(registry: Mapping[str, Any]) -> str:
    return ", ".join(registry)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Which entries of the registries a training run is made of."""

    agent: Annotated[str, tyro.conf.arg(help=f"The agent: {_choices(AGENTS)}.")] = "ppo"
    encoder: Annotated[str, tyro.conf.arg(help=f"Encoder of images: {_choices(ENCODERS)}.")] = (
        "nature"
    )
    memory: Annotated[
        str, tyro.conf.arg(help=f"Memory between env steps: {_choices(MEMORIES)}.")
    ] = "none"
    objectives: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help=f"Losses beside the agent's own, of: {_choices(OBJECTIVES)}.",
            help_behavior_hint="(default: none)",
        ),
    ] = ()


def choices_of(config: AnyTrainConfig) -> Choices:
    """Return the choices that a configuration is made of."""
    return Choices(
        agent=config.agent_name,
        encoder=config.perception.encoder_name,
        memory=config.perception.memory_name,
        objectives=tuple(config.objective_configs),
    )


def part_types(
    env: str, agent: str, encoder: str, memory: str, objectives: tuple[str, ...]
) -> tuple[type[Any], ...]:
    """Return the types of a configuration's parts, the parameters of `TrainConfig`.

    Args:
        env: the environment's name, which decides the options of generated maps.
        agent: the agent's name.
        encoder: name of the image encoder.
        memory: name of the memory.
        objectives: names of objectives.

    Raises:
        UnknownNameError: If a registry has no entry of a name.
        TrainingError: If an objective is named twice.
    """
    check_name(AGENTS, agent, "agent")
    check_name(ENCODERS, encoder, "encoder")
    check_name(MEMORIES, memory, "memory")
    return (
        AGENTS[agent][0],
        ENCODERS[encoder][0],
        MEMORIES[memory][0],
        objectives_type(objectives),
        options_type(env),
    )


@functools.cache
def objectives_type(names: tuple[str, ...]) -> type[Any]:
    """Return a dataclass with one field for each objective, its configuration.

    For the same names, it is the same dataclass.

    Raises:
        UnknownNameError: If there is no such objective.
        TrainingError: If one is named twice.
    """
    for name in names:
        check_name(OBJECTIVES, name, "objective")
        if names.count(name) > 1:
            raise TrainingError(f"--objectives names {name} twice; name it once")
    if not names:
        return NoObjectives
    parts = [(n, OBJECTIVES[n][0], field(default_factory=OBJECTIVES[n][0])) for n in names]
    return make_dataclass("Objectives", parts, frozen=True, kw_only=True)


def default_config(
    env: str,
    agent: str = "ppo",
    *,
    encoder: str | None = None,
    memory: str | None = None,
    objectives: tuple[str, ...] = (),
) -> AnyTrainConfig:
    """Return the configuration that the presets of an environment, agent and objectives make.

    Args:
        env: the environment's canonical name.
        agent: the agent's name.
        encoder: name of the image encoder. None: the preset's.
        memory: name of the memory. None: the preset's.
        objectives: names of objectives.

    Raises:
        UnknownNameError: If a registry has no such entry.
        TrainingError: If an objective is named twice.
    """
    check_name(AGENTS, agent, "agent")
    values = preset(env, agent, objectives, memory)
    encoder = encoder or values.get("encoder", "nature")
    memory = memory or values.get("memory", "none")
    parts = part_types(env, agent, encoder, memory, objectives)
    agent_type, encoder_type, memory_type, objectives_type_, _ = parts
    default: AnyTrainConfig = TrainConfig(
        env=EnvOptions(env=env),
        perception=PerceptionConfig(encoder=encoder_type(), memory=memory_type()),
        agent=agent_type(),
        objectives=objectives_type_(),
    )
    return with_values(default, values)


def with_values(config: ConfigT, values: Mapping[str, Any]) -> ConfigT:
    """Replace fields of nested dataclasses.

    Args:
        config: a dataclass.
        values: new values by dotted name. Names that the dataclass lacks are ignored, because one
            preset serves all encoders and agents.
    """
    changes: dict[str, Any] = {}
    for f in fields(config):  # type: ignore[arg-type] # any dataclass
        current = getattr(config, f.name)
        if is_dataclass(current):
            inside = {
                n.partition(".")[2]: v for n, v in values.items() if n.startswith(f"{f.name}.")
            }
            changes[f.name] = with_values(current, inside)
        elif f.name in values:
            changes[f.name] = values[f.name]
    return replace(config, **changes)  # type: ignore[type-var] # any dataclass


def dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dotted names; tuples and paths as JSON has them."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= dotted(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list_of(value)
    return flat


def list_of(value: Any) -> Any:
    """Return tuples as lists and paths as text, as JSON has them, and anything else unchanged."""
    if isinstance(value, tuple):
        return [list_of(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def dotted_fields(config: Any, where: Callable[[Mapping[Any, Any]], bool]) -> Iterator[str]:
    """Yield the dotted names of the fields whose metadata fulfils a condition."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from (f"{f.name}.{name}" for name in dotted_fields(value, where))
        elif where(f.metadata):
            yield f.name
