"""The names of environments, and how an environment is made from its name."""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import importlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from envs.actions import check_actions, with_plain_actions
from envs.config import EnvConfig
from envs.doom.cfg import game_spec, split_file
from envs.doom.env import FRAME_SKIP, DoomEnv
from envs.doom.maps import MAPS, PREFIX
from envs.doom.players import players_kind
from envs.doom.players.single import MatchEnv
from envs.doom.scenarios import FREEDOOM_MAPS, SCENARIOS, camel_case, name_here
from envs.errors import EnvError
from envs.native import Native, Reported
from envs.observations import Checked
from envs.own import are_simple, import_own, parse_kwargs, wrapped
from envs.pixels import adapt

# Gymnasium ids that another package registers: pattern -> (module, this project's extra).
_PACKAGES = {
    r"ALE/": ("ale_py", "atari"),
    r"(MiniGrid|BabyAI)-": ("minigrid", "minigrid"),
}
# Gymnasium's own environments that need another package: pattern -> this project's extra.
_EXTRAS = {r"(CarRacing|LunarLander|BipedalWalker)": "box2d"}
_CAR_RACING = "CarRacing-v3"
# Environments that hold an action for several frames themselves, and need not return each of them:
# pattern -> names of their arguments for the frames of a step and for the time limit in frames.
_HOLDING = {
    r"ALE/.*": ("frameskip", "max_num_frames_per_episode"),
    _CAR_RACING: ("frame_skip", "time_limit"),
}
# Options that only Doom environments have, and options that they do not have.
_DOOM_OPTIONS = (
    "extra_channels",
    "variables",
    "sound",
    "notifications",
    "enemy_in_view",
    "depth_targets",
    "kind_targets",
    "targets_every",
    "skill",
    "buttons",
    "actions",
    "delta_bins",
    "opponent",
    "shaping",
)
_OTHER_OPTIONS = ("max_pool", "noop_max", "fire_reset", "terminal_on_life_loss", "env_kwargs")
# Options of single-player Doom that matches do not have.
_NOT_IN_MATCHES = (
    "extra_channels",
    "sound",
    "notifications",
    "enemy_in_view",
    "depth_targets",
    "kind_targets",
    "buttons",
    "shaping",
    "wrappers",
)
# Options of an environment that is Doom in a wrapper of its own.
_OWN_DOOM_OPTIONS = ("env", "time_limit", "env_kwargs", "wrappers", "native_reward")
# A file may name these: those of our presets, from a package that making the environment imports.
TRUSTED_WRAPPERS = ("minigrid.wrappers:OneHotPartialObsWrapper",)
# Names of Atari games before ALE/..., such as PongNoFrameskip-v4, Pong-ram-v0, Pong-v4 and pong.
_OLD_ATARI = re.compile(r"(\w+?)(-ram)?(Deterministic|NoFrameskip)?(-v\d+)?")


def _doomgrad_ids() -> dict[str, str]:
    """Return the Gymnasium ids that this package registers, with the names of their scenarios."""
    ids = {f"doomgrad/{camel_case(name)}-v0": name for name in SCENARIOS}
    for game, maps in FREEDOOM_MAPS.items():
        ids |= {f"doomgrad/{game.capitalize()}{m}-v0": f"{game}:{m}" for m in maps}
    ids |= {f"doomgrad/Maps{camel_case(kind)}-v0": f"{PREFIX}{kind}" for kind in MAPS}
    return ids


DOOMGRAD_IDS = _doomgrad_ids()


def register() -> None:
    """Register every bundled scenario, Freedoom map and kind of maps with Gymnasium."""
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
    config = doom_config(env, options)
    _refuse_options(("wrappers",), config, "for `train.py`; wrap what gymnasium.make returns")
    return DoomEnv(config, render_mode)


# Gymnasium reads it from the entry point, to know which render modes it must add.
make_doom.metadata = {"render_modes": ["rgb_array"]}  # type: ignore[attr-defined] # of a function


def doom_config(env: str, options: Mapping[str, Any]) -> EnvConfig:
    """Return the configuration of a Doom environment with the given options.

    Args:
        env: a scenario, a Freedoom map, generated maps, or a path to a .cfg or .wad.
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
        file = split_file(env)
        if file is None:
            return env
        # An absolute path, so that the file is found from any working directory.
        return f"{file[0].resolve()}:{file[1].upper()}".removesuffix(":")
    module, colon, name = env.rpartition(":")
    if module in ("gymnasium", _module_of(name)):  # `minigrid:MiniGrid-...` is `MiniGrid-...`
        env, module, colon = name, "", ""
    _import_package(env)
    if module:  # `package:Name-v0`: importing the package registers the id
        import_own(module)
    try:
        spec = gym.spec(name)
    except gym.error.Error as error:
        raise EnvError(_unknown(name, module + colon)) from error
    if _is_old_atari(spec):
        raise EnvError(_unknown(name, ""))
    return env


def is_imported(env: str) -> bool:
    """Return whether a name is of the form `package:Name-v0`: making it imports the package.

    Raises:
        EnvError: If it names a file or a map that does not exist.
    """
    return ":" in env and game_spec(env) is None


def needs_trust(config: EnvConfig) -> bool:
    """Return whether an environment is made by code, or from arguments, that a user must trust.

    Raises:
        EnvError: If it names a file or a map that does not exist.
    """
    simple = are_simple(config.env_kwargs)
    return is_imported(config.env) or bool(_strange_wrappers(config)) or not simple


def _strange_wrappers(config: EnvConfig) -> list[str]:
    return [wrapper for wrapper in config.wrappers if wrapper not in TRUSTED_WRAPPERS]


def check_no_import(config: EnvConfig) -> None:
    """Check that making an environment that a file describes needs no trust.

    Raises:
        EnvError: If it imports a module, or has arguments that may be harmful.
    """
    if not needs_trust(config):
        return
    modules = [config.env.rpartition(":")[0]] if is_imported(config.env) else []
    modules += [wrapper.partition(":")[0] for wrapper in _strange_wrappers(config)]
    by = f"by importing {' and '.join(dict.fromkeys(modules))}"
    if not modules:
        by = f"with the arguments {' '.join(config.env_kwargs)!r:.60}"
    raise EnvError(
        f"{config.env} is made {by}, which a file may not ask for; if you trust it, add --trust"
    )


def folder_name(env: str) -> str:
    """Return a folder name for an environment: `freedoom2-map01` for `freedoom2:MAP01`."""
    if file := split_file(env):
        env = f"{file[0].stem}:{file[1]}".removesuffix(":")
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
        if players_kind(name) is not None:
            _refuse_options(_NOT_IN_MATCHES, config, f"not an option of {name}, which is a match")
            return MatchEnv(replace(config, env=name), render_mode)
        _refuse_options(("opponent",), config, f"an option of matches; {name} is not one")
        doom = DoomEnv(replace(config, env=name), render_mode)
        return _wrapped_doom(doom, config) if config.wrappers else doom
    _refuse_options(_DOOM_OPTIONS, config, f"an option of Doom environments; {name} is not one")
    env = _make_other(name, config, render_mode)
    if isinstance(env.unwrapped, DoomEnv):
        decided = [f.name for f in fields(EnvConfig) if f.name not in _OWN_DOOM_OPTIONS]
        _refuse_options(decided, config, f"decided by {config.env} itself; leave it out")
        env.unwrapped.time_limit = config.time_limit or env.unwrapped.time_limit
        return _wrapped_doom(env, config)
    if _holds_actions(name):
        frames = frames_per_env_step(config) if _needs_frames(config) else 1
        config = replace(config, frame_skip=frames)
    native = Native(env, name)
    return adapt(wrapped(native, config.wrappers), replace(config, env=name), native)


def _make_other(name: str, config: EnvConfig, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make a Gymnasium environment, as it is registered.

    Raises:
        EnvError: If a package for it is missing, or it cannot be made.
    """
    # Not every environment takes a render mode.
    options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    given = parse_kwargs(config.env_kwargs)
    if name == _CAR_RACING and (own := given.keys() & {*_HOLDING[name]}):
        flag = min(own).replace("_", "-")
        raise EnvError(f"{name} has no argument {min(own)}; use --{flag}")
    options |= given
    frame_skip, time_limit = _holds_actions(name) or ("", "max_episode_steps")
    if frame_skip:
        options[frame_skip] = 1 if _needs_frames(config) else frames_per_env_step(config)
    if config.time_limit is not None:
        options[time_limit] = config.time_limit
    if render_mode == "rgb_array":
        # SDL, which draws the classic environments, must not look for a display.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        return gym.make(_faster(name) or name, **options)
    except gym.error.DependencyNotInstalled as error:
        extra = next((e for pattern, e in _EXTRAS.items() if re.match(pattern, name)), None)
        command = f'pip install -e ".[{extra}]"' if extra else str(error)
        raise EnvError(f"{name} needs a package that is missing: {command}") from error
    except Exception as error:
        raise EnvError(f"{name} could not be made: {' '.join(str(error).split())}") from error


def _holds_actions(name: str) -> tuple[str, str] | None:
    """Return the arguments of an environment that holds actions itself, see `_HOLDING`."""
    return next((names for kind, names in _HOLDING.items() if re.fullmatch(kind, name)), None)


def _faster(name: str) -> EnvSpec | None:
    """Return the specification of our faster version of an environment, None if there is none."""
    if name != _CAR_RACING:
        return None
    spec = copy.deepcopy(gym.spec(name))
    spec.entry_point = "envs.car_racing:CarRacing"
    # It counts frames itself, because several of them are one step.
    spec.kwargs["time_limit"], spec.max_episode_steps = spec.max_episode_steps, None
    return spec


def _needs_frames(config: EnvConfig) -> bool:
    """Return whether frames are stepped here, one by one, although the environment could."""
    # Gymnasium's CarRacing returns every frame to a user's wrappers; Atari's emulator does not.
    wraps_frames = config.env == _CAR_RACING and bool(config.wrappers)
    return config.max_pool or config.noop_max > 0 or wraps_frames


def _wrapped_doom(env: gym.Env[Any, Any], config: EnvConfig) -> gym.Env[Any, Any]:
    """Return Doom in a user's wrappers.

    Raises:
        EnvError: If a wrapper fails, or changes the observation space.
    """
    doom = env.unwrapped
    assert isinstance(doom, DoomEnv)
    env = wrapped(env, config.wrappers)
    if env.observation_space != doom.observation_space:
        raise EnvError(
            f"{config.env} wraps Doom so that it observes {env.observation_space}; wrappers may "
            "change what Doom observes, but not its shape; give options instead, such as "
            "frame_stack"
        )
    check_actions(env.action_space, config.env)
    env = with_plain_actions(Checked(env, config.env))
    return Reported(env, doom, config.env, native_reward=config.native_reward)


def is_plain_doom(config: EnvConfig) -> bool:
    """Return whether an environment is Doom for one player, without wrappers: deterministic.

    Raises:
        EnvError: If it names a file or a map that does not exist.
    """
    is_match = players_kind(config.env) is not None
    return game_spec(config.env) is not None and not is_match and not config.wrappers


def own_time_limit(env: str, env_kwargs: tuple[str, ...] = ()) -> int | None:
    """Return after how many frames an environment itself truncates an episode, if that is known.

    Args:
        env: the environment's name.
        env_kwargs: arguments with which it is made.

    Raises:
        EnvError: If there is no such environment.
    """
    name = canonical_name(env)
    doom = game_spec(name) or _doom_inside(name, env_kwargs)
    if doom is not None:
        return doom.time_limit
    spec = gym.spec(name.rpartition(":")[2])
    limit: int | None = spec.kwargs.get("max_num_frames_per_episode", spec.max_episode_steps)
    return limit


def frames_per_env_step(config: EnvConfig) -> int:
    """Return the number of frames per env step."""
    skips_by_default = config.env.startswith("ALE/") or game_spec(config.env) is not None
    if config.frame_skip is None and not skips_by_default:
        doom = _doom_inside(config.env, config.env_kwargs)
        return 1 if doom is None else doom.frame_skip
    return config.frame_skip or FRAME_SKIP


@dataclass(frozen=True)
class _DoomInside:
    """What Doom has that a user's package makes."""

    time_limit: int | None
    frame_skip: int


@functools.cache
def _doom_inside(name: str, env_kwargs: tuple[str, ...]) -> _DoomInside | None:
    """Return what an environment of a user's package has, if it is Doom inside.

    Raises:
        EnvError: If it cannot be made.
    """
    if not is_imported(name):
        return None
    with contextlib.closing(_make_other(name, EnvConfig(env=name, env_kwargs=env_kwargs))) as env:
        doom = env.unwrapped
        if not isinstance(doom, DoomEnv):
            return None
        return _DoomInside(doom.time_limit, doom.frame_skip)


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


def _module_of(name: str) -> str | None:
    """Return the module that registers an id of one of the extras, or None."""
    return next((m for pattern, (m, _) in _PACKAGES.items() if re.match(pattern, name)), None)


def _unknown(name: str, prefix: str) -> str:
    """Return the message for an unknown name, with the closest one; a prefix ends with a colon."""
    if not prefix and (ours := name_here(name)):
        return f"there is no environment called {name!r}; did you mean {ours}?"
    atari = None if prefix else _atari_name(name)
    known = [env_id for env_id, spec in gym.registry.items() if not _is_old_atari(spec)]
    names = known if prefix else [*SCENARIOS, *DOOMGRAD_IDS, *known]
    lowered = {name.lower(): name for name in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.4)
    hint = f"try one of {', '.join(SCENARIOS)}"
    if atari or close:
        hint = f"did you mean {atari or prefix + lowered[close[0]]}?"
    return f"there is no environment called {prefix + name!r}; {hint}"


def _is_old_atari(spec: Any) -> bool:
    """Return whether an id is one of those of Atari games that newer ones have replaced."""
    return str(spec.entry_point).startswith("ale_py") and not spec.id.startswith("ALE/")


def _atari_name(name: str) -> str | None:
    """Return today's name of an Atari game that is called as in OpenAI Gym, or None."""
    old = _OLD_ATARI.fullmatch(name)
    if not old:
        return None
    env = f"ALE/{old[1]}-v5"
    try:
        _import_package(env)
    except EnvError:  # Without the emulator, only these endings tell that it is a game.
        return env if old[2] or old[3] else None
    return next((known for known in gym.registry if known.lower() == env.lower()), None)
