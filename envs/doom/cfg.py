"""Reads ViZDoom .cfg files, which may come from untrusted sources, with an allow-list of keys.

The engine's own loader obeys keys that name an executable to start (`vizdoom_path`) and arbitrary
arguments for it; here such a file is refused. Keys about the screen, the window and the mode are
ignored, because this project sets those itself.
"""

from __future__ import annotations

import codecs
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import vizdoom

from envs.doom.maps import MAPS, kind_of
from envs.doom.players import players_kind
from envs.doom.scenarios import FREEDOOM_BUTTONS, FREEDOOM_MAPS, SCENARIOS
from envs.doom.wad import maps, read_directory
from envs.errors import EnvError
from envs.files import open_regular

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
_PATHS = ("doom_scenario_path", "doom_game_path")
# What names a file: with a map behind a colon, if it is not to be the file's own choice.
_FILE = re.compile(r"(.+\.(?:cfg|wad|pk3|ipk3|pk7|zip))(?::(.*))?", re.IGNORECASE | re.DOTALL)
_LEVEL = re.compile(r"E\dM\d|MAP\d\d", re.IGNORECASE)
_ARCHIVES = (".pk3", ".ipk3", ".pk7", ".zip")
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
        wad: the scenario's WAD; None if the map is in the IWAD, or generated.
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
    """Return what the engine plays for a scenario, a Freedoom map, generated maps, a match, a file.

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
    if (kind := kind_of(env)) is not None:
        rules = MAPS[kind][1].rules
        return GameSpec(
            buttons=rules.buttons,
            variables=rules.variables,
            time_limit=rules.time_limit,
            settings={"render_hud": False, **rules.settings},
        )
    if (match := players_kind(env)) is not None:
        return GameSpec(
            buttons=match.buttons,
            variables=match.variables,
            time_limit=match.time_limit,
            settings={"render_hud": False, **match.settings},
        )
    game, _, map_name = env.partition(":")
    if game in FREEDOOM_MAPS:
        if map_name.upper() not in FREEDOOM_MAPS[game]:
            first, last = FREEDOOM_MAPS[game][0], FREEDOOM_MAPS[game][-1]
            raise EnvError(
                f"{game} has no map {map_name!r}; it has {game}:{first} to {game}:{last}"
            )
        spec = read_cfg(BUNDLED / f"{game}.cfg")
        return replace(spec, map=map_name.upper(), variables=GameSpec().variables)
    if game in ("doom", "doom2") and _LEVEL.fullmatch(map_name):
        raise EnvError(
            f"{env} is of a game that is sold: name the file of its WAD, as {game}.wad:{map_name}"
        )
    file = split_file(env)
    if file is None:
        return None
    path, own_map = file
    if path.name in os.listdir(BUNDLED) and not os.path.exists(path):
        is_scenario = path.stem in SCENARIOS
        bundled = f"the scenario {path.stem}" if is_scenario else str(BUNDLED / path.name)
        raise EnvError(f"there is no file {path}; did you mean {bundled}?")
    if path.suffix.lower() == ".cfg":
        return read_cfg(path, own_map)
    names = maps(path)
    if not names:
        raise EnvError(f"{path} contains no map")
    if own_map and own_map.upper() not in names:
        raise EnvError(f"{path} has no map {own_map[:60]!r}; it has {', '.join(names[:40])}")
    return GameSpec(
        wad=path.resolve(),
        map=own_map.upper() if own_map else names[0],
        time_limit=_WAD_TIME_LIMIT,
    )


def split_file(env: str) -> tuple[Path, str] | None:
    """Return the file that an environment's name names, and the map behind it, `""` if none.

    Returns:
        The path of a .cfg or .wad, and the map, as in `two.wad:MAP02`; None if it names no file.

    Raises:
        EnvError: If no file can have this name, or it is an archive, which is not supported.
    """
    match = _FILE.fullmatch(env)
    if match is None:
        return None
    name, own_map = match[1], match[2] or ""
    try:
        if "\0" in name.encode().decode():
            raise ValueError("no file's name contains it")
    except ValueError:
        raise EnvError(f"{name[:60]!r} is not the name of a file") from None
    if name.lower().endswith(_ARCHIVES):
        raise EnvError(f"{name}: {Path(name).suffix} is not supported; a .wad is")
    return Path(name), own_map


def read_cfg(path: Path, own_map: str = "") -> GameSpec:
    """Read a ViZDoom .cfg.

    Args:
        path: the file.
        own_map: name of the map, if it is not the file's own.

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
    map_name = own_map or values.get("doom_map", "map01" if "MAP01" in own else own[0])
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
        with open_regular(path, _MAX_BYTES) as file:
            text = _decode(file.read())
    except FileNotFoundError:
        raise EnvError(f"there is no ViZDoom .cfg at {path}") from None
    except EnvError:
        raise
    except (ValueError, OSError):
        raise EnvError(f"{path} is not a ViZDoom .cfg: it is not readable text") from None
    text = re.sub(r"^[^\S\n]*#.*$", "", text, flags=re.MULTILINE)
    values: dict[str, str] = {}
    for line in _without_braces(text).splitlines():
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
        if "#" in value and key not in (*_PATHS, *_IGNORED_KEYS):
            comment = value[value.index("#") :][:60]
            raise EnvError(
                f"{path}: the value of {key} is followed by {comment!r}; a comment needs a line of "
                "its own"
            )
        values[key] = (
            f"{values[key]} {value}" if match.group(2) == "+=" and key in values else value
        )
    if not values:
        raise EnvError(f"{path} is not a ViZDoom .cfg: it sets nothing")
    return values


def _without_braces(text: str) -> str:
    """Return a text in which values in braces, which may span lines, are on the line before."""
    first, *groups = text.split("{")
    parts = [first]
    for group in groups:
        inside, closed, after = group.partition("}")
        if closed:
            parts[-1] = parts[-1].rstrip()
            parts += [" " + " ".join(inside.split()), after]
        else:
            parts.append("{" + group)
    return "".join(parts)


def _decode(content: bytes) -> str:
    """Decode UTF-8 or UTF-16 with a byte order mark, UTF-8, or else Latin-1, as ViZDoom does.

    Raises:
        ValueError: If it is not text.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    if b"\0" in content:
        raise ValueError("text has no null characters")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


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
    """Return the path of a WAD that is beside the .cfg that names it, or bundled with ViZDoom.

    A WAD that the .cfg names in another folder may also be beside the .cfg itself.
    """
    folders = (path.resolve().parent, BUNDLED, ENGINE_FOLDER)
    name = name.strip("'\"")
    if name.lower().endswith(_ARCHIVES):
        raise EnvError(f"{path} names {name}: {Path(name).suffix} is not supported; a .wad is")
    outside, shown = False, name[:100]
    for candidate in (*(folder / name for folder in folders), folders[0] / Path(name).name):
        found = _file_at(candidate)
        if found is None:
            continue
        if any(map(found.is_relative_to, folders)):
            read_directory(found)
            return found
        outside = True
    if outside:
        raise EnvError(f"{path} names a WAD outside its folder: {shown}; move it there")
    comment = ", and comments into lines of their own" if "#" in name else ""
    raise EnvError(
        f"{path} names a WAD that does not exist: {shown}; put it beside the .cfg{comment}"
    )


def _file_at(path: Path) -> Path | None:
    """Return where a file really is; None if there is none, or none can have this name."""
    try:
        found = path.resolve()
        return found if found.is_file() else None
    except (OSError, RuntimeError):  # The latter for links that lead in a circle.
        return None


def strange_wads(env: str) -> list[Path]:
    """Return the WADs of an environment that do not come with ViZDoom."""
    spec = game_spec(env)
    wads = [wad for wad in (spec.wad, spec.iwad) if wad is not None] if spec else []
    return [wad for wad in wads if wad.resolve().parent not in (BUNDLED, ENGINE_FOLDER)]
