"""`evaluate.py score`: play episodes with fixed seeds and report their native returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from commands.options import CONSOLE, RunPath, ScoringOptions


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ScoringOptions):
    """Play episodes with fixed seeds and report their native returns.

    In a run folder, the result is saved as evaluation.json, and the episodes for replays.
    """

    run: RunPath
    """A run folder (its best policy is scored) or a policy file."""


def run(options: ScoreOptions) -> None:
    """Score a policy, beside random actions and doing nothing, on the same episodes."""
    from agents import Player
    from envs.fingerprint import fingerprint
    from evaluation.compare import MODES
    from evaluation.entries import is_run, locate
    from evaluation.playing import score_episodes
    from evaluation.protocol import baselines, check_fits, counted, native, play, vector_env
    from evaluation.report.terminal import print_scores
    from evaluation.statistics import Score
    from storage.files import write_json
    from storage.policy_file import PolicyFile
    from storage.recording import Recording, save_recording
    from storage.run_folder import find_policy

    file, folder = find_policy(locate(options.run), trust=options.trust)
    belongs_to_run = is_run(options.run, folder)
    config = native(file, options.run, trust=options.trust)
    protocol, game = options.protocol, fingerprint(config.env)
    scores: dict[str, Score] = {}
    returns: dict[str, list[float]] = {}
    with vector_env(config, protocol.num_envs, protocol.episodes) as envs:
        check_fits(file, envs, options.run)
        if belongs_to_run:
            for old in folder.episodes.glob("score-*.npz"):
                old.unlink()
        players: list[tuple[str, Player | PolicyFile]] = [(mode, file) for mode in options.modes]
        for name, player in (*players, *baselines(envs).items()):
            with CONSOLE.status(f"{name}: playing {counted(options.episodes, 'episode')}"):
                episodes = play(player, envs, protocol, greedy=MODES.get(name, False))
            scores[name] = score_episodes(episodes)
            returns[name] = [episode.episode_return for episode in episodes]
            if player is file and belongs_to_run:
                for episode in episodes:
                    path = folder.episodes / f"score-{name}-{episode.seed:09d}.npz"
                    recording = Recording(episode=episode, env=vars(config), game=game)
                    save_recording(path, recording)
    print_scores(CONSOLE, scores, config.env)
    print(protocol.sentence(config))
    headline = next(iter(scores.values()))
    result = {
        "env": config.env,
        "policy": asdict(file.about),
        "protocol": protocol.facts(config),
        **headline.as_dict(),
        "scores": {name: score.as_dict() for name, score in scores.items()},
        "returns": returns,
    }
    targets = [options.json] if options.json else []
    targets += [folder.evaluation_file] if belongs_to_run else []
    for path in targets:
        write_json(path, result)
