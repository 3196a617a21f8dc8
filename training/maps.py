"""The generated maps of a training."""

from __future__ import annotations

from pathlib import Path

from envs.doom.maps import MAPS, PREFIX, MapConfig
from envs.doom.maps.source import MapSource
from evaluation.printing import print_line
from evaluation.seeds import first_training_seed
from storage.files import check_writable
from training.config import AnyTrainConfig
from training.errors import TrainingError


def export_maps(config: AnyTrainConfig, path: Path) -> int:
    """Write the maps of a training into a WAD, and return the exit status.

    Args:
        config: the configuration.
        path: the WAD.

    Raises:
        FileError: If it cannot be written.
        TrainingError: If the environment's maps are not generated, or the path is no WAD's.
    """
    env, options = config.env.env, config.env.map
    if not isinstance(options, MapConfig):
        kinds = ", ".join(f"{PREFIX}{kind}" for kind in MAPS)
        raise TrainingError(
            f"--export-wad: the maps of {env} are not generated; those of {kinds} are"
        )
    if path.suffix.lower() != ".wad":
        raise TrainingError(f"--export-wad {path}: name a file that ends with .wad")
    check_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = MapSource(env, options).export(path, first_training_seed(config.seed))
    print_line(
        f"wrote {count} maps into {path}; the engine plays them: python train.py {path}:MAP01"
    )
    return 0
