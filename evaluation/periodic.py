"""Evaluation during training: episodes of its own every so often, recorded, and one of them shown.

Its episodes are neither those that are learned from nor those that `score` judges by; actions are
drawn, as in training.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from agents.agent import Agent
from agents.inference import InferencePolicy
from agents.logger import RunLogger
from agents.run import RunFolder
from agents.sampler import PlayedEnvs
from envs import EnvConfig, EnvError, SharedVectorEnv
from envs.fingerprint import fingerprint
from envs.replay import Moment, env_steps_per_second, playback_fps
from envs.shown import ShownEnv
from envs.video import gif_bytes, write_mp4
from evaluation.episodes import Episode, Recording, save_recording
from evaluation.play import play_episodes
from evaluation.replay import DivergedError, Shown, play_again

_FIRST_SEED = 2**29  # Scoring plays from 0, training from 2^30: they never meet.
_GIF_FRAMES, _GIF_SIZE = 100, (160, 120)
_FILM_SIZE = (640, 480)


class PeriodicEvaluation:
    """Plays episodes with the policy as it is now, records them and shows the first.

    Args:
        agent: whose policy plays.
        envs: where, and nobody else in them; closed by `close`.
        config: their world.
        folder: where recordings go.
        logger: where the first episode is shown, and what is told of trouble.
        num_episodes: how many an evaluation has.
        record: whether they are recorded.
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
    ) -> None:
        self._agent, self._envs, self._config = agent, envs, config
        self._folder, self._logger = folder, logger
        self._num_episodes, self._record = num_episodes, record
        self._player = InferencePolicy(agent.policy)
        self._game = fingerprint(config.env)
        self._repeats = True  # Whether a seed and actions are the whole of an episode.

    @property
    def num_restarts(self) -> int:
        """How often a game had to be started anew."""
        return self._envs.num_restarts

    @property
    def last_restart(self) -> str:
        """Why, the last time."""
        return self._envs.last_restart

    def play(self, signals: Sequence[int]) -> list[Episode]:
        """Play episodes with the agent's latest weights; fewer if a signal comes meanwhile.

        Returns:
            The same episodes each time, by seed.
        """
        self._player.take_weights()
        played = self._play(self._envs, self._num_episodes)
        episodes = itertools.takewhile(lambda _: not signals, played)
        return sorted(episodes, key=lambda episode: episode.seed)

    def keep(self, episodes: Sequence[Episode], env_steps: int) -> None:
        """Record what was played after so many env steps, and show the first in TensorBoard.

        Raises:
            OSError: If something cannot be written.
        """
        recordings = [self._recording(episode) for episode in episodes]
        for recording in recordings if self._record else ():
            name = f"evaluation-{env_steps:010d}-{recording.episode.seed - _FIRST_SEED:03d}.npz"
            save_recording(self._folder.episodes / name, recording)
        if "rgb_array" not in self._envs.metadata.get("render_modes", ()):
            return
        try:
            if self._repeats:
                self._show(play_again(recordings[0], self._config, _GIF_SIZE), env_steps)
        except DivergedError as error:
            self._repeats = False
            self._logger.progress.say(f"{error}; pictures are kept instead")
        except EnvError as error:
            self._logger.progress.say(f"{error}; this episode is not shown")
        if not self._repeats:
            self._keep_film(env_steps)

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()

    def _play(self, envs: PlayedEnvs, num_episodes: int) -> Iterator[Episode]:
        return play_episodes(
            self._player,
            envs,
            num_episodes=num_episodes,
            seed=_FIRST_SEED,
            greedy=False,
            device=self._player.device,
            gamma=self._agent.config.gamma,
            value_unit=self._agent.value_unit,
        )

    def _recording(self, episode: Episode) -> Recording:
        return Recording(episode=episode, env=asdict(self._config), game=self._game)

    def _keep_film(self, env_steps: int) -> None:
        """Record one more episode as it is played, with its pictures."""
        file = self._folder.episodes / f"evaluation-{env_steps:010d}-film.npz"
        with contextlib.closing(ShownEnv(self._config, _FILM_SIZE)) as env_shown:
            (episode,) = self._play(env_shown, 1)
        recording = self._recording(episode)
        if self._record:
            save_recording(file, recording)
            write_mp4(file.with_suffix(".mp4"), env_shown.film(), playback_fps(self._config))
        shown = Shown(name="", recording=recording, config=self._config, film=env_shown.film)
        self._show(shown.moments(_GIF_SIZE), env_steps)

    def _show(self, moments: Iterator[Moment], step: int) -> None:
        """Put an episode's beginning into TensorBoard as an animation, one picture an env step."""
        pictures: dict[int, Any] = {}
        for moment in moments:
            if moment.step < _GIF_FRAMES:
                pictures[moment.step] = moment.image
        gif = gif_bytes(list(pictures.values()), env_steps_per_second(self._config))
        self._logger.record_gif("eval/episode", gif, *_GIF_SIZE, step)
