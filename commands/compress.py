"""`evaluate.py compress`: make a policy smaller and faster, and measure what that costs."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.commandline import UsageError, as_arguments
from commands.options import CONSOLE, RunPath, ScoringOptions, check_at_least_one, check_folder
from evaluation.printing import print_line
from storage.files import check_writable

if TYPE_CHECKING:
    from envs import EnvConfig
    from evaluation.report.compression import Variant
    from storage.policy_file import PolicyFile

_TEACHER = "teacher"
_OPTIONS = "options.json"  # What the variants were made with.
_MOST_BYTES = 2**24  # Of a file of figures.
_SMALL = 0.25  # Students with at most this share of the parameters are also quantised.


@dataclass(frozen=True, kw_only=True)
class CompressOptions(ScoringOptions):
    """Quantise and prune a policy, teach smaller ones, and compare return, size and speed.

    Everything is kept in a folder, and the same command resumes what was interrupted. The teacher
    and its variants are measured on one thread of the CPU.
    """

    run: RunPath
    """A run folder (its best policy is compressed), a policy file, or zoo/NAME."""
    greedy: bool = False
    """Take the most likely actions; by default, actions are sampled as in training."""
    students: tuple[float, ...] = (0.5, 0.25, 0.0625)
    """Students, as shares of the teacher's parameters that each may have."""
    keep: float = 0.5
    """Share of the channels and units of each layer that pruning keeps."""
    train_env_steps: int = 200_000
    """Env steps that a student, and the pruned policy, learns from the teacher."""
    calibration: Path | None = None
    """Run whose recorded episodes 8 bits are calibrated on. None: its own, or new ones."""
    out: Path | None = None
    """The folder to write to. None: compress in the run folder, or in runs/zoo/NAME."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_at_least_one(self, "train_env_steps")
        if self.device == "cuda":
            raise ValueError("variants are compared on the CPU: leave out --device")
        for share in (self.keep, *self.students):
            if not 0 < share < 1:
                raise ValueError(f"shares must be between 0 and 1, got {share}")
        if self.out is not None:
            check_folder(self.out)


@dataclass(frozen=True, kw_only=True)
class _Teacher:
    """What is compressed, and where.

    Attributes:
        options: the options.
        file: the policy.
        path: its file.
        config: the environment that it is scored in.
        out: the folder to write to.
    """

    options: CompressOptions
    file: PolicyFile
    path: Path
    config: EnvConfig
    out: Path


def run(options: CompressOptions) -> None:
    """Compress a policy in every way that it can be, and report the variants."""
    from deploy.errors import DeployError
    from evaluation.report.terminal import print_variants

    options.check_writable()
    teacher = _open(options)
    variants: list[Variant] = []
    for (network, runtime), make in _recipes(teacher).items():
        with CONSOLE.status(f"{network} ({runtime})"):
            try:
                path = make()
            except DeployError as error:
                print_line(f"no {network} ({runtime}): {error}")
                continue
            variants.append(_measured(teacher, network, runtime, path, variants))
        print_line(f"{variants[-1].name}: mean return {variants[-1].score.mean:,.2f}")
    _report(teacher, variants)
    print_variants(CONSOLE, variants)
    print_line(f"written to {teacher.out}: compress.md, compress.json, compress.png")


def _open(options: CompressOptions) -> _Teacher:
    """Load the policy, and prepare the folder for its variants.

    Raises:
        UsageError: If the folder holds variants of another policy, or that were made otherwise.
    """
    from evaluation.entries import locate, output_folder
    from evaluation.protocol import native
    from storage.files import read_kept, write_atomically, write_json
    from storage.run_folder import find_policy, policy_path

    file, folder = find_policy(locate(options.run), trust=options.trust)
    config = native(file, options.run, trust=options.trust)
    out = options.out or output_folder(options.run, folder) / "compress"
    check_writable(out)
    content = policy_path(locate(options.run)).read_bytes()
    path = out / f"{_TEACHER}.safetensors"
    if path.exists() and path.read_bytes() != content:
        raise UsageError(
            f"{out} holds variants of another policy; name another folder with --out, or remove it"
        )
    made = {
        "keep": options.keep,
        "train_env_steps": options.train_env_steps,
        "calibration": options.calibration and str(options.calibration.resolve()),
    }
    before = read_kept(out / _OPTIONS, _MOST_BYTES, {}) if path.exists() else {}
    for name, value in made.items():
        if before.get(name, value) != value:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{out} holds variants that were made with {flag} {before[name]}; use the same, or "
                "name another folder with --out"
            )
    write_atomically(path, content)
    write_json(out / _OPTIONS, made)
    return _Teacher(options=options, file=file, path=path, config=config, out=out)


Recipe = Callable[[], Path]
"""Makes a variant unless it has been made, and returns its file."""


def _recipes(teacher: _Teacher) -> dict[tuple[str, str], Recipe]:
    """Return how each variant is made, by network and runtime.

    What cannot be made is reported and left out.
    """
    from deploy.errors import DeployError
    from deploy.pruning import check_prunable
    from deploy.students import student_config

    options, recipes = teacher.options, {(_TEACHER, "PyTorch"): lambda: teacher.path}

    def add(name: str, folder: str, source: Recipe, *, int8: bool) -> None:
        recipes[name, "ONNX"] = lambda: _exported(teacher, source(), folder)
        if int8:
            recipes[name, "int8"] = lambda: _quantized(teacher, source(), folder)

    add(_TEACHER, _TEACHER, lambda: teacher.path, int8=True)
    try:
        check_prunable(teacher.file.policy)
        add("pruned", "pruned", lambda: _pruned(teacher), int8=True)
    except DeployError as error:
        print_line(f"not pruned: {error}")
    for share in sorted(options.students, reverse=True):
        try:
            config = student_config(teacher.file.policy, share)
        except DeployError as error:
            print_line(f"no student of {share:g}: {error}")
            continue
        folder = f"student-{share:g}"
        student = _student(teacher, folder, config)
        add(f"student {share:g}", folder, student, int8=share <= _SMALL)
    return recipes


def _student(teacher: _Teacher, folder: str, config: Any) -> Recipe:
    return lambda: _taught(teacher, teacher.out / folder, config)


def _exported(teacher: _Teacher, source: Path, name: str) -> Path:
    """Return the ONNX file of a policy."""
    from deploy.onnx import save_onnx
    from storage.policy_file import load_policy

    path = teacher.out / f"{name}.onnx"
    if not path.exists():
        file = load_policy(source, trust=teacher.options.trust)
        save_onnx(path, file, env=asdict(teacher.config))
    return path


def _quantized(teacher: _Teacher, source: Path, name: str) -> Path:
    """Return the ONNX file of a policy with 8-bit weights."""
    from deploy.calibration import observed, recorded
    from deploy.int8 import save_int8
    from evaluation.entries import locate
    from storage.policy_file import load_policy
    from storage.run_folder import RunFolder

    path = teacher.out / f"{name}-int8.onnx"
    if not path.exists():
        options = teacher.options
        named = locate(options.calibration or options.run)
        recordings = recorded(RunFolder(named).episodes) if named.is_dir() else []
        if options.calibration and not recordings:
            raise UsageError(f"--calibration {options.calibration} holds no recorded episodes")
        file = load_policy(source, trust=options.trust)
        batches = observed(file, teacher.config, recordings, trust=options.trust)
        save_int8(path, file, batches, env=asdict(teacher.config))
    return path


def _pruned(teacher: _Teacher) -> Path:
    """Return the pruned policy after its fine-tuning."""
    from deploy.pruning import prune
    from storage.policy_file import save_policy

    start = teacher.out / "pruned.safetensors"
    policy, _ = prune(teacher.file.policy, teacher.options.keep)
    if not start.exists():
        file = teacher.file
        save_policy(start, policy, env=file.env, about=file.about, imports=file.imports)
    return _taught(teacher, teacher.out / "pruned", policy.config, start=start)


def _taught(teacher: _Teacher, folder: Path, perception: Any, start: Path | None = None) -> Path:
    """Return the policy of a network that has learned from the teacher.

    Args:
        teacher: the teacher.
        folder: the run folder of its training.
        perception: the network's configuration.
        start: policy file whose weights the training starts from.

    Raises:
        UsageError: If the training fails.
    """
    from commands import suite
    from storage.run_folder import policy_path

    done = folder / "done"
    if not done.exists():
        arguments = _arguments(teacher, folder, perception, start)
        print_line(f"$ python train.py {shlex.join(arguments)}")
        if suite.train_alone(arguments):
            raise UsageError(f"the training in {folder} failed; see above")
        done.touch()
    return policy_path(folder)


def _arguments(teacher: _Teacher, folder: Path, perception: Any, start: Path | None) -> list[str]:
    """Return the arguments of `train.py` with which a network learns from the teacher alone."""
    from training.config import choices_of, default_config

    env, file = teacher.config, teacher.file
    names = perception.encoder_name, perception.memory_name
    default = default_config(
        env.env, "ppo", encoder=names[0], memory=names[1], objectives=("distill",)
    )
    same = {f.name: getattr(env, f.name) for f in fields(env) if f.name not in _NOT_FLAGS}
    config = replace(
        default,
        env=replace(default.env, **same),
        perception=perception,
        agent=replace(
            default.agent,
            loss_coef=0.0,
            normalize_obs=file.policy.normalize_obs,
            normalize_returns=False,
            reward_scale=1.0 / file.about.value_unit,
            gamma=file.about.gamma or default.agent.gamma,
            learning_rate=1e-3,
            anneal_learning_rate=True,
        ),
        teacher=teacher.path,
        init_from=start,
        total_env_steps=teacher.options.train_env_steps,
        run_dir=folder,
        record=False,
    )
    plain = default_config(env.env, "ppo")
    imports = ["--import", *file.imports] if file.imports else []
    chosen = as_arguments(choices_of(config), choices_of(plain), always=("encoder", "memory"))
    return [env.env, *chosen, *imports, *as_arguments(config, default)]


_NOT_FLAGS = ("env", "native_reward", "files")


def _measured(
    teacher: _Teacher, network: str, runtime: str, path: Path, before: Sequence[Variant]
) -> Variant:
    """Return what is known about a variant; it is measured unless that has been done.

    Args:
        teacher: the teacher.
        network: name of the variant's network.
        runtime: what it runs in.
        path: its file.
        before: the variants so far, the teacher first.
    """
    import numpy as np

    from evaluation.playing import score_episodes
    from evaluation.report.compression import Variant
    from evaluation.statistics import probability_of_improvement
    from storage.files import FileError, decode, read_kept, write_json

    options = teacher.options
    kept = teacher.out / f"{path.relative_to(teacher.out).as_posix().replace('/', '-')}.json"
    protocol = options.protocol.facts(teacher.config) | {"mode": options.modes[0]}
    with contextlib.suppress(FileError, LookupError):  # If it is damaged, it is measured again.
        return decode(Variant, read_kept(kept, _MOST_BYTES, {"protocol": protocol})["variant"])
    sizes = _sizes(teacher, path)
    episodes, seconds = _played(teacher, path)
    returns = [episode.episode_return for episode in episodes]
    theirs = before[0].returns if before else returns
    variant = Variant(
        network=network,
        runtime=runtime,
        **sizes,
        env_steps_per_s=sum(len(e.rewards) for e in episodes) / seconds,
        returns=returns,
        score=score_episodes(episodes),
        no_worse=probability_of_improvement([np.array(returns)], [np.array(theirs)]),
    )
    write_json(kept, {"protocol": protocol, "variant": asdict(variant)})
    return variant


def _sizes(teacher: _Teacher, path: Path) -> dict[str, Any]:
    """Return size and speed of a variant, fields of `Variant`."""
    from deploy.measure import BATCHES, multiply_adds, onnx_latency, torch_latency
    from deploy.students import num_parameters
    from storage.onnx_file import open_session
    from storage.policy_file import load_policy
    from storage.run_folder import policy_path

    if path.suffix == ".onnx":
        source = teacher.out / path.stem.removesuffix("-int8")
        source = source if source.is_dir() else teacher.path
        policy = load_policy(policy_path(source), trust=teacher.options.trust).policy
        session = open_session(path.read_bytes())
        latencies = {str(num): onnx_latency(policy, session, num) for num in BATCHES}
    else:
        policy = load_policy(path, trust=teacher.options.trust).policy
        latencies = {str(num): torch_latency(policy, num) for num in BATCHES}
    return {
        "bytes": path.stat().st_size,
        "parameters": num_parameters(policy),
        "multiply_adds": multiply_adds(policy),
        "latency_us": {num: (each.median_us, each.p99_us) for num, each in latencies.items()},
    }


def _played(teacher: _Teacher, path: Path) -> tuple[list[Any], float]:
    """Play the protocol's episodes with a variant; return them, and the seconds that they took."""
    from evaluation.compare import MODES, start_engines, timed
    from evaluation.protocol import check_fits, vector_env
    from storage.run_folder import find_player

    options = teacher.options
    protocol = replace(options.protocol, device="cpu")
    file, _ = find_player(path, trust=options.trust)
    with vector_env(teacher.config, protocol.num_envs, protocol.episodes) as envs:
        check_fits(file, envs, path)
        start_engines(envs, protocol)
        return timed(file, envs, protocol, greedy=MODES[options.modes[0]])


def _report(teacher: _Teacher, variants: Sequence[Variant]) -> None:
    """Write the table, the figures and the picture."""
    from evaluation.report.compression import markdown, picture
    from evaluation.report.layout import rendered
    from storage.files import write_atomically, write_json
    from storage.provenance import hardware

    options, config = teacher.options, teacher.config
    mode = options.modes[0]
    title = f"{options.run}: return, size and speed of compressed variants"
    sentences = [
        options.protocol.sentence(config) + f" Actions here: {mode}.",
        "Latency: from observations to the most likely actions, on one thread of the CPU; the "
        "time on a core, so that other programs do not count.",
        "No worse: the probability that an episode of the variant is better than one of the "
        "teacher, ties counted half, with its 95 % interval; the teacher's own is 0.5.",
        f"Students and the pruned policy learned from the teacher for {options.train_env_steps:,} "
        "env steps, on the states that they visited.",
    ]
    result: Mapping[str, Any] = {
        "env": config.env,
        "policy": asdict(teacher.file.about),
        "protocol": options.protocol.facts(config) | {"mode": mode},
        "hardware": hardware(),
        "variants": [asdict(variant) for variant in variants],
    }
    write_json(teacher.out / "compress.json", result)
    if options.json:
        write_json(options.json, result)
    write_atomically(teacher.out / "compress.md", markdown(variants, title, sentences).encode())
    image = rendered(picture(variants, title), "png")
    write_atomically(teacher.out / "compress.png", image)
