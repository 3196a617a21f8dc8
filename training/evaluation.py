"""Evaluation during training: the policy is scored at regular intervals, and the best one saved.

The episodes are neither those that it learns from nor those of `score`; actions are sampled, as in
training. The episodes are recorded, and one of them is shown in TensorBoard.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from agents.agent import Agent
from agents.collector import BatchedEnvs, Collector
from agents.inference import InferencePolicy
from envs import EnvConfig, SharedVectorEnv, StoppedError
from envs.doom.players import players_kind
from envs.errors import describe_error
from envs.filmed import FilmedEnv
from envs.fingerprint import episode_fingerprint, fingerprint
from envs.playback import Moment, env_steps_per_second, playback_fps
from envs.video import gif_bytes, write_mp4
from evaluation.opponents import MatchWithRival
from evaluation.playing import play_episodes, score_episodes
from evaluation.protocol import counted, report_bound
from evaluation.replay.recorded import DivergedError, ShownEpisode, replay_recording
from evaluation.seeds import EVALUATION
from evaluation.statistics import Score
from storage.files import replacing
from storage.recording import Episode, Recording, save_recording
from storage.run_folder import RunFolder
from training.config import AnyTrainConfig
from training.guard import continuing_without_disk
from training.logger import RunLogger
from training.progress import Progress
from training.resume import lost_episodes
from training.saving import save_as_policy_file

_GIF_FRAMES, _GIF_SIZE = 100, (160, 120)
_VIDEO_SIZE = (640, 480)


class PeriodicEvaluation:
    """Evaluates the policy, saves the best one, records episodes, and shows one in TensorBoard.

    Args:
        agent: the agent whose policy is evaluated.
        envs: the environments to play in.
        config: their configuration.
        folder: the run folder, for recordings.
        logger: shows the first episode, and prints what cannot be shown.
        num_episodes: number of episodes in an evaluation.
        record: whether the episodes are recorded.
        collector: the collector that these environments belong to; its episodes continue after an
            evaluation, and no further environment is made for pictures. None: they are used for
            nothing else.
        stops: see `SharedVectorEnv`.

    Attributes:
        envs: the environments.
    """

    def __init__(
        self,
        agent: Agent[Any],
        envs: SharedVectorEnv,
        config: EnvConfig,
        *,
        folder: RunFolder,
        logger: RunLogger,
        num_episodes: int,
        record: bool,
        collector: Collector | None = None,
        stops: Callable[[], bool] = lambda: False,
    ) -> None:
        self.envs = envs
        self._agent, self._config, self._collector = agent, config, collector
        self._folder, self._logger = folder, logger
        self._num_episodes, self._record, self._stops = num_episodes, record, stops
        self._player = InferencePolicy(agent.policy)
        self._game = fingerprint(config.env)
        self._has_said = False
        self._is_match = players_kind(config.env) is not None
        self._is_repeatable = not self._is_match  # Whether seed and actions determine an episode.
        self._not_shown = ""  # Why the last episode was not shown.

    def run(
        self, config: AnyTrainConfig, progress: Progress, signals: Sequence[int]
    ) -> Score | None:
        """Evaluate the policy, and save it if it is the best so far.

        Args:
            config: the configuration of the training.
            progress: progress of the training; what evaluations change is updated.
            signals: as soon as it is not empty, the evaluation stops; it is then to be repeated.

        Returns:
            The policy's score; None if the evaluation was stopped.
        """
        progress.lacks_evaluation = True
        try:
            episodes = self.play(signals)
        except StoppedError:
            return None
        if signals:
            return None
        progress.lacks_evaluation = False
        score, say = score_episodes(episodes), self._logger.progress.say
        report_bound(episodes, self._config, self._say_once)
        behind = max(0, progress.env_steps - progress.next_evaluation + config.evaluation_interval)
        passed = behind // config.evaluation_interval
        progress.next_evaluation += passed * config.evaluation_interval
        best = progress.best_score
        progress.evaluations_since_best += 1
        if best is None or score.mean > best:
            progress.evaluations_since_best = 0
        with continuing_without_disk(say):
            # Of equal policies the later one is kept, because it was trained longer.
            if best is None or score.mean >= best:
                save_as_policy_file(self._folder, self._agent, config, progress, best=True)
                progress.best_score = score.mean
            self.record_episodes(episodes, progress.env_steps)
        self._logger.record("eval/mean_reward", score.mean)
        self._logger.record("eval/mean_ep_length", score.mean_length)
        say(
            f"{progress.env_steps:>9,} env steps · evaluation {score.mean:,.2f} "
            f"± {score.std:,.2f} over {counted(score.episodes, 'episode')}"
        )
        return score

    def play(self, signals: Sequence[int]) -> list[Episode]:
        """Play episodes with the agent's current weights.

        Args:
            signals: as soon as it is not empty, playing stops.

        Returns:
            The episodes in the order of their seeds, which are the same in every evaluation.
        """
        self._player.take_weights()
        before = self._collector.state() if self._collector else {}
        played = self._play(self.envs, self._num_episodes)
        try:
            episodes = list(itertools.takewhile(lambda _: not signals, played))
        finally:
            if self._collector and (lost := self._collector.load_state(before)):
                self._logger.progress.say(lost_episodes(lost))
        return sorted(episodes, key=lambda episode: episode.seed)

    def _say_once(self, line: str) -> None:
        if not self._has_said:
            self._logger.progress.say(f"{line} (reported once)")
        self._has_said = True

    def record_episodes(self, episodes: Sequence[Episode], env_steps: int) -> None:
        """Record the episodes of an evaluation, and show the first one in TensorBoard.

        Args:
            episodes: as returned by `play`.
            env_steps: env steps of the training so far.

        Raises:
            OSError: If something cannot be written.
        """
        recordings = [self._recording(episode) for episode in episodes]
        for recording in recordings if self._record else ():
            name = f"evaluation-{env_steps:010d}-{recording.episode.seed - EVALUATION:03d}.npz"
            save_recording(self._folder.episodes / name, recording)
        if self._collector or "rgb_array" not in self.envs.metadata.get("render_modes", ()):
            return
        try:
            self._show(recordings[0], env_steps)
        except StoppedError:
            return
        except OSError:
            raise
        except Exception as error:  # Environments can raise anything.
            reason = describe_error(error)
            if reason != self._not_shown:
                self._logger.progress.say(f"{reason}; this episode is not shown")
            self._not_shown = reason

    def _show(self, recording: Recording, env_steps: int) -> None:
        """Show an episode in TensorBoard, or another one if it cannot be repeated."""
        try:
            if self._is_repeatable:
                moments = replay_recording(recording, self._config, _GIF_SIZE)
                self._show_moments(moments, env_steps)
        except DivergedError as error:
            self._is_repeatable = False
            self._logger.progress.say(
                f"{error}; from now on, pictures are taken while an episode is played"
            )
        if not self._is_repeatable:
            self._record_video(env_steps)

    def _play(self, envs: BatchedEnvs, num_episodes: int) -> Iterator[Episode]:
        return play_episodes(
            self._player,
            envs,
            num_episodes=num_episodes,
            seed=EVALUATION,
            greedy=False,
            device=self._player.device,
            gamma=self._agent.config.gamma,
            value_unit=self._agent.value_unit,
        )

    def _recording(self, episode: Episode) -> Recording:
        game = episode_fingerprint(self._config, episode.seed, self._game)
        return Recording(episode=episode, env=asdict(self._config), game=game)

    def _record_video(self, env_steps: int) -> None:
        """Play one more episode, record it with a video, and show it in TensorBoard."""
        file = self._folder.episodes / f"evaluation-{env_steps:010d}-film.npz"
        size, match = _VIDEO_SIZE, None
        if self._is_match:  # Of the policy against itself, both side by side.
            match = MatchWithRival(self._config, self._player, self._player.device)
            size = (2 * size[0], size[1])
        with contextlib.closing(FilmedEnv(self._config, size, self._stops, match)) as env:
            (episode,) = self._play(env, 1)
        recording = self._recording(episode)
        if self._record:
            save_recording(file, recording)
            with replacing(file.with_suffix(".mp4")) as temporary:
                write_mp4(temporary, env.film(), playback_fps(self._config))
        shown = ShownEpisode(name="", recording=recording, config=self._config, video=env.film)
        self._show_moments(shown.moments(_GIF_SIZE), env_steps)

    def _show_moments(self, moments: Iterator[Moment], step: int) -> None:
        """Show the beginning of an episode as an animated GIF with one picture per env step."""
        pictures: dict[int, Any] = {}
        for moment in moments:
            if self._stops():
                raise StoppedError
            if moment.step >= _GIF_FRAMES:
                break  # The rest of a long episode would take minutes to draw.
            pictures[moment.step] = moment.image
        gif = gif_bytes(list(pictures.values()), env_steps_per_second(self._config))
        self._logger.record_gif("eval/episode", gif, *_GIF_SIZE, step)
