"""Many environments at once, stepped by worker processes over shared memory."""

from envs.vector.vector import SharedVectorEnv, Transition, make_doom_vec

__all__ = ["SharedVectorEnv", "Transition", "make_doom_vec"]
