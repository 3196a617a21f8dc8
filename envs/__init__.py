"""The worlds an agent lives in, and running many of them at once.

Importing this package registers the bundled worlds of Doom with Gymnasium, as `doomgrad/Basic-v0`
and the like.
"""

from envs.config import EnvConfig
from envs.doom import DoomEnv
from envs.errors import EnvError
from envs.registry import canonical_name, folder_name, make, register
from envs.scenarios import SCENARIOS, Scenario
from envs.vector import SharedVectorEnv, Transition

__all__ = [
    "SCENARIOS",
    "DoomEnv",
    "EnvConfig",
    "EnvError",
    "Scenario",
    "SharedVectorEnv",
    "Transition",
    "canonical_name",
    "folder_name",
    "make",
]

register()
