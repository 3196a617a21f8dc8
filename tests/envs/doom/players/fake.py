"""A match without engines."""

from __future__ import annotations

import numpy as np

from envs.doom.players.kinds import players_kind
from envs.doom.players.match import Player


class FakePlayer(Player):
    """Sees its own number."""

    number = 0

    def observation(self):
        return np.full(self.observation_space.shape, self.number, np.uint8)

    def screen(self):
        return np.full((120, 160, 3), 10 + self.number, np.uint8)


class FakeMatch:
    """Lasts five env steps and pays each player its first choice; the first one always wins."""

    def __init__(self, config, num_bots_instead=0):
        self.kind = players_kind(config.env)
        self.players = [FakePlayer(config) for _ in range(self.kind.num_players - num_bots_instead)]
        for number, player in enumerate(self.players):
            player.number = number
        self.level, self.tics = None, 0
        self.taken = []

    def reset(self, seed):
        self.seed, self.tics = seed, 0

    def advance(self, actions):
        self.taken.append(actions)
        self.tics += 4
        return [float(0 if a is None else a[0]) for a in actions], False, self.tics == 20

    def statistics(self, player):
        return {
            **dict.fromkeys(("frags", "deaths", "hits", "hits_taken", "kills"), 0.0),
            "result": float(player == 0),
        }

    def kill(self):
        pass

    def close(self):
        pass
