"""`evaluate.py push`: share a run on the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from commands import replay, score
from commands.commandline import UsageError
from commands.options import CONSOLE, ReadingOptions, RepositoryName, RunPath
from evaluation.printing import print_line


@dataclass(frozen=True, kw_only=True)
class PushOptions(ReadingOptions):
    """Share a run on the Hugging Face hub: its policy, configuration, score, video and a card.

    If the score or the video does not exist yet, it is made first, as by score or replay.
    """

    run: RunPath
    """A run folder."""
    repository: RepositoryName
    """The repository on the hub; it is created if it does not exist."""
    private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Create a private repository, which only its owner can see."""


def run(options: PushOptions) -> None:
    """Push a run to the hub, with its score, a video and a card."""
    from deploy.card import card, read_evaluation
    from deploy.hub import CARD, Repository
    from envs.doom.cfg import split_file
    from envs.registry import needs_trust
    from evaluation.entries import is_run, locate
    from evaluation.protocol import named_env, native
    from storage.run_folder import CONFIG, EVALUATION, POLICY, VIDEO, find_policy

    repository = Repository(options.repository)
    repository.check_token()
    file, folder = find_policy(locate(options.run), trust=options.trust)
    if not is_run(options.run, folder):
        raise UsageError(f"{options.run} is not a run folder; push one that train.py wrote")
    if file.imports:
        raise UsageError(
            f"{options.run} needs {' '.join(file.imports)}, which others do not have; only "
            "policies that were trained without --import can be pushed"
        )
    named = named_env(file.env, options.run).env
    if split_file(named) is not None:
        raise UsageError(
            f"{named} is a file that others do not have; only policies of scenarios and "
            "Gymnasium environments can be pushed"
        )
    config = native(file, options.run, trust=options.trust)
    record = folder.read_record()
    scored, video = folder.evaluation_file, folder.path / VIDEO
    evaluation = read_evaluation(scored, file, config)
    if evaluation is None:
        score.run(score.ScoreOptions(run=options.run, trust=options.trust))
        evaluation = read_evaluation(scored, file, config)
        assert evaluation is not None
    policy = folder.chosen_policy_file
    assert policy is not None
    # An older video shows an older policy.
    if not video.is_file() or video.stat().st_mtime < policy.stat().st_mtime:
        replay.run(replay.ReplayOptions(run=options.run, trust=options.trust))
    readme = card(
        repository=options.repository,
        folder=str(repository.folder),
        config=config,
        about=file.about,
        record=record,
        evaluation=evaluation,
        trust=" --trust" if needs_trust(config) else "",
    )
    files = {POLICY: policy, CONFIG: folder.config_file, EVALUATION: scored, VIDEO: video}
    with CONSOLE.status(f"pushing to {options.repository}"):
        url = repository.push({**files, CARD: readme.encode()}, private=options.private)
    print_line(f"pushed to {url}; to fetch it: python evaluate.py pull {options.repository}")
