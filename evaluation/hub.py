"""A repository of the Hugging Face hub: pushing what a run is shown by, pulling what others pushed.

What comes from there is a stranger's. Names and sizes are ours: nothing is taken but the files that
a push consists of, none larger than announced or than such a file gets, and nothing stays unless
all of it is what it claims to be. HF_ENDPOINT and HF_TOKEN are read as by the hub's own tools.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agents.checkpoint import FileError, PolicyFile, load_policy
from agents.commandline import UsageError, import_extra
from agents.run import RunFolder, read_json
from evaluation.protocol import native

POLICY, CONFIG, EVALUATION = "policy.safetensors", "config.json", "evaluation.json"
CARD, FILM = "README.md", "replay.mp4"

# Bytes, each several times what the largest of ours take.
LARGEST = {POLICY: 2**27, CONFIG: 2**20, EVALUATION: 2**24, CARD: 2**20, FILM: 2**28}
_PICKLED = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".zip")
_TIMEOUT_S = 30.0  # without a byte


class Repository:
    """A model's repository, OWNER/NAME.

    Raises:
        UsageError: If that is no name of one, or the hub's client is not installed.
    """

    def __init__(self, name: str) -> None:
        self._hub = import_extra("huggingface_hub", "hub")
        self._utils = import_extra("huggingface_hub.utils", "hub")
        self._utils.logging.set_verbosity_error()
        self._utils.disable_progress_bars()
        self._api = self._hub.HfApi(library_name="doomgrad")
        try:
            self._utils.validate_repo_id(name)
        except self._utils.HFValidationError as error:
            raise UsageError(one_line(error)) from error
        if "/" not in name:
            raise UsageError(f"{name}: say whose it is, as in OWNER/{name}")
        self._name = name

    @property
    def folder(self) -> Path:
        """Where it is pulled to if nobody says otherwise; no two repositories share it."""
        return Path("hub") / self._name.replace("/", "--")

    def check_token(self) -> None:
        """Make sure that this machine can say who pushes.

        Raises:
            UsageError: If it has no token.
        """
        if not self._hub.get_token():
            raise UsageError(
                f"to push to {self._api.endpoint}, this machine needs a token with the right to "
                "write: log in with `hf auth login`, or set HF_TOKEN"
            )

    def push(self, files: Mapping[str, Path | bytes], *, private: bool) -> str:
        """Put files into the repository, which is made if there is none, and give its address.

        Args:
            files: a path or the content by their names in the repository.
            private: only for the owner's eyes; a repository that is public is refused.

        Raises:
            UsageError: If the hub does not take them.
        """
        with self._asking():
            visibility = True if private else None  # None: as the owner has it
            self._api.create_repo(self._name, private=visibility, exist_ok=True)
            info = self._api.model_info(self._name)
            if private and not info.private:
                raise UsageError(f"{self._name} is there already, and public; leave out --private")
            self._refuse_pickles(info)
            add = self._hub.CommitOperationAdd
            operations = [
                add(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()
            ]
            self._api.create_commit(self._name, operations, commit_message="Push a run of doomgrad")
        return f"{self._api.endpoint}/{self._name}"

    def pull(self, out: Path, *, revision: str | None, trust: bool) -> PolicyFile:
        """Fetch the policy, and what else a push consists of, into a new folder.

        Args:
            out: the folder; it appears whole, or not at all.
            revision: a branch, a tag or a commit. Default: the newest.
            trust: whether packages may be imported that the policy names.

        Raises:
            UsageError: If the folder exists, or the hub does not give them.
            FileError: If something is not what it should be.
        """
        if out.exists():
            raise UsageError(f"{out} is there already; remove it, or name another folder by --out")
        temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        with self._asking(revision):
            info = self._api.model_info(
                self._name, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
            )
            self._refuse_pickles(info)
            sizes = self._sizes(info)
            try:
                temporary.mkdir(parents=True)
                for name, size in sizes.items():
                    self._download(name, info.sha, temporary / name, size)
                file = self._checked(temporary, trust)
                temporary.rename(out)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return file

    def _refuse_pickles(self, info: Any) -> None:
        for file in info.siblings:
            if file.rfilename.lower().endswith(_PICKLED):
                raise FileError(
                    f"{self._name} holds {one_line(file.rfilename)}, which may be pickled code as "
                    "SB3 and PyTorch write it; such a repository is neither pulled nor pushed to"
                )

    def _sizes(self, info: Any) -> dict[str, int]:
        """Give the files to fetch, in bytes as announced."""
        announced = {file.rfilename: file.size for file in info.siblings}
        if POLICY not in announced:
            raise FileError(f"{self._name} holds no {POLICY}: it was not pushed by doomgrad")
        sizes = {}
        for name, largest in LARGEST.items():
            if name in announced:
                size = announced[name]
                if not (isinstance(size, int) and 0 <= size <= largest):
                    raise FileError(
                        f"{self._name}/{name} has a size of {one_line(size)} bytes; "
                        f"{largest:,} are the most that is fetched"
                    )
                sizes[name] = size
        return sizes

    def _download(self, name: str, revision: str, path: Path, size: int) -> None:
        url = self._hub.hf_hub_url(self._name, name, revision=revision)
        headers = self._utils.build_hf_headers(library_name="doomgrad")
        headers["Accept-Encoding"] = "identity"  # Compressed, a few bytes may be many.
        client, received = self._hub.get_session(), 0
        with client.stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
            if response.status_code != 200:
                raise UsageError(self._refusal(response.status_code))
            with path.open("wb") as file:
                for piece in response.iter_raw():
                    received += len(piece)
                    if received > size:
                        break
                    file.write(piece)
        if received != size:
            verb = "goes on after" if received > size else f"ends after {received:,} of"
            raise FileError(f"{self._name}/{name} {verb} the {size:,} bytes that were announced")

    def _checked(self, folder: Path, trust: bool) -> PolicyFile:
        """Check what was fetched as any stranger's files."""
        policy, film = folder / POLICY, folder / FILM
        try:
            file = load_policy(policy)
            native(file, policy, trust=trust)
            if (folder / CONFIG).exists():
                RunFolder(folder).read_config()
            if (folder / EVALUATION).exists():
                read_json(folder / EVALUATION, LARGEST[EVALUATION])
            if film.exists():
                with film.open("rb") as video:
                    if video.read(8)[4:] != b"ftyp":
                        raise FileError(f"{film} is no video")
        except FileError as error:
            raise FileError(str(error).replace(str(folder), self._name)) from error
        return file

    @contextlib.contextmanager
    def _asking(self, revision: str | None = None) -> Iterator[None]:
        """Turn whatever the hub, the network or the disk answers into one line."""
        errors = import_extra("huggingface_hub.errors", "hub")
        name, endpoint = self._name, self._api.endpoint
        try:
            yield
        except (UsageError, FileError):
            raise
        except errors.RevisionNotFoundError as error:
            raise UsageError(f"{name} has no revision {revision}") from error
        except errors.HfHubHTTPError as error:
            unknown = isinstance(error, errors.RepositoryNotFoundError)
            status = 404 if unknown else error.response.status_code
            raise UsageError(self._refusal(status, error.server_message)) from error
        except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
            raise UsageError(f"asking {endpoint} failed: {one_line(error)}") from error
        except (OSError, RuntimeError) as error:
            raise UsageError(f"{name}: {one_line(error)}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(f"{endpoint} does not answer as a hub: {one_line(error)}") from error

    def _refusal(self, status: int, message: str | None = None) -> str:
        endpoint = self._api.endpoint
        if status == 404:
            return (
                f"there is no {self._name} at {endpoint}, or none that this machine may see: "
                "if it is private, log in with `hf auth login`"
            )
        said = f" ({one_line(message)})" if message else ""
        if status == 401:
            return f"{endpoint} does not know this machine's token{said}: `hf auth login`"
        if status == 403:
            return f"this machine's token gives no right to do that with {self._name}{said}"
        return f"{endpoint} answers with status {status}{said}; try again later"


def one_line(text: object) -> str:
    """Keep what strangers say from being long, or more to a terminal than letters."""
    words = re.sub(r"\s+", " ", str(text)).strip()
    return "".join(c for c in words if c.isprintable())[:200]
