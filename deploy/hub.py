"""A repository on the Hugging Face hub: pushing a run, and pulling what others have pushed.

Files from the hub are not trusted. Only files with the names that a push writes are fetched, none
larger than announced or than its limit in `LARGEST`, and nothing is kept unless every file is
valid. HF_ENDPOINT and HF_TOKEN are read as by the hub's own tools.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agents.extras import import_extra
from deploy.errors import DeployError
from evaluation.protocol import env_config
from storage.files import FileError, read_json
from storage.policy_file import PolicyFile, load_policy
from storage.run_folder import CONFIG, EVALUATION, POLICY, VIDEO, RunFolder

CARD = "README.md"

# Limits in bytes, each several times the size of the largest file of its kind in this project.
LARGEST = {POLICY: 2**27, CONFIG: 2**20, EVALUATION: 2**24, CARD: 2**20, VIDEO: 2**28}
_PICKLED = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".zip")
_TIMEOUT_S = 30.0  # Longest wait for the next byte.


class Repository:
    """A model's repository on the hub.

    Args:
        name: OWNER/NAME.

    Raises:
        DeployError: If that is not a valid name.
        MissingExtraError: If the hub's client is not installed.
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
            raise DeployError(one_line(error)) from error
        if "/" not in name:
            raise DeployError(f"use the full name, OWNER/{name}")
        self._name = name

    @property
    def folder(self) -> Path:
        """The default folder to pull into, different for each repository."""
        return Path("hub") / self._name.replace("/", "--")

    def check_token(self) -> None:
        """Check that this machine has a token for the hub.

        Raises:
            DeployError: If it has none.
        """
        if not self._hub.get_token():
            raise DeployError(
                f"to push to {self._api.endpoint}, this machine needs a token with write access: "
                "log in with `hf auth login`, or set HF_TOKEN"
            )

    def push(self, files: Mapping[str, Path | bytes], *, private: bool) -> str:
        """Upload files, and return the repository's address; it is created if it does not exist.

        Args:
            files: paths or contents by their names in the repository.
            private: create a private repository, and refuse one that exists and is public.

        Raises:
            DeployError: If the hub refuses them.
            FileError: If the repository holds pickled files.
        """
        with self._one_line_errors():
            visibility = True if private else None  # None: the owner's default
            self._api.create_repo(self._name, private=visibility, exist_ok=True)
            info = self._api.model_info(self._name)
            if private and not info.private:
                raise DeployError(
                    f"{self._name} already exists and is public; leave out --private, or choose "
                    "another name"
                )
            self._refuse_pickles(info)
            add = self._hub.CommitOperationAdd
            operations = [
                add(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()
            ]
            self._api.create_commit(self._name, operations, commit_message="Push a run of doomgrad")
        return f"{self._api.endpoint}/{self._name}"

    def pull(self, out: Path, *, revision: str | None, trust: bool) -> PolicyFile:
        """Fetch the policy and the other files of a push into a new folder, and return the policy.

        Args:
            out: the folder; it is created only when all files are complete and valid.
            revision: a branch, a tag or a commit. None: the newest commit.
            trust: whether packages that the policy file names may be imported.

        Raises:
            DeployError: If the folder exists, or the hub refuses the request.
            FileError: If a file is missing, damaged or of another kind.
        """
        if out.exists():
            raise DeployError(f"{out} already exists; remove it, or name another folder with --out")
        temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        with self._one_line_errors(revision):
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
                    "Stable-Baselines3 and PyTorch write it; use a repository without such files"
                )

    def _sizes(self, info: Any) -> dict[str, int]:
        """Return the sizes in bytes, as announced, of the files to fetch."""
        announced = {file.rfilename: file.size for file in info.siblings}
        if POLICY not in announced:
            raise FileError(
                f"{self._name} holds no {POLICY}; only what `evaluate.py push` wrote can be pulled"
            )
        sizes = {}
        for name, largest in LARGEST.items():
            if name in announced:
                size = announced[name]
                if not (isinstance(size, int) and 0 <= size <= largest):
                    raise FileError(
                        f"{self._name}/{name} has a size of {one_line(size)} bytes; files of up to "
                        f"{largest:,} bytes are fetched"
                    )
                sizes[name] = size
        return sizes

    def _download(self, name: str, revision: str, path: Path, size: int) -> None:
        url = self._hub.hf_hub_url(self._name, name, revision=revision)
        headers = self._utils.build_hf_headers(library_name="doomgrad")
        headers["Accept-Encoding"] = "identity"  # A few compressed bytes may become many.
        client, received = self._hub.get_session(), 0
        with client.stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
            if response.status_code != 200:
                raise DeployError(self._refusal(response.status_code))
            with path.open("wb") as file:
                for piece in response.iter_raw():
                    received += len(piece)
                    if received > size:
                        break
                    file.write(piece)
        if received != size:
            verb = "is longer than" if received > size else f"ends after {received:,} of"
            raise FileError(f"{self._name}/{name} {verb} the {size:,} bytes that were announced")

    def _checked(self, folder: Path, trust: bool) -> PolicyFile:
        """Check the fetched files, and return the policy.

        Raises:
            FileError: If one of them is not valid.
        """
        policy, video = folder / POLICY, folder / VIDEO
        try:
            file = load_policy(policy, trust=trust)
            env_config(file.env, policy, trust=trust)  # It need not exist here.
            if (folder / CONFIG).exists():
                RunFolder(folder).read_config()
            if (folder / EVALUATION).exists():
                read_json(folder / EVALUATION, LARGEST[EVALUATION])
            if video.exists():
                with video.open("rb") as opened:
                    if opened.read(8)[4:] != b"ftyp":
                        raise FileError(f"{video} is not an MP4 video")
        except FileError as error:
            raise FileError(str(error).replace(str(folder), self._name)) from error
        return file

    @contextlib.contextmanager
    def _one_line_errors(self, revision: str | None = None) -> Iterator[None]:
        """Convert errors of the hub, the network and the disk into errors of one line."""
        errors = import_extra("huggingface_hub.errors", "hub")
        name, endpoint = self._name, self._api.endpoint
        try:
            yield
        except (DeployError, FileError):
            raise
        except errors.RevisionNotFoundError as error:
            raise DeployError(
                f"{name} has no revision {revision}; name a branch, a tag or a commit of it"
            ) from error
        except errors.HfHubHTTPError as error:
            unknown = isinstance(error, errors.RepositoryNotFoundError)
            status = 404 if unknown else error.response.status_code
            raise DeployError(self._refusal(status, error.server_message)) from error
        except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
            raise DeployError(f"a request to {endpoint} failed: {one_line(error)}") from error
        except (OSError, RuntimeError) as error:
            raise DeployError(f"{name}: {one_line(error)}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DeployError(
                f"{endpoint} does not answer like a Hugging Face hub: {one_line(error)}"
            ) from error

    def _refusal(self, status: int, message: str | None = None) -> str:
        endpoint = self._api.endpoint
        if status == 404:
            return (
                f"there is no {self._name} at {endpoint}, or it is private: if it is, log in with "
                "`hf auth login`"
            )
        reason = f" ({one_line(message)})" if message else ""
        if status == 401:
            return (
                f"{endpoint} does not accept this machine's token{reason}; log in with "
                "`hf auth login`"
            )
        if status == 403:
            return (
                f"this machine's token does not permit this for {self._name}{reason}; log in with "
                "`hf auth login` as a user who may"
            )
        return f"{endpoint} answers with status {status}{reason}; try again later"


def one_line(text: object) -> str:
    """Return untrusted text as one line of at most 200 printable characters."""
    words = re.sub(r"\s+", " ", str(text)).strip()
    return "".join(c for c in words if c.isprintable())[:200]
