"""Reads ViZDoom .cfg files, which may come from untrusted sources, with an allow-list of keys.

The engine's own loader obeys keys that name an executable to start (`vizdoom_path`) and arbitrary
arguments for it; here such a file is refused. Keys about the screen, the window and the mode are
ignored, because this project sets those itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import vizdoom

from envs.doom.scenarios import FREEDOOM_BUTTONS, FREEDOOM_MAPS, SCENARIOS
from envs.doom.wad import first_map, maps, read_directory
from envs.errors import EnvError

BUNDLED = Path(vizdoom.scenarios_path).resolve()
ENGINE_FOLDER = BUNDLED.parent
FREEDOOM2 = ENGINE_FOLDER / "freedoom2.wad"

# Setters of DoomGame that a .cfg may call, without `set_`, with the type of their value.
_REWARDS = (
    "living_reward",
    "death_reward",
    "map_exit_reward",
    "kill_reward",
    "secret_reward",
    "item_reward",
    "frag_reward",
    "hit_reward",
    "hit_taken_reward",
    "damage_made_reward",
    "damage_taken_reward",
    "health_reward",
    "armor_reward",
    "death_penalty",
    "hit_taken_penalty",
    "damage_taken_penalty",
)
_RENDERING = (
    "render_hud",
    "render_minimal_hud",
    "render_weapon",
    "render_crosshair",
    "render_decals",
    "render_particles",
    "render_effects_sprites",
    "render_messages",
    "render_corpses",
    "render_screen_flashes",
)
_SETTINGS: dict[str, type[int] | type[float] | type[bool]] = {
    "doom_skill": int,
    "episode_start_time": int,
    **dict.fromkeys(_REWARDS, float),
    **dict.fromkeys(_RENDERING, bool),
}
# Keys that are read here.
_READ_KEYS = {
    "doom_scenario_path",
    "doom_game_path",
    "doom_map",
    "episode_timeout",
    "available_buttons",
    "available_game_variables",
    "game_args",
}
# Keys that are ignored, because this project decides what they set; they do not affect the rules.
_IGNORED_KEYS = {
    "screen_resolution",
    "screen_format",
    "window_visible",
    "mode",
    "seed",
    "ticrate",
    "sound_enabled",
    "console_enabled",
    "render_all_frames",
    "objects_info_enabled",
    "sectors_info_enabled",
    "depth_buffer_enabled",
    "labels_buffer_enabled",
    "automap_buffer_enabled",
    "automap_mode",
    "automap_rotate",
    "automap_render_textures",
    "automap_render_objects_as_sprites",
    "audio_buffer_enabled",
    "audio_buffer_size",
    "audio_sampling_rate",
    "notifications_buffer_enabled",
    "notifications_buffer_size",
}
# The only engine arguments that a .cfg may give: whether shots are aimed automatically.
_HARMLESS_ARGUMENTS = re.compile(r"(\+sv_noautoaim [01]\s*)*")
# Keys may be written with or without underscores.
_KEYS = {key.replace("_", ""): key for key in (*_SETTINGS, *_READ_KEYS, *_IGNORED_KEYS)}
_MAX_BYTES = 65_536  # Larger files are not .cfg files.
_WAD_TIME_LIMIT = 10_500  # Tics, five minutes, for a WAD without a .cfg.
_MAX_NUMBER = 1_000_000  # With a later `episode_start_time` the engine would hang for minutes.
_VALUES = {
    int: f"an integer from 0 to {_MAX_NUMBER:,}",
    float: f"a number from -{_MAX_NUMBER:,} to {_MAX_NUMBER:,}",
    bool: "true or false",
}


@dataclass(frozen=True, kw_only=True)
class GameSpec:
    """What an engine plays.

    Attributes:
        cfg: the file from which the specification was read, if any.
        wad: the scenario's WAD; None if the map is in the IWAD.
        iwad: the game's WAD, with graphics, sounds and palette.
        map: the map's name.
        buttons: engine buttons.
        variables: game variables that an agent may observe.
        time_limit: tics until truncation; None if the file sets no limit.
        settings: setters of DoomGame (without `set_`) and their values.
        arguments: arguments for the engine.
    """

    cfg: Path | None = None
    wad: Path | None = None
    iwad: Path = FREEDOOM2
    map: str = "map01"
    buttons: tuple[str, ...] = FREEDOOM_BUTTONS
    variables: tuple[str, ...] = ("HEALTH", "ARMOR", "SELECTED_WEAPON_AMMO")
    time_limit: int | None = None
    settings: dict[str, float] = field(default_factory=dict)
    arguments: str = ""


def game_spec(env: str) -> GameSpec | None:
    """Return what the engine plays for a scenario, a Freedoom map, a .cfg or a .wad.

    Args:
        env: an environment's name.

    Returns:
        The specification, or None if the name is not one of a Doom environment.

    Raises:
        EnvError: If the map or the file does not exist, or cannot be read.
    """
    if env in SCENARIOS:
        scenario = SCENARIOS[env]
        return replace(read_cfg(BUNDLED / f"{env}.cfg"), time_limit=scenario.time_limit)
    game, _, map_name = env.partition(":")
    if game in FREEDOOM_MAPS:
        if map_name.upper() not in FREEDOOM_MAPS[game]:
            maps = FREEDOOM_MAPS[game]
            raise EnvError(
                f"{game} has no map {map_name!r}; it has {game}:{maps[0]} to {game}:{maps[-1]}"
            )
        spec = read_cfg(BUNDLED / f"{game}.cfg")
        return replace(spec, map=map_name.upper(), variables=GameSpec().variables)
    if env.lower().endswith(".cfg"):
        return read_cfg(Path(env))
    if env.lower().endswith(".wad"):
        return GameSpec(
            wad=Path(env).resolve(), map=first_map(Path(env)), time_limit=_WAD_TIME_LIMIT
        )
    return None


def read_cfg(path: Path) -> GameSpec:
    """Read a ViZDoom .cfg.

    Raises:
        EnvError: If the file is missing or not a .cfg, names a WAD that is missing, or sets
            something that is not allowed.
    """
    values = _parse(path)
    settings: dict[str, float] = {}
    for key, kind in _SETTINGS.items():
        if key in values:
            settings[key] = _convert(path, key, values[key], kind)
    arguments = values.get("game_args", "")
    if not _HARMLESS_ARGUMENTS.fullmatch(arguments):
        raise EnvError(
            f"{path}: the engine arguments {arguments!r} are not allowed; a .cfg may only set "
            "+sv_noautoaim to 0 or 1"
        )
    iwad = FREEDOOM2
    if "doom_game_path" in values:
        iwad = _find_wad(path, values["doom_game_path"])
    wad = None
    if "doom_scenario_path" in values:
        wad = _find_wad(path, values["doom_scenario_path"])
    # The name of a map that does not exist would hang the engine, or be taken for a command.
    own = (maps(wad) if wad else []) or maps(iwad)
    if not own:
        raise EnvError(f"{path}: its WADs contain no map")
    map_name = values.get("doom_map", "map01" if "MAP01" in own else own[0])
    if map_name.upper() not in (*own, *maps(iwad)):
        raise EnvError(f"{path}: its WADs contain no map {map_name[:60]!r}; the first is {own[0]}")
    buttons = _names(path, values.get("available_buttons", ""), vizdoom.Button)
    if not buttons:
        raise EnvError(f"{path} sets no available_buttons; list at least one, such as ATTACK")
    time_limit = int(_convert(path, "episode_timeout", values.get("episode_timeout", "0"), int))
    return GameSpec(
        cfg=path,
        wad=wad,
        iwad=iwad,
        map=map_name,
        buttons=buttons,
        variables=_names(path, values.get("available_game_variables", ""), vizdoom.GameVariable),
        time_limit=time_limit or None,
        settings=settings,
        arguments=arguments,
    )


def _parse(path: Path) -> dict[str, str]:
    """Parse `key = value`, `key += value` and `key = { several values }`; the last value counts."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise EnvError(f"{path} is too large to be a ViZDoom .cfg")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EnvError(f"there is no ViZDoom .cfg at {path}") from None
    except (UnicodeDecodeError, OSError):
        raise EnvError(f"{path} is not a ViZDoom .cfg: it is not readable text") from None
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    # Values in braces may span lines.
    text = re.sub(r"\s*\{([^}]*)\}", lambda match: " " + " ".join(match.group(1).split()), text)
    values: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(\w+)\s*(\+?=)(.*)", line)
        key = _KEYS.get(match.group(1).lower().replace("_", "")) if match else None
        if match is None or key is None:
            raise EnvError(
                f"{path} cannot be loaded: the line {line.strip()[:60]!r} is not allowed; allowed "
                "keys are those of ViZDoom's own scenarios"
            )
        value = match.group(3).strip()
        values[key] = (
            f"{values[key]} {value}" if match.group(2) == "+=" and key in values else value
        )
    if not values:
        raise EnvError(f"{path} is not a ViZDoom .cfg: it sets nothing")
    return values


def _convert(path: Path, key: str, text: str, kind: type[int] | type[float] | type[bool]) -> float:
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        number = kind(text)
        if not (0 if kind is int else -_MAX_NUMBER) <= number <= _MAX_NUMBER:
            raise ValueError
        return number
    except (KeyError, ValueError):
        raise EnvError(f"{path}: {key} must be {_VALUES[kind]}, not {text!r}") from None


def _names(path: Path, text: str, kind: type) -> tuple[str, ...]:
    names = text.upper().split()
    for name in names:
        if name not in kind.__members__:  # type: ignore[attr-defined] # a pybind11 enum has it
            raise EnvError(f"{path}: {name} is not a vizdoom.{kind.__name__}")
    return tuple(dict.fromkeys(names))


def _find_wad(path: Path, name: str) -> Path:
    """Return the path of a WAD that is beside the .cfg that names it, or bundled with ViZDoom."""
    folders = (path.resolve().parent, BUNDLED, ENGINE_FOLDER)
    for folder in folders:
        candidate = (folder / name.strip("'\"")).resolve()
        if candidate.is_file():
            if not any(map(candidate.is_relative_to, folders)):
                raise EnvError(f"{path} names a WAD outside its folder: {name}; move it there")
            read_directory(candidate)
            return candidate
    raise EnvError(f"{path} names a WAD that does not exist: {name}; put it beside the .cfg")


def strange_wads(env: str) -> list[Path]:
    """Return the WADs of an environment that do not come with ViZDoom."""
    spec = game_spec(env)
    wads = [wad for wad in (spec.wad, spec.iwad) if wad is not None] if spec else []
    return [wad for wad in wads if wad.resolve().parent not in (BUNDLED, ENGINE_FOLDER)]
