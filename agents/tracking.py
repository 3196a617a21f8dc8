"""Experiment trackers: what goes into TensorBoard goes to Weights & Biases or to trackio as well.

Their files go into the run folder, unless WANDB_DIR or TRACKIO_DIR names another one. Nothing is
sent anywhere unless their own variables ask for it: WANDB_MODE, TRACKIO_SPACE_ID, ...
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import warnings
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TextIO

from stable_baselines3.common.logger import KVWriter

from agents.checkpoint import write_atomically
from agents.commandline import import_extra

TrackerName = Literal["wandb", "trackio"]
_PROJECT = "doomgrad"


def load_service(name: TrackerName, folder: Path) -> Any:
    """Import a service whose files are to go into a run folder.

    Raises:
        UsageError: If it is not installed.
    """
    if name == "wandb":
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder.resolve() / "wandb" / "cache"))
    else:
        # Read once, while it is imported.
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve() / "trackio"))
    return import_extra(name, name)


class Tracker(KVWriter):
    """Hands records on to a service. Whatever goes wrong there is said once, and stops nothing.

    The run is named after the last two folders, as in basic/ppo-seed0, and grouped by the first.

    Args:
        name: the service.
        folder: the run folder.
        config: what the run is made of.
        resumed: whether an earlier part of the run, if one was tracked, is gone on with.
        say: is called with lines for the user.
    """

    def __init__(
        self,
        name: TrackerName,
        folder: Path,
        config: Mapping[str, Any],
        *,
        resumed: bool,
        say: Callable[[str], None],
    ) -> None:
        self._name, self._say = name, say
        self._has_complained = False
        self._run: Any = None
        self._service = load_service(name, folder)
        self._show_warning = warnings.showwarning
        warnings.showwarning = self._on_warning
        group = folder.resolve().parent.name
        about = {
            "project": _PROJECT,
            "name": f"{group}/{folder.resolve().name}",
            "group": group,
            "config": json.loads(json.dumps(dict(config), default=str)),
        }
        begin = self._begin_wandb if name == "wandb" else self._begin_trackio
        self._attempt(lambda: begin(folder, about, resumed))

    def _begin_wandb(self, folder: Path, about: dict[str, Any], resumed: bool) -> None:
        id_file = folder / "wandb" / "id"
        known = resumed and id_file.is_file()
        identity = id_file.read_text() if known else secrets.token_hex(4)
        write_atomically(id_file, identity.encode())
        self._run = run = self._service.init(
            **about,
            id=identity,
            resume="allow" if known else None,
            mode=os.environ.get("WANDB_MODE", "offline"),
            dir=os.environ.get("WANDB_DIR", str(folder)),
            settings=self._service.Settings(console="off"),
        )
        self._say(f"tracked: {run.url or f'wandb sync {Path(run.dir).parent}'}")

    def _begin_trackio(self, folder: Path, about: dict[str, Any], resumed: bool) -> None:
        with _without_stdout():
            self._run = self._service.init(**about, resume="allow" if resumed else "never")
        self._say(f"tracked: TRACKIO_DIR={self._service.TRACKIO_DIR} trackio show")

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Hand on the numbers of one record."""
        run = self._run
        if run is not None:
            plain = {k: float(v) for k, v in key_values.items() if isinstance(v, Real)}
            self._attempt(lambda: run.log(plain, step=step))

    def close(self) -> None:
        """Hand on what is left, and end what the service has running."""
        if self._run is not None:
            with _without_stdout():
                self._attempt(self._service.finish)
        if self._name == "wandb":
            self._attempt(self._service.teardown)
        warnings.showwarning = self._show_warning

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # Whatever it raises, the training is worth more.
            self._run = None
            self._complain(error)

    def _on_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Say what trackio warns of, which is how it tells that something failed."""
        if Path(filename).is_relative_to(self._service.__path__[0]):
            self._complain(message)
        else:
            self._show_warning(message, category, filename, lineno, file, line)

    def _complain(self, problem: Exception | str) -> None:
        if self._has_complained:
            return
        self._has_complained = True
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        self._say(f"{self._name}: {lines[0]}; the training goes on, TensorBoard has it all")


def _without_stdout() -> contextlib.AbstractContextManager[Any]:
    """Keep back what trackio prints about its own doings."""
    return contextlib.redirect_stdout(io.StringIO())
