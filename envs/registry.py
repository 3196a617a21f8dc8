"""Names of worlds: what may be asked for, and making it."""

from __future__ import annotations

import difflib
import importlib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym

from envs.cfg import game_spec
from envs.config import EnvConfig
from envs.doom import FRAME_SKIP, DoomEnv
from envs.errors import EnvError
from envs.pixels import adapt
from envs.scenarios import FREEDOOM_MAPS, SCENARIOS, camel_case

# Families of Gymnasium ids that another package registers: pattern -> (module, our extra).
_PACKAGES = {
    r"ALE/": ("ale_py", "atari"),
    r"(MiniGrid|BabyAI)-": ("minigrid", "minigrid"),
}
# Environments of Gymnasium's own that need a further package: pattern -> our extra.
_EXTRAS = {r"(CarRacing|LunarLander|BipedalWalker)": "box2d"}


def _doomgrad_ids() -> dict[str, str]:
    """Map our Gymnasium ids to the names of their worlds."""
    ids = {f"doomgrad/{camel_case(name)}-v0": name for name in SCENARIOS}
    for game, maps in FREEDOOM_MAPS.items():
        ids |= {f"doomgrad/{game.capitalize()}{m}-v0": f"{game}:{m}" for m in maps}
    return ids


DOOMGRAD_IDS = _doomgrad_ids()


def register() -> None:
    """Register every bundled world of Doom with Gymnasium."""
    for env_id, name in DOOMGRAD_IDS.items():
        gym.register(env_id, entry_point="envs.registry:make_doom", kwargs={"env": name})


def make_doom(*, env: str, render_mode: str | None = None, **options: Any) -> DoomEnv:
    """Make a world of Doom: what `gymnasium.make("doomgrad/...")` calls.

    Args:
        env: a scenario, a Freedoom map, or a path to a .cfg or .wad.
        render_mode: None or `rgb_array`.
        **options: fields of `EnvConfig`.
    """
    return DoomEnv(EnvConfig(env=env, **options), render_mode)


def canonical_name(env: str) -> str:
    """Give the one name of a world: scenarios and Freedoom maps by their short name.

    Raises:
        EnvError: If there is no such world; the message names the closest.
    """
    env = DOOMGRAD_IDS.get(env, env)
    if game_spec(env) is not None:
        game, separator, map_name = env.partition(":")
        if game in FREEDOOM_MAPS:
            return game + separator + map_name.upper()
        # A file is found from wherever the run is looked at.
        return env if env in SCENARIOS else str(Path(env).resolve())
    _import_package(env)
    try:
        module, _, name = env.rpartition(":")
        if module:  # `package:Name-v0`: importing the package registers the id
            importlib.import_module(module)
        gym.spec(name)
    except (gym.error.Error, ImportError, TypeError) as error:
        raise EnvError(_unknown(env)) from error
    return env


def is_imported(env: str) -> bool:
    """Tell whether a name is of the form `package:Name-v0`, which importing a package makes.

    Raises:
        EnvError: If it names a file or a map that does not exist.
    """
    return ":" in env and game_spec(env) is None


def check_no_import(env: str) -> None:
    """Refuse a name that came from a file and would have a package imported.

    Raises:
        EnvError: If it is of the form `package:Name-v0`.
    """
    if is_imported(env):
        raise EnvError(
            f"{env} is made by importing {env.rpartition(':')[0]}, which a file may not ask for; "
            "if you trust it, add --trust"
        )


def folder_name(env: str) -> str:
    """Turn a world's name into one for a folder: `freedoom2:MAP01` is `freedoom2-map01`."""
    if env.lower().endswith((".cfg", ".wad")):
        env = Path(env).stem
    return re.sub(r"[^\w.-]+", "-", env.lower() if ":" in env else env)


def make(config: EnvConfig, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make the world a configuration describes.

    Raises:
        EnvError: If there is none, if a package for it is missing, or if its spaces are not
            supported.
    """
    name = canonical_name(config.env)
    if game_spec(name) is not None:
        return DoomEnv(replace(config, env=name), render_mode)
    for option in ("extra_channels", "variables", "skill", "time_limit", "actions", "delta_bins"):
        if getattr(config, option) != getattr(EnvConfig(), option):
            raise EnvError(f"{option} is an option for worlds of Doom, which {name} is not")
    # Not every environment takes a render mode.
    options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    if name.startswith("ALE/"):
        # Skipping is ours to do, or the game would skip twice.
        options["frameskip"] = 1
        config = replace(config, frame_skip=frames_per_env_step(config))
    if render_mode == "rgb_array":
        # SDL, which draws the classic environments, is to look for no display.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        env = gym.make(name, **options)
    except gym.error.DependencyNotInstalled as error:
        extra = next((e for pattern, e in _EXTRAS.items() if re.match(pattern, name)), None)
        command = f'pip install -e ".[{extra}]"' if extra else str(error)
        raise EnvError(f"{name} needs a package that is missing: {command}") from error
    except Exception as error:
        raise EnvError(f"{name} could not be made: {error}") from error
    if re.match(r"MiniGrid-|BabyAI-", name):
        env = importlib.import_module("minigrid.wrappers").ImgObsWrapper(env)
    return adapt(env, config)


def frames_per_env_step(config: EnvConfig) -> int:
    """Give how many frames of the game one decision of the agent lasts."""
    skips_by_itself = config.env.startswith("ALE/") or game_spec(config.env) is not None
    return config.frame_skip or (FRAME_SKIP if skips_by_itself else 1)


def _import_package(env: str) -> None:
    """Import the package that registers an id, so that Gymnasium knows it."""
    for pattern, (module, extra) in _PACKAGES.items():
        if re.match(pattern, env):
            try:
                package = importlib.import_module(module)
            except ImportError as error:
                message = f'{env} needs a package that is missing: pip install -e ".[{extra}]"'
                raise EnvError(message) from error
            gym.register_envs(package)


def _unknown(env: str) -> str:
    names = [*SCENARIOS, *DOOMGRAD_IDS, *gym.registry]
    lowered = {name.lower(): name for name in reversed(names)}
    close = difflib.get_close_matches(env.lower(), lowered, n=1, cutoff=0.4)
    hint = f"did you mean {lowered[close[0]]}?" if close else f"try one of {', '.join(SCENARIOS)}"
    return f"there is no world called {env!r}; {hint}"
