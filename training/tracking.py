"""Experiment trackers: the scalars in TensorBoard are also logged to Weights & Biases or trackio.

Their files are written into the run folder, unless WANDB_DIR or TRACKIO_DIR names another one. They
make no network requests unless their own environment variables (WANDB_MODE, TRACKIO_SPACE_ID, ...)
ask for it.
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

from agents.extras import import_extra
from storage.files import read_regular, write_atomically

TrackerName = Literal["wandb", "trackio"]
_PROJECT = "doomgrad"


def load_service(name: TrackerName, folder: Path) -> Any:
    """Import a service, so that it writes its files into a run folder.

    Raises:
        MissingExtraError: If it is not installed.
    """
    if name == "wandb":
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder.resolve() / "wandb" / "cache"))
    else:
        # trackio reads it once, while it is imported.
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve() / "trackio"))
    return import_extra(name, name)


class Tracker(KVWriter):
    """Logs records to a service. Its first error is reported; no error stops a training run.

    The run is named after the last two folders of its path, as in basic/ppo-seed0, and its group
    after the first of them.

    Args:
        name: the service.
        folder: the run folder.
        config: the configuration of the run by dotted name.
        resumed: whether the run resumes; its earlier part, if it was tracked, is then continued.
        say: called with lines for the user.
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
        self._has_reported = False
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
        start = self._start_wandb if name == "wandb" else self._start_trackio
        self._attempt(lambda: start(folder, about, resumed))

    def _start_wandb(self, folder: Path, about: dict[str, Any], resumed: bool) -> None:
        id_file = folder / "wandb" / "id"
        known = resumed and id_file.is_file()
        identity = read_regular(id_file, 1000).decode() if known else secrets.token_hex(4)
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

    def _start_trackio(self, folder: Path, about: dict[str, Any], resumed: bool) -> None:
        with _without_stdout():
            self._run = self._service.init(**about, resume="allow" if resumed else "never")
        self._say(f"tracked: TRACKIO_DIR={self._service.TRACKIO_DIR} trackio show")

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Log the numbers of one record."""
        run = self._run
        if run is not None:
            plain = {k: float(v) for k, v in key_values.items() if isinstance(v, Real)}
            self._attempt(lambda: run.log(plain, step=step))

    def close(self) -> None:
        """Send what is not sent yet, and end the processes of the service."""
        if self._run is not None:
            with _without_stdout():
                self._attempt(self._service.finish)
        if self._name == "wandb":
            self._attempt(self._service.teardown)
        warnings.showwarning = self._show_warning

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # No error of a service may stop a training run.
            self._run = None
            self._report(error)

    def _on_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Report a warning of the service as an error, because trackio reports failures so."""
        if Path(filename).is_relative_to(self._service.__path__[0]):
            self._report(message)
        else:
            self._show_warning(message, category, filename, lineno, file, line)

    def _report(self, problem: Exception | str) -> None:
        if self._has_reported:
            return
        self._has_reported = True
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        self._say(
            f"{self._name}: {lines[0]}; the training continues, and TensorBoard has every record"
        )


def _without_stdout() -> contextlib.AbstractContextManager[Any]:
    """Suppress what trackio prints."""
    return contextlib.redirect_stdout(io.StringIO())
