"""The card of a policy: its score and how it was trained, as text and as metadata for the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.extras import import_extra
from deploy.hub import LARGEST
from envs import EnvConfig
from evaluation.protocol import Protocol
from evaluation.report.markdown import markdown_table, plain
from evaluation.report.tables import number, reference, score_cells
from evaluation.statistics import Score
from storage.files import FileError, decode, read_json
from storage.policy_file import About, PolicyFile
from storage.run_folder import EVALUATION

_COLUMNS = ("player", "mean", "95 % interval", "IQM", "median", "std", "env steps per episode")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `score`.

    Attributes:
        protocol: which episodes were played.
        scores: the score of each player by name, the policy's first.
    """

    protocol: Protocol
    scores: dict[str, Score]


def read_evaluation(path: Path, file: PolicyFile, config: EnvConfig) -> Evaluation | None:
    """Return the result that `score` wrote, or None if there is none of this policy and task.

    Args:
        path: the file; it need not exist.
        file: the policy.
        config: the environment that the policy is scored in.

    Raises:
        FileError: If the file was not written by `score`.
    """
    if not path.is_file():
        return None
    content = read_json(path, LARGEST[EVALUATION])
    try:
        facts = dict(content["protocol"])
        protocol = Protocol(
            episodes=facts["episodes"], seed=facts["seeds"][0], num_envs=facts["num_envs"]
        )
        is_same = (
            content["env"] == config.env
            and content["policy"] == asdict(file.about)
            and facts == protocol.facts(config)
        )
        scores = {name: decode(Score, score) for name, score in content["scores"].items()}
        return Evaluation(protocol=protocol, scores=scores) if is_same and scores else None
    except (FileError, LookupError, TypeError, AttributeError) as error:
        raise FileError(
            f"{path} was not written by `evaluate.py score`; remove it, and it will be made again"
        ) from error


def origin(record: Mapping[str, Any], about: About) -> str:
    """Return a phrase that says with what a policy was trained, and for how long.

    Args:
        record: the content of config.json.
        about: how the policy was trained.

    Raises:
        FileError: If the record lacks these facts.
    """
    try:
        git, hardware = record["git"] or "unknown", record["hardware"]
        where = f"{hardware['cpu']}, {hardware['cores']} cores, GPU: {hardware['gpu'] or 'none'}"
        if "precision" in record:  # Older records lack it.
            where += f", in {record['precision']}"
    except (LookupError, TypeError) as error:
        raise FileError(
            "config.json does not say with which commit and hardware the policy was trained; use "
            "the one that train.py wrote"
        ) from error
    return plain(
        f"at commit {git}, on {where}; the policy was saved after {about.env_steps:,} env steps "
        f"and {about.seconds / 60:,.1f} minutes"
    )


def training_command(record: Mapping[str, Any]) -> str:
    """Return the command line of a training run, as typed in a checkout of the repository."""
    command = " ".join(str(record.get("command")).split())
    return re.sub(r"^.*?(train\.py|doomgrad-train)", "python train.py", command)


def command_anywhere(record: Mapping[str, Any]) -> str:
    """Return the command line of a training run without its run folder, for others to repeat."""
    return re.sub(r" --run-dir(=| )\S+", "", training_command(record))


def card(
    *,
    repository: str,
    folder: str,
    config: EnvConfig,
    about: About,
    record: Mapping[str, Any],
    evaluation: Evaluation,
    trust: str = "",
) -> str:
    """Return the README.md of a repository.

    Args:
        repository: OWNER/NAME.
        folder: the default folder to pull into.
        config: the environment that the policy is scored in.
        about: how the policy was trained.
        record: the content of the run's config.json.
        evaluation: the scores of the policy and of untrained baselines.
        trust: the flag to add to commands if the environment needs it, with a leading space.
    """
    protocol, scores = evaluation.protocol, evaluation.scores
    known = reference(config.env)
    table = [
        (name, *score_cells(score), f"{score.mean_length:,.0f}") for name, score in scores.items()
    ]
    if known:
        table.append(("reference", number(known.mean), *[""] * (len(_COLUMNS) - 2)))
    commands = [f"pull {repository}{trust}", f"watch {folder}{trust}", f"score {folder}{trust}"]
    return "\n".join(
        [
            _front_matter(config, about, next(iter(scores.values()))),
            f"# {plain(config.env)}, trained with {plain(about.agent)}\n",
            *markdown_table(_COLUMNS, table, text=(0,)),
            f"\n{plain(protocol.sentence(config))} Intervals (percentile bootstrap over "
            "episodes) estimate what this policy would score on other episodes, not what another "
            "training would score.\n",
            *([f"Reference: {plain(known.source)}.\n"] if known else []),
            f"Trained {origin(record, about)}. Everything else is in config.json. The command:\n",
            f"    {training_command(record)}\n",
            "To pull, watch and score it, in a checkout of doomgrad with the extra `hub` "
            '(`pip install -e ".[hub]"`):\n',
            *(f"    python evaluate.py {command}" for command in commands),
            "",
        ]
    )


def _front_matter(config: EnvConfig, about: About, score: Score) -> str:
    """Return the metadata of the card, in the form that the hub reads."""
    hub = import_extra("huggingface_hub", "hub")
    task = "reinforcement-learning"
    result = hub.EvalResult(
        task_type=task,
        task_name=task,
        dataset_type=config.env,
        dataset_name=config.env,
        metric_type="mean_reward",
        metric_name="mean_reward",
        metric_value=f"{score.mean:.2f} +/- {score.std:.2f}",
    )
    data = hub.ModelCardData(
        library_name="doomgrad",
        pipeline_tag=task,
        tags=[task, "deep-reinforcement-learning", "doomgrad", config.env],
        model_name=about.agent or "unknown",
        eval_results=[result],
    )
    return f"---\n{data.to_yaml()}\n---\n"
