"""The environments an agent acts in, and stepping many of them at once.

Importing this package registers the bundled Doom scenarios with Gymnasium, as `doomgrad/Basic-v0`
and so on.
"""

from envs.config import EnvConfig
from envs.doom import SCENARIOS, DoomEnv, Scenario
from envs.errors import EnvError
from envs.moved import portable_name
from envs.registry import canonical_name, folder_name, make, register
from envs.vector import SharedVectorEnv, StoppedError, Transition

__all__ = [
    "SCENARIOS",
    "DoomEnv",
    "EnvConfig",
    "EnvError",
    "Scenario",
    "SharedVectorEnv",
    "StoppedError",
    "Transition",
    "canonical_name",
    "folder_name",
    "make",
    "portable_name",
]

register()
