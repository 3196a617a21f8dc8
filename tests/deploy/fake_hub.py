"""A local server with the part of the Hugging Face hub's HTTP interface that the tests use.

Repositories are in memory. As on the real hub, large files are sent and received by LFS, and are
received from another host.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

LARGE = (".safetensors", ".mp4")
OWNER, READER = "hf_owner", "hf_reader"
"""Tokens: one with every right, and one that may only read."""


@dataclass
class Repository:
    """A repository: files by name for every commit, oldest first."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: dict[str, bytes]) -> str:
        before = self.commits[self.head] if self.commits else {}
        sha = hashlib.sha1(str(len(self.commits)).encode()).hexdigest()
        self.commits[sha] = before | files
        return sha


@dataclass
class Hub:
    """A running hub.

    Attributes:
        endpoint: its URL.
        repositories: repositories by OWNER/NAME.
        lies: false responses (status, headers, body), by the ending of the requested path.
        requests: method, path and token of each request.
    """

    endpoint: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    lies: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, files: dict[str, bytes], **options: bool) -> Repository:
        repository = self.repositories[name] = Repository(**options)
        repository.commit(files)
        return repository


@contextlib.contextmanager
def logged_in_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Hub]:
    """Run a hub to which this program is logged in; `folder` must not contain a token."""
    # The client would use another protocol with other servers.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "none"))
    monkeypatch.setenv("HF_TOKEN", OWNER)
    with running_hub() as hub:
        set_endpoint(monkeypatch, hub.endpoint)
        yield hub


def set_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Set the endpoint as HF_ENDPOINT does when the client is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a hub on a free port of this machine."""

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.hub = Hub(endpoint=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield Handler.hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append((self.command, path, self.token))
        for ending, (status, headers, content) in self.hub.lies.items():
            if path.endswith(ending):
                return self.send(status, content, headers)
        if self.command == "GET":
            return self.get(path)
        return self.put(path, body)

    def send(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # The client may have closed the connection.
            self.wfile.write(content)
        if "Content-Length" in (headers or {}):
            self.close_connection = True

    def refuse(self, status: int, code: str) -> None:
        self.send(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def get(self, path: str) -> None:
        parts = path.strip("/").split("/")
        if parts[0] == "cdn":
            return self.send(200, self.hub.objects[parts[1]])
        name = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and self.token not in (OWNER, READER)):
            return self.refuse(401 if self.token is None else 404, "RepoNotFound")
        revision = parts[5] if parts[4:5] == ["revision"] else "main"
        revision = parts[3] if parts[2:3] == ["resolve"] else revision
        sha = repository.head if revision == "main" else revision
        if sha not in repository.commits:
            return self.refuse(404, "RevisionNotFound")
        files = repository.commits[sha]
        if parts[0] == "api":
            siblings = [{"rfilename": n, "size": len(content)} for n, content in files.items()]
            about = {"id": name, "sha": sha, "private": repository.private, "siblings": siblings}
            return self.send(200, about)
        content = files["/".join(parts[4:])]
        if not path.endswith(LARGE):
            return self.send(200, content)
        oid = self.store(content)
        elsewhere = self.hub.endpoint.replace("127.0.0.1", "localhost")
        return self.send(302, b"", {"Location": f"{elsewhere}/cdn/{oid}"})

    def store(self, content: bytes) -> str:
        oid = hashlib.sha256(content).hexdigest()
        self.hub.objects[oid] = content
        return oid

    def put(self, path: str, body: bytes) -> None:
        parts = path.strip("/").split("/")
        if parts[0] == "lfs":
            return self.send(200 if self.store(body) == parts[1] else 400)
        if self.token not in (OWNER, READER):
            return self.refuse(401, "Invalid credentials in Authorization header")
        if path == "/api/validate-yaml":
            _, front, _ = json.loads(body)["content"].split("---\n", 2)
            return self.send(200 if isinstance(yaml.safe_load(front), dict) else 400, {})
        if self.token == READER:
            return self.refuse(403, "You have no right to write here")
        if path == "/api/repos/create":
            wish = json.loads(body)
            name = f"{wish['organization']}/{wish['name']}"
            status = 409 if name in self.hub.repositories else 200
            if status == 200:
                self.hub.add(name, {}, private=wish.get("visibility") == "private")
            return self.send(status, {"url": f"{self.hub.endpoint}/{name}"})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for wanted in objects:
                href = f"{self.hub.endpoint}/lfs/{wanted['oid']}"
                wanted["actions"] = {"upload": {"href": href}}
            return self.send(200, {"objects": objects})
        name = "/".join(parts[2:4])
        repository = self.hub.repositories[name]
        if parts[4] == "preupload":
            return self.send(
                200, {"files": [self.plan(f, repository) for f in json.loads(body)["files"]]}
            )
        assert parts[4] == "commit"
        sha = repository.commit(dict(map(self.read, map(json.loads, body.splitlines()[1:]))))
        return self.send(
            200, {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{sha}", "commitOid": sha}
        )

    def plan(self, file: dict, repository: Repository) -> dict:
        """Return how a file must be sent, and the id of the file that it replaces."""
        is_large = file["path"].endswith(LARGE)
        old = repository.commits[repository.head].get(file["path"])
        oid = None
        if old is not None:
            git = hashlib.sha1(b"blob %d\0" % len(old) + old).hexdigest()
            oid = hashlib.sha256(old).hexdigest() if is_large else git
        mode = "lfs" if is_large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def read(self, line: dict) -> tuple[str, bytes]:
        value = line["value"]
        if line["key"] == "lfsFile":
            return value["path"], self.hub.objects[value["oid"]]
        assert line["key"] == "file"
        return value["path"], base64.b64decode(value["content"])
