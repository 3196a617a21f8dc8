"""Reading a ViZDoom .cfg, which may come from a stranger, through an allow-list of keys.

The engine's own loader obeys keys that name an executable to start (`vizdoom_path`) and arbitrary
arguments for it; here such a file is refused. Keys about the screen, the window and the mode are
ours to decide and passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import vizdoom

from envs.errors import EnvError
from envs.scenarios import FREEDOOM_BUTTONS, FREEDOOM_MAPS, SCENARIOS
from envs.wad import first_map, maps, read_directory

BUNDLED = Path(vizdoom.scenarios_path).resolve()
ENGINE_FOLDER = BUNDLED.parent
FREEDOOM2 = ENGINE_FOLDER / "freedoom2.wad"

# Setters of DoomGame that a .cfg may call, without `set_`, with the type of their value.
_REWARDS = (
    *(f"{event}_reward" for event in ("living", "death", "map_exit", "kill", "secret", "item")),
    *(f"{event}_reward" for event in ("frag", "hit", "hit_taken", "damage_made", "damage_taken")),
    *("health_reward", "armor_reward"),
    *("death_penalty", "hit_taken_penalty", "damage_taken_penalty"),
)
_RENDERING = tuple(
    f"render_{part}"
    for part in (
        *("hud", "minimal_hud", "weapon", "crosshair", "decals", "particles"),
        *("effects_sprites", "messages", "corpses", "screen_flashes"),
    )
)
_SETTINGS: dict[str, type[int] | type[float] | type[bool]] = {
    "doom_skill": int,
    "episode_start_time": int,
    **dict.fromkeys(_REWARDS, float),
    **dict.fromkeys(_RENDERING, bool),
}
_OWN_KEYS = {"doom_scenario_path", "doom_game_path", "doom_map", "episode_timeout"}
_OWN_KEYS |= {"available_buttons", "available_game_variables", "game_args"}
# Ours to decide: these have no effect on the game's rules.
_PASSED_OVER = {
    *("screen_resolution", "screen_format", "window_visible", "mode", "seed", "ticrate"),
    *("sound_enabled", "console_enabled", "render_all_frames", "objects_info_enabled"),
    *("depth_buffer_enabled", "labels_buffer_enabled", "automap_buffer_enabled"),
    *("audio_buffer_enabled", "audio_buffer_size", "audio_sampling_rate"),
    *("notifications_buffer_enabled", "notifications_buffer_size", "sectors_info_enabled"),
    *("automap_mode", "automap_rotate", "automap_render_textures"),
    "automap_render_objects_as_sprites",
}
# The only engine arguments a .cfg may give: whether shots aim by themselves.
_HARMLESS_ARGUMENTS = re.compile(r"(\+sv_noautoaim [01]\s*)*")
# Keys may be written with or without underscores; a .cfg larger than this is not one.
_KEYS = {key.replace("_", ""): key for key in (*_SETTINGS, *_OWN_KEYS, *_PASSED_OVER)}
_MAX_BYTES = 65_536
_WAD_TIME_LIMIT = 10_500  # Five minutes, for a WAD that comes without a .cfg.
_MAX_NUMBER = 1_000_000  # An engine told to start at a later tic would not come back for minutes.


@dataclass(frozen=True, kw_only=True)
class GameSpec:
    """What the engine is told to play.

    Attributes:
        cfg: the file all this was read from, if there is one.
        wad: the scenario's WAD; None plays the IWAD itself.
        iwad: the game's WAD, which brings graphics, sounds and palette.
        map: the map's name.
        buttons: engine buttons.
        variables: game variables that an agent may observe.
        time_limit: tics until truncation; None if the file sets none.
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
    """Look up what the engine plays for a scenario, a Freedoom map, a .cfg or a .wad.

    Returns:
        The specification, or None if `env` names no world of Doom.

    Raises:
        EnvError: If it names one that does not exist or cannot be read.
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
        EnvError: If it is missing, is not a .cfg, names a WAD that is missing, or asks for what a
            file may not ask for.
    """
    values = _parse(path)
    settings: dict[str, float] = {}
    for key, kind in _SETTINGS.items():
        if key in values:
            settings[key] = _convert(path, key, values[key], kind)
    arguments = values.get("game_args", "")
    if not _HARMLESS_ARGUMENTS.fullmatch(arguments):
        raise EnvError(f"{path} asks for engine arguments, which a file may not: {arguments!r}")
    iwad = FREEDOOM2
    if "doom_game_path" in values:
        iwad = _find_wad(path, values["doom_game_path"])
    wad = None
    if "doom_scenario_path" in values:
        wad = _find_wad(path, values["doom_scenario_path"])
    # A name that is no map's would hang the engine, or be a command to it.
    own = (maps(wad) if wad else []) or maps(iwad)
    if not own:
        raise EnvError(f"{path} names WADs that hold no map")
    map_name = values.get("doom_map", "map01" if "MAP01" in own else own[0])
    if map_name.upper() not in (*own, *maps(iwad)):
        raise EnvError(f"{path}: there is no map {map_name[:60]!r}; there is {own[0]}")
    buttons = _names(path, values.get("available_buttons", ""), vizdoom.Button)
    if not buttons:
        raise EnvError(f"{path} names no available_buttons, so nothing could be played")
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
    """Read `key = value`, `key += value` and `key = { several values }`; the last one counts."""
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
                f"{path} is not a .cfg that may be loaded: {line.strip()[:60]!r} is not allowed; "
                "see the keys in ViZDoom's own scenarios"
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
        raise EnvError(f"{path}: {key} = {text!r} is not a {kind.__name__}") from None


def _names(path: Path, text: str, kind: type) -> tuple[str, ...]:
    names = text.upper().split()
    for name in names:
        if name not in kind.__members__:  # type: ignore[attr-defined] # a pybind11 enum has it
            raise EnvError(f"{path}: {name} is not one of ViZDoom's {kind.__name__}s")
    return tuple(dict.fromkeys(names))


def _find_wad(path: Path, name: str) -> Path:
    """Find a WAD beside the .cfg that names it, or among the bundled ones."""
    folders = (path.resolve().parent, BUNDLED, ENGINE_FOLDER)
    for folder in folders:
        candidate = (folder / name.strip("'\"")).resolve()
        if candidate.is_file():
            if not any(map(candidate.is_relative_to, folders)):
                raise EnvError(f"{path} names a WAD outside its folder: {name}; put it beside it")
            read_directory(candidate)
            return candidate
    raise EnvError(f"{path} names a WAD that is not there: {name} (looked beside the .cfg)")


def strange_wads(env: str) -> list[Path]:
    """List the WADs of a world that do not come with ViZDoom."""
    spec = game_spec(env)
    wads = [wad for wad in (spec.wad, spec.iwad) if wad is not None] if spec else []
    return [wad for wad in wads if wad.resolve().parent not in (BUNDLED, ENGINE_FOLDER)]
