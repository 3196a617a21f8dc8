"""The card of a policy: its score and how it came about, in words and as the hub reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.checkpoint import About, FileError, PolicyFile, decode
from agents.commandline import import_extra
from agents.run import read_json
from envs import EnvConfig
from evaluation import report
from evaluation.hub import EVALUATION, LARGEST
from evaluation.protocol import Protocol
from evaluation.statistics import Score

_COLUMNS = ("player", "mean", "95 % interval", "IQM", "median", "std", "env steps an episode")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `score` found.

    Attributes:
        protocol: which episodes were played.
        scores: by player; the policy's first.
    """

    protocol: Protocol
    scores: dict[str, Score]


def read_evaluation(path: Path, file: PolicyFile, config: EnvConfig) -> Evaluation | None:
    """Read what `score` wrote; None if it did not, or about another policy or another task.

    Raises:
        FileError: If something else wrote it.
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
        raise FileError(f"{path} is not what `score` wrote; remove it") from error


def origin(record: Mapping[str, Any], about: About) -> str:
    """Say with what a policy was trained, and how long.

    Args:
        record: what config.json holds.
        about: the policy's own description.

    Raises:
        FileError: If config.json lacks it.
    """
    try:
        git, hardware = record["git"] or "unknown", record["hardware"]
        where = f"{hardware['cpu']}, {hardware['cores']} cores, GPU: {hardware['gpu'] or 'none'}"
        if "precision" in record:  # Older records lack it.
            where += f", in {record['precision']}"
    except (LookupError, TypeError) as error:
        raise FileError("config.json does not tell how it was trained") from error
    return report.plain(
        f"at commit {git}, on {where}; the policy was saved after {about.env_steps:,} env steps "
        f"and {about.seconds / 60:,.1f} minutes"
    )


def training_command(record: Mapping[str, Any]) -> str:
    """Give the command line of a training, as it is typed in a checkout."""
    command = " ".join(str(record.get("command")).split())
    return re.sub(r"^.*?(train\.py|doomgrad-train)", "python train.py", command)


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
    """Write a repository's README.md.

    Args:
        repository: OWNER/NAME.
        folder: where it is pulled to.
        config: the policy's world.
        about: how it was trained.
        record: what the run's config.json holds.
        evaluation: its score, and those of players that learned nothing.
        trust: the flag that its world takes, if it does.
    """
    protocol, scores = evaluation.protocol, evaluation.scores
    known = report.reference(config.env)
    table = [
        (name, *report.score_cells(score), f"{score.mean_length:,.0f}")
        for name, score in scores.items()
    ]
    if known:
        table.append(("reference", report.number(known.mean), *[""] * (len(_COLUMNS) - 2)))
    commands = [f"pull {repository}{trust}", f"watch {folder}{trust}", f"score {folder}{trust}"]
    return "\n".join(
        [
            _front_matter(config, about, next(iter(scores.values()))),
            f"# {report.plain(config.env)}, learned by {report.plain(about.agent)}\n",
            *report.markdown_table(_COLUMNS, table, text=(0,)),
            f"\n{report.plain(protocol.sentence(config))} Intervals: percentile bootstrap over "
            "episodes, which tells what this policy would score on other ones, not what another "
            "training would.\n",
            *([f"Reference: {report.plain(known.source)}.\n"] if known else []),
            f"Trained {origin(record, about)}. Everything else is in config.json. The command:\n",
            f"    {training_command(record)}\n",
            "To get, watch and score it, in a checkout of doomgrad with its extra `hub` "
            '(`pip install -e ".[hub]"`):\n',
            *(f"    python evaluate.py {command}" for command in commands),
            "",
        ]
    )


def _front_matter(config: EnvConfig, about: About, score: Score) -> str:
    """Say by the hub's conventions what the policy is and scores."""
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
