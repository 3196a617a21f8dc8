"""The names of environments, and how an environment is made from its name."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gymnasium as gym

from envs.config import EnvConfig
from envs.doom.cfg import game_spec
from envs.doom.env import FRAME_SKIP, DoomEnv
from envs.doom.scenarios import FREEDOOM_MAPS, SCENARIOS, camel_case
from envs.errors import EnvError
from envs.pixels import adapt

# Gymnasium ids that another package registers: pattern -> (module, this project's extra).
_PACKAGES = {
    r"ALE/": ("ale_py", "atari"),
    r"(MiniGrid|BabyAI)-": ("minigrid", "minigrid"),
}
# Gymnasium's own environments that need another package: pattern -> this project's extra.
_EXTRAS = {r"(CarRacing|LunarLander|BipedalWalker)": "box2d"}
# Options that only Doom environments have, and options that they do not have.
_DOOM_OPTIONS = (
    "extra_channels",
    "variables",
    "enemy_in_view",
    "skill",
    "time_limit",
    "actions",
    "delta_bins",
)
_OTHER_OPTIONS = ("max_pool", "noop_max", "fire_reset", "terminal_on_life_loss")


def _doomgrad_ids() -> dict[str, str]:
    """Return the Gymnasium ids that this package registers, with the names of their scenarios."""
    ids = {f"doomgrad/{camel_case(name)}-v0": name for name in SCENARIOS}
    for game, maps in FREEDOOM_MAPS.items():
        ids |= {f"doomgrad/{game.capitalize()}{m}-v0": f"{game}:{m}" for m in maps}
    return ids


DOOMGRAD_IDS = _doomgrad_ids()


def register() -> None:
    """Register every bundled scenario and Freedoom map with Gymnasium."""
    for env_id, name in DOOMGRAD_IDS.items():
        gym.register(
            env_id,
            entry_point="envs.registry:make_doom",
            vector_entry_point="envs.vector.vector:make_doom_vec",
            kwargs={"env": name},
        )


def make_doom(*, env: str, render_mode: str | None = None, **options: Any) -> DoomEnv:
    """Make a Doom environment: what `gymnasium.make("doomgrad/...")` calls.

        >>> import gymnasium
        >>> env = gymnasium.make("envs:doomgrad/Basic-v0", observation="rgb", frame_skip=2)
        >>> env.observation_space.shape
        (72, 128, 3)

    Args:
        env: a scenario, a Freedoom map, or a path to a .cfg or .wad.
        render_mode: None or `rgb_array`, from which Gymnasium derives `human` and `rgb_array_list`.
        **options: fields of `EnvConfig`.

    Raises:
        EnvError: If an option does not exist, or does not apply to Doom.
    """
    return DoomEnv(doom_config(env, options), render_mode)


# Gymnasium reads it from the entry point, to know which render modes it must add.
make_doom.metadata = {"render_modes": ["rgb_array"]}  # type: ignore[attr-defined] # of a function


def doom_config(env: str, options: Mapping[str, Any]) -> EnvConfig:
    """Return the configuration of a Doom environment with the given options.

    Args:
        env: a scenario, a Freedoom map, or a path to a .cfg or .wad.
        options: fields of `EnvConfig`.

    Raises:
        EnvError: If an option does not exist, or does not apply to Doom.
    """
    names = [field.name for field in fields(EnvConfig)]
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names[1:])}"
            raise EnvError(f"{name} is not an option of Doom environments; {hint}")
    config = EnvConfig(env=env, **options)
    _refuse_options(_OTHER_OPTIONS, config, f"not an option of {env}, which is Doom")
    return config


def _refuse_options(names: Iterable[str], config: EnvConfig, reason: str) -> None:
    """Check that options have their default values.

    Raises:
        EnvError: If one of them was set.
    """
    for name in names:
        if getattr(config, name) != getattr(EnvConfig(), name):
            raise EnvError(f"{name} is {reason}")


def canonical_name(env: str) -> str:
    """Return the one name of an environment: the short one of scenarios and Freedoom maps.

    Raises:
        EnvError: If there is no such environment; the message names the closest one.
    """
    env = DOOMGRAD_IDS.get(env.removeprefix("envs:"), env)
    if game_spec(env) is not None:
        game, separator, map_name = env.partition(":")
        if game in FREEDOOM_MAPS:
            return game + separator + map_name.upper()
        # An absolute path, so that the file is found from any working directory.
        return env if env in SCENARIOS else str(Path(env).resolve())
    _import_package(env)
    module, colon, name = env.rpartition(":")
    if module:  # `package:Name-v0`: importing the package registers the id
        _import_own(module)
    try:
        gym.spec(name)
    except gym.error.Error as error:
        raise EnvError(_unknown(name, module + colon)) from error
    return env


def is_imported(env: str) -> bool:
    """Return whether a name is of the form `package:Name-v0`: making it imports the package.

    Raises:
        EnvError: If it names a file or a map that does not exist.
    """
    return ":" in env and game_spec(env) is None


def check_no_import(env: str) -> None:
    """Check that making an environment whose name comes from a file imports no package.

    Raises:
        EnvError: If the name is of the form `package:Name-v0`.
    """
    if is_imported(env):
        raise EnvError(
            f"{env} is made by importing {env.rpartition(':')[0]}, which a file may not ask for; "
            "if you trust it, add --trust"
        )


def folder_name(env: str) -> str:
    """Return a folder name for an environment: `freedoom2-map01` for `freedoom2:MAP01`."""
    if env.lower().endswith((".cfg", ".wad")):
        env = Path(env).stem
    return re.sub(r"[^\w.-]+", "-", env.lower() if ":" in env else env)


def make(config: EnvConfig, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make the environment that a configuration describes.

    Raises:
        EnvError: If there is no such environment, a package for it is missing, or its spaces are
            not supported.
    """
    name = canonical_name(config.env)
    if game_spec(name) is not None:
        _refuse_options(_OTHER_OPTIONS, config, f"not an option of {name}, which is Doom")
        return DoomEnv(replace(config, env=name), render_mode)
    _refuse_options(_DOOM_OPTIONS, config, f"an option of Doom environments; {name} is not one")
    # Not every environment takes a render mode.
    options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    if name.startswith("ALE/"):
        # The emulator itself skips frames, which is faster, unless they are needed here.
        frames = frames_per_env_step(config)
        needs_frames = config.max_pool or config.noop_max > 0
        options["frameskip"] = 1 if needs_frames else frames
        config = replace(config, frame_skip=frames if needs_frames else 1)
    if render_mode == "rgb_array":
        # SDL, which draws the classic environments, must not look for a display.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        env = gym.make(name, **options)
    except gym.error.DependencyNotInstalled as error:
        extra = next((e for pattern, e in _EXTRAS.items() if re.match(pattern, name)), None)
        command = f'pip install -e ".[{extra}]"' if extra else str(error)
        raise EnvError(f"{name} needs a package that is missing: {command}") from error
    except Exception as error:
        raise EnvError(f"{name} could not be made: {error}") from error
    if isinstance(env.unwrapped, DoomEnv):
        _check_wrapped_doom(env, config)
        return env
    if re.match(r"MiniGrid-|BabyAI-", name):
        env = importlib.import_module("minigrid.wrappers").ImgObsWrapper(env)
    return adapt(env, config)


def _check_wrapped_doom(env: gym.Env[Any, Any], config: EnvConfig) -> None:
    """Check that neither options nor wrappers change the observations of a wrapped Doom.

    Raises:
        EnvError: If an option is set, or a wrapper changes the observation space.
    """
    for field in fields(EnvConfig):
        if field.name != "env" and getattr(config, field.name) != field.default:
            raise EnvError(f"{field.name} is decided by {config.env} itself; leave it out")
    if env.observation_space != env.unwrapped.observation_space:
        raise EnvError(
            f"{config.env} wraps Doom so that it observes {env.observation_space}; give options to "
            "gymnasium.make instead, such as frame_stack"
        )


def frames_per_env_step(config: EnvConfig) -> int:
    """Return the number of frames per env step."""
    skips_by_default = config.env.startswith("ALE/") or game_spec(config.env) is not None
    return config.frame_skip or (FRAME_SKIP if skips_by_default else 1)


def _import_package(env: str) -> None:
    """Import the package that registers an id with Gymnasium.

    Raises:
        EnvError: If it is not installed.
    """
    for pattern, (module, extra) in _PACKAGES.items():
        if re.match(pattern, env):
            try:
                package = importlib.import_module(module)
            except ImportError as error:
                message = f'{env} needs a package that is missing: pip install -e ".[{extra}]"'
                raise EnvError(message) from error
            gym.register_envs(package)


def _import_own(module: str) -> None:
    """Import a user's module, which is installed or in the current folder.

    Raises:
        EnvError: If it does not exist, or importing it fails.
    """
    # Scripts have their own folder on the path, not the current one. Workers inherit the path.
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        importlib.import_module(module)
    except Exception as error:  # A user's code can raise anything.
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            reason = "it is neither installed nor in the current folder"
        else:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise EnvError(f"the module {module} cannot be imported: {reason}") from error


def _unknown(name: str, prefix: str) -> str:
    """Return the message for an unknown name, with the closest one; a prefix ends with a colon."""
    names = [*gym.registry] if prefix else [*SCENARIOS, *DOOMGRAD_IDS, *gym.registry]
    lowered = {name.lower(): name for name in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.4)
    hint = f"try one of {', '.join(SCENARIOS)}"
    if close:
        hint = f"did you mean {prefix + lowered[close[0]]}?"
    return f"there is no environment called {prefix + name!r}; {hint}"
