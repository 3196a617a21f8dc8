"""Several players in one match: `players:KIND`.

`KINDS` lists the kinds of matches, see `envs.doom.players.kinds`. `PlayersEnv` is a match in the
shape of PettingZoo's `ParallelEnv`; `MatchEnv` is the same match for one learning player, in the
shape of a Gymnasium environment, which is what `python train.py players:duel` uses.
"""

from envs.doom.players.kinds import KINDS, PREFIX, players_kind

__all__ = ["KINDS", "PREFIX", "players_kind"]
