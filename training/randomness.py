"""Independent random numbers for each place in a training."""

from __future__ import annotations

import numpy as np
import torch


def generator_of(seed: int, place: int) -> torch.Generator:
    """Return a new generator; those of different seeds or places are independent.

    Args:
        seed: seed of the training.
        place: which of its generators, such as the number of a rank or an epoch.
    """
    # Not seeded by a sum of both: PyTorch's generator uses the low 32 bits of a seed only.
    seeds = np.random.SeedSequence(seed, spawn_key=(place,))
    return torch.Generator().manual_seed(int(seeds.generate_state(1)[0]))
