"""Many environments at once, stepped by worker processes over shared memory."""

from envs.vector.pool import StoppedError
from envs.vector.vector import SharedVectorEnv, Transition, make_doom_vec

__all__ = ["SharedVectorEnv", "StoppedError", "Transition", "make_doom_vec"]
