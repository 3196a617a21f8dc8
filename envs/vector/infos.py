"""Numeric infos as Gymnasium's vector environments arrange them.

A key `k` maps to an array with first axis N, and `_k` to an (N,) bool array that is True for the
environments in which `k` is valid. Axes: N environments, I info keys, E episode keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.vector.memory import Arrays


def current_infos(arrays: Arrays, info_keys: Sequence[str]) -> dict[str, Any]:
    """Return the infos of the current observations.

    Args:
        arrays: the shared arrays.
        info_keys: names of the columns of `arrays.info`.
    """
    everywhere = np.ones(len(arrays.info), bool)
    return _by_key(arrays.info, info_keys, everywhere)


def final_infos(
    arrays: Arrays, info_keys: Sequence[str], episode_keys: Sequence[str]
) -> dict[str, Any]:
    """Return `final_obs` and `final_info` of the episodes that ended, or nothing if none did.

    Args:
        arrays: the shared arrays.
        info_keys: names of the columns of `arrays.final_info`.
        episode_keys: names of the columns of `arrays.episode`.
    """
    ended = arrays.terminated | arrays.truncated
    if not ended.any():
        return {}
    final_obs: NDArray[Any] = np.full(len(ended), None, dtype=object)
    for lane in np.flatnonzero(ended):
        parts = {name: part[lane].copy() for name, part in arrays.final_obs.items()}
        final_obs[lane] = parts.get("obs", parts)
    final_info = _by_key(arrays.final_info, info_keys, ended)
    final_info |= {
        "episode": _by_key(arrays.episode, episode_keys, ended),
        "_episode": ended.copy(),
    }
    return {
        "final_obs": final_obs,
        "_final_obs": ended.copy(),
        "final_info": final_info,
        "_final_info": ended.copy(),
    }


def _by_key(
    table: NDArray[np.float64], keys: Sequence[str], mask: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return the columns of a table by key, each with a copy of the mask."""
    columns: dict[str, Any] = dict(zip(keys, table.T.copy(), strict=True))
    return columns | {f"_{key}": mask.copy() for key in keys}
