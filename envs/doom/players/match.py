"""A match: one engine for each player, which step together, and what each player is paid.

The engines are peers: the first one hosts the match at a port of this machine, the others join it
through the loopback interface, and each tic waits for the commands of all players. What was found
out about them, and is relied on here:

- An engine takes one tic for each call, and all players take a tic before any takes the next one.
  An engine that runs ahead of the others waits for them for up to a second: with a barrier before
  each tic, a match is hundreds of times as fast.
- `new_episode` does not restart a map: it only lets a dead player respawn. The host changes the map
  by a console command; after that, `new_episode` loads it. Counters of deaths and hits go on.
- In a team's match, health and weapons would be carried from map to map; a MAPINFO lump resets
  them.
- A player's commands reach the others' engines over the network, a tic sooner or later. So the same
  seed and actions give the same map and the same rules, but not the same match bit by bit.

The engine cannot be told to listen on the loopback interface alone; it takes no player who joins
after the start.
"""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from vizdoom import GameVariable

from envs.config import EnvConfig
from envs.doom.engine import ENGINE_ERRORS, end_engine, prepare_engine, start_engines
from envs.doom.env import DoomEnv
from envs.doom.maps.level import ZOMBIE, Level
from envs.doom.maps.source import WAD_NAME
from envs.doom.maps.udmf import text, wad
from envs.doom.players.kinds import MatchKind, players_kind
from envs.errors import EnvError

LOOPBACK = "127.0.0.1"
# The counters of a player, of which rewards and statistics are made.
_VARIABLES = {
    "frags": GameVariable.FRAGCOUNT,
    "deaths": GameVariable.DEATHCOUNT,
    "hits": GameVariable.HITCOUNT,
    "hits_taken": GameVariable.HITS_TAKEN,
    "kills": GameVariable.KILLCOUNT,
}
# The frags of each player and bot, as every engine knows them.
_MOST_PLAYERS = 16
_ALL_FRAGS = [GameVariable.__members__[f"PLAYER{i + 1}_FRAGCOUNT"] for i in range(_MOST_PLAYERS)]
# For a match: players respawn by themselves, far from each other; shots are aimed vertically, as
# players cannot look up or down; a team cannot shoot itself.
_RULES = (
    "+sv_forcerespawn 1 +sv_spawnfarthest 1 +sv_noautoaim 0 +teamdamage 0 +timelimit 0 "
    "+viz_respawn_delay 1 +viz_connect_timeout 20"
)
_MAPINFO = b'map MAP01 "match"\n{\n ResetHealth\n ResetInventory\n}\n'
_PLACE = 2**17  # Bytes; the largest maps of `KINDS` need a tenth of that.
_CHANGE_WITHIN = 35  # Tics in which a map ends after the command that changes it.
_SETTLE_WITHIN = 105  # Tics in which all players are alive at the start of a match.
_BARRIER_WITHIN_S = 60.0  # Longer than an env step may take: the engines are killed before.
ResultT = TypeVar("ResultT")
Counters = dict[str, float]


def free_port() -> int:
    """Return a UDP port of the loopback interface that no program uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Player(DoomEnv):
    """One player's engine and what it shows; a `Match` starts and steps it."""

    def prepare(self, arguments: str, wad_path: Path | None) -> tuple[Any, Path]:
        """Prepare the engine.

        Args:
            arguments: for the engine.
            wad_path: the match's WAD; None: the one that will be in its own scratch folder.

        Returns:
            The game and its scratch folder.
        """
        spec = replace(self.game_spec, arguments=arguments, wad=wad_path)
        if self.config.skill is not None:
            spec = replace(spec, settings={**spec.settings, "doom_skill": self.config.skill})
        return prepare_engine(spec, resolution=self._resolution, variables=self._variable_names)

    def take(self, game: Any, scratch: Path) -> None:
        """Take an engine that has started."""
        self._game, self._scratch = game, scratch
        self._end = weakref.finalize(self, end_engine, game, scratch)

    def look_at(self, *, first: bool) -> None:
        """Observe this tic; on the first one, a new stack of frames begins."""
        if self._game.get_state() is None:
            raise EnvError("the engine left the match")
        self._observe(first)

    def observation(self) -> Any:
        """Return what was observed last."""
        return self._observation()

    def screen(self) -> NDArray[np.uint8]:
        """Return the screen as the engine drew it last, (height, width, 3) uint8 RGB."""
        return np.asarray(self.palette[self._shown(self._state.screen_buffer)])

    def command(self, line: str) -> None:
        """Send a line to the engine's console."""
        self._game.send_game_command(line)

    def tic(self, action: Any, *, draws: bool = True) -> None:
        """Hold an action, or nothing if it is None, for one tic."""
        pressed = [0.0] * len(self.game_spec.buttons)
        self._game.set_action(pressed if action is None else self._actions.buttons(action))
        self._game.advance_action(1, draws)

    def load_map(self, seed: int) -> None:
        """Load the map that is in the WAD now, after the last one has ended."""
        self._game.set_seed(seed % 2**32)
        self._game.new_episode()
        self._carried_over = np.zeros(len(self._variable_names))

    @property
    def has_left(self) -> bool:
        """Whether the map has ended."""
        return bool(self._game.is_episode_finished())

    def counters(self) -> Counters:
        """Return what the engine has counted for this player since it started."""
        return {name: self._game.get_game_variable(v) for name, v in _VARIABLES.items()}

    def frags_of_others(self) -> NDArray[np.float64]:
        """Return the frags of all other players and bots, (15,), in a fixed order."""
        own = int(self._game.get_game_variable(GameVariable.PLAYER_NUMBER))
        frags = [self._game.get_game_variable(v) for v in _ALL_FRAGS]
        return np.array(frags[:own] + frags[own + 1 :])

    @property
    def scratch(self) -> Path:
        """The engine's scratch folder."""
        return self._scratch


class Match:
    """Several engines that play the same match.

    Args:
        config: how the match is observed and acted upon.
        num_bots_instead: how many players the engine's bots replace.

    Attributes:
        kind: the kind of matches.
        players: those that have an engine, in the order in which they join.
        level: the map of this match.
        tics: how many have passed in it.
    """

    def __init__(self, config: EnvConfig, num_bots_instead: int = 0) -> None:
        kind = players_kind(config.env)
        assert kind is not None
        self.kind: MatchKind = kind
        self.config = config
        self.num_bots = kind.num_bots + num_bots_instead
        count = kind.num_players - num_bots_instead
        self.players = [Player(config) for _ in range(count)]
        self.level: Level | None = None
        self.tics = 0
        self._is_over = True  # Until the first reset.
        self._monsters = 0
        self._threads: list[ThreadPoolExecutor] = []
        self._barrier = threading.Barrier(count, timeout=_BARRIER_WITHIN_S)
        self._before: list[Counters] = []
        self._first: list[Counters] = []
        self._others_first: list[NDArray[np.float64]] = []

    def reset(self, seed: int) -> None:
        """Start a match on the map of a seed.

        Raises:
            EnvError: If an engine could not be started, or one died.
        """
        self.level = self.kind.level(seed)
        self._monsters = sum(thing.kind == ZOMBIE for thing in self.level.things)
        if not self._threads:
            self._start()
        else:
            self._write_wad(self.players[0].scratch / WAD_NAME)
        try:
            self._change_map(seed)
        except ENGINE_ERRORS as error:
            raise self._died(error) from error
        except EnvError:
            self.close()
            raise
        self.tics, self._is_over = 0, False
        self._first = self._before = self._counters()
        # A player who appears where another one stands kills it, also before the match starts.
        self._others_first = [player.frags_of_others() for player in self.players]

    def advance(self, actions: Sequence[Any]) -> tuple[list[float], bool, bool]:
        """Hold actions for `frame_skip` tics, or until the match ends.

        Args:
            actions: one for each player; None presses nothing.

        Returns:
            The rewards of the players, and whether the match is terminated and truncated.

        Raises:
            EnvError: If an engine died; `reset` starts others.
        """
        if self._is_over:
            raise EnvError("the match has ended; call reset() before step()")
        first = self.players[0]
        tics = first.frame_skip
        if first.time_limit is not None:
            tics = min(tics, first.time_limit - self.tics)
        self._step(actions, tics)
        now = self._counters()
        rewards = [
            self.kind.rewards.of({name: after[name] - before[name] for name in after})
            for before, after in zip(self._before, now, strict=True)
        ]
        self._before = now
        terminated = self._is_won()
        truncated = not terminated and self.tics == first.time_limit
        self._is_over = terminated or truncated
        return rewards, terminated, truncated

    def statistics(self, player: int) -> dict[str, float]:
        """Return what a player has done in this match: `result` is 1 if it won, 0.5 for a draw.

        Who has more frags than the other players with an engine has won; the bots of a kind do not
        count. A player that is alone has won if it has more than any bot.
        """
        every = [
            {name: now[name] - first[name] for name in now}
            for now, first in zip(self._before, self._first, strict=True)
        ]
        done = every.pop(player)
        if self.kind.is_team:
            result = float(self._is_won())
        else:
            others = max((other["frags"] for other in every), default=self._frags_of_others(player))
            result = 0.5 + 0.5 * float(np.sign(done["frags"] - others))
        return {**done, "result": result}

    def kill(self) -> None:
        """Kill engines that hang; the method that waits for them in another thread then raises."""
        for player in self.players:
            player.kill()

    def close(self) -> None:
        """End all engines and threads."""
        self._barrier.abort()
        for player in self.players:
            player.close()
        for thread in self._threads:
            thread.shutdown(wait=False)
        self._threads = []

    def _start(self) -> None:
        count = len(self.players)
        port = free_port()
        mode = "-coop" if self.kind.is_team else "-deathmatch"
        host = f"-host {count} -port {port} {mode} {_RULES}"
        join = f"-join {LOOPBACK} -port {port} +viz_connect_timeout 20"
        self._barrier.reset()
        game, scratch = self.players[0].prepare(host, None)
        path = scratch / WAD_NAME
        self._write_wad(path)
        game.set_doom_scenario_path(str(path))
        prepared = [(game, scratch)]
        prepared += [player.prepare(join, path) for player in self.players[1:]]
        # An engine is killed when the thread ends that started it, so each has its thread.
        self._threads = [ThreadPoolExecutor(1, f"player-{i}") for i in range(count)]
        try:
            start_engines(prepared, self._threads)
        except EnvError:
            self.close()
            raise
        for player, started in zip(self.players, prepared, strict=True):
            player.take(*started)

    def _write_wad(self, path: Path) -> None:
        """Write the WAD of this match, whose map's place is as large as that of any other."""
        assert self.level is not None
        content = text(self.level).encode().ljust(_PLACE)
        path.write_bytes(
            wad([("MAP01", b""), ("TEXTMAP", content), ("ENDMAP", b""), ("MAPINFO", _MAPINFO)])
        )

    def _change_map(self, seed: int) -> None:
        """Load the map that is in the WAD, let bots join, and wait until everybody is there."""
        host = self.players[0]
        if self.num_bots:
            host.command("removebots")
        host.command("changemap MAP01")
        for _ in range(_CHANGE_WITHIN):
            if all(player.has_left for player in self.players):
                break
            self._each(lambda i: self.players[i].tic(None))
        else:
            raise EnvError("the engine does not change the map")
        self._each(lambda i: self.players[i].load_map(seed))
        for _ in range(self.num_bots):
            host.command("addbot")
        for _ in range(_SETTLE_WITHIN):
            self._each(lambda i: self.players[i].tic(None))
            if not any(player.player_died() for player in self.players):
                break
        self._each(lambda i: self.players[i].look_at(first=True))

    def _step(self, actions: Sequence[Any], tics: int) -> None:
        def work(i: int) -> None:
            player = self.players[i]
            for tic in range(tics):
                self._barrier.wait()
                player.tic(actions[i], draws=tic == tics - 1)
            player.look_at(first=False)

        self._each(work)
        self.tics += tics

    def _each(self, work: Callable[[int], ResultT]) -> list[ResultT]:
        """Do something for every player, each in its own thread, and return the results.

        Raises:
            EnvError: If it failed for one of them; all engines have then ended.
        """
        if not self._threads:
            raise EnvError("the match has ended; call reset() before step()")
        doing: list[Future[ResultT]] = [
            thread.submit(work, i) for i, thread in enumerate(self._threads)
        ]
        _, waiting = wait(doing, return_when=FIRST_EXCEPTION)
        errors = [f.exception() for f in doing if f.done() and f.exception()]
        if not errors:
            return [each.result() for each in doing]
        self._barrier.abort()
        self.kill()  # Those that wait for the others' commands would wait for a second or more.
        wait(waiting)
        broken = threading.BrokenBarrierError
        error = next((e for e in errors if not isinstance(e, broken)), errors[0])
        self.close()
        if isinstance(error, (*ENGINE_ERRORS, broken)):
            raise self._died(error) from error
        assert error is not None
        raise error

    def _died(self, error: BaseException) -> EnvError:
        self.close()
        return EnvError(f"a Doom engine of the match died: {error}")

    def _counters(self) -> list[Counters]:
        return [player.counters() for player in self.players]

    def _is_won(self) -> bool:
        """Return whether the match has been decided."""
        if self.kind.is_team:
            killed = self._before[0]["kills"] - self._first[0]["kills"]
            return 0 < self._monsters <= killed
        if self.kind.frag_limit is None:
            return False
        changes = zip(self._before, self._first, strict=True)
        own = max(max(now[n] - first[n] for n in ("frags", "deaths")) for now, first in changes)
        others = max(self._frags_of_others(i) for i in range(len(self.players)))
        return max(own, others) >= self.kind.frag_limit

    def _frags_of_others(self, player: int) -> float:
        """Return how often the best of the others, in a player's eyes, has killed in this match."""
        frags = self.players[player].frags_of_others()
        return float((frags - self._others_first[player]).max())
