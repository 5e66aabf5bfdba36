"""A Hub on 127.0.0.1 that serves real files, counts what it is asked, and misbehaves on demand.

It speaks the routes that huggingface_hub and LoRAuter use: a repository's listing, the search, and its files with
HEAD, Range and the headers that name commit, digest and size.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs, unquote, urlsplit

LFS = (".safetensors", ".bin")
# Names of folders that a repository must not be able to make on a user's machine.
HOSTILE = [
    "..",
    "../../home",
    "a/../../b",
    "/etc",
    "a//b",
    "a\\..\\b",
    "C:",
    "a\x1b[2Jb",
    "a\nb",
    ".git",
    "a.",
    "a ",
    "b" * 300,
    "/".join(["deep"] * 200),
    "source.json",
    "a/adapter_model.safetensors",
    "Adapter_Config.json",
]


@dataclass
class Fault:
    """What goes wrong, and how often.

    Attributes:
        on: "info", "search" or the end of a file's path.
        times: so often; then all is well again.
        status: answered in place of the content.
        headers: of that answer.
        cut_after: the connection is closed after so many bytes of the body, which was announced whole.
        short: the body is announced and sent with so many bytes only.
        spoil: the last byte sent is another.
        extra: so many bytes more than the file has are announced and sent.
        body: in place of the JSON.
        hold_after: after so many bytes of the body, nothing more is sent until `released` is set.
    """

    on: str
    times: int = 1
    status: int = 0
    headers: dict = field(default_factory=dict)
    cut_after: int | None = None
    short: int | None = None
    spoil: bool = False
    extra: int = 0
    body: bytes | None = None
    hold_after: int | None = None
    released: threading.Event = field(default_factory=threading.Event)


@dataclass
class Call:
    """One request: "info", "search" or "file"; what of; and what was sent."""

    method: str
    route: str
    what: str
    range: str = ""
    token: str = ""
    sent: int = 0


class Repo:
    """The commits of one repository: commit -> path -> bytes."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}

    def commit(self, files: dict[str, bytes], revision: str) -> str:
        facts = sorted((path, hashlib.sha256(data).hexdigest()) for path, data in files.items())
        commit = hashlib.sha1(repr(facts).encode()).hexdigest()
        self.commits[commit] = files
        self.refs[revision] = commit
        return commit

    def at(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


def blob_id(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def sibling(path: str, data: bytes) -> dict:
    facts = {"rfilename": path, "size": len(data), "blobId": blob_id(data)}
    if path.endswith(LFS):
        facts["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return facts


def file_headers(path: str, data: bytes, commit: str) -> dict[str, str]:
    facts = sibling(path, data)
    if "lfs" not in facts:
        return {"X-Repo-Commit": commit, "ETag": f'"{facts["blobId"]}"'}
    digest = f'"{facts["lfs"]["sha256"]}"'
    return {"X-Repo-Commit": commit, "ETag": digest, "X-Linked-ETag": digest, "X-Linked-Size": str(len(data))}


class HubServer:
    """Serves while the block is open.

    Attributes:
        calls: every request, in order.
        faults: what goes wrong next; the first that fits a request is used.
        gated: repositories whose files need `token`.
        models: answers of the search, in order.
        ranges: whether parts of files are served.
        redirect: whether files are served from another path, as the real Hub does.
        page: models in one page of the search.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.gated: set[str] = set()
        self.token = "hf_right"
        self.models: list[dict] = []
        self.ranges = True
        self.redirect = False
        self.page = 100
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that was killed
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for fault in self.faults:
            fault.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, repo: str, files: Path | dict[str, bytes], revision: str = "main") -> str:
        """Commit a folder's files, or these bytes; returns the commit."""
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in sorted(files.rglob("*")) if p.is_file()}
        return self.repos.setdefault(repo, Repo()).commit(files, revision)

    def count(self, route: str, end: str = "") -> int:
        """How often a route was asked, for files whose path ends so."""
        return sum(call.route == route and call.what.endswith(end) for call in self.calls)

    def sent(self, end: str) -> int:
        """Bytes of such files that went out."""
        return sum(call.sent for call in self.calls if call.route == "file" and call.what.endswith(end))

    def fault(self, on: str) -> Fault | None:
        for fault in self.faults:
            if on.endswith(fault.on) and fault.times > 0:
                fault.times -= 1
                return fault
        return None


class Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            if len(parts) == 2:
                self._search(parse_qs(url.query))
            else:
                self._info("/".join(parts[2:4]), parts[5] if parts[4:5] == ["revision"] else "main")
        elif parts[0] == "cdn":
            self._file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]), redirected=True)
        else:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), redirected=False)

    # ---------------------------------------------------------------- the routes

    def _info(self, name: str, revision: str) -> None:
        call, fault = self._begin("info", name)
        repo = self.hub.repos.get(name)
        commit = repo and repo.at(revision)
        if fault.status:
            self._fail(call, fault)
        elif commit:
            files = [sibling(path, data) for path, data in repo.commits[commit].items()]
            self._json(call, fault, {"id": name, "sha": commit, "siblings": files, "tags": []})
        elif fault.body is not None:
            self._json(call, fault, {})
        else:
            self._error(call, 404, "RevisionNotFound" if repo else "RepoNotFound")

    def _search(self, query: dict[str, list[str]]) -> None:
        wanted, limit = query["filter"][0], query["limit"][0]
        call, fault = self._begin("search", wanted)
        if fault.status:
            return self._fail(call, fault)
        found = sorted((m for m in self.hub.models if wanted in m["tags"]), key=lambda m: -m["downloads"])
        start = int(query.get("cursor", ["0"])[0])
        end = start + min(self.hub.page, int(limit))
        following = f"{self.hub.url}/api/models?filter={wanted}&limit={limit}&cursor={end}"
        headers = {"Link": f'<{following}>; rel="next"'} if end < len(found) else {}
        return self._json(call, fault, found[start:end], headers)

    def _file(self, name: str, revision: str, path: str, *, redirected: bool) -> None:
        call, fault = self._begin("redirected" if self.hub.redirect and not redirected else "file", path)
        repo = self.hub.repos.get(name)
        commit = repo and repo.at(revision)
        data = repo.commits[commit].get(path) if commit else None
        if fault.status:
            self._fail(call, fault)
        elif data is None:
            self._error(call, 404, "EntryNotFound" if commit else "RepoNotFound")
        elif name in self.hub.gated and call.token != f"Bearer {self.hub.token}":
            self._error(call, 403 if call.token else 401, "GatedRepo")
        elif call.route == "redirected":
            self._send(call, 302, b"", {"Location": f"{self.hub.url}/cdn{self.path}"})
        else:
            self._content(call, fault, data, file_headers(path, data, commit))

    # ---------------------------------------------------------------- how they answer

    def _begin(self, route: str, what: str) -> tuple[Call, Fault]:
        call = Call(self.command, route, what, self.headers.get("Range", ""), self.headers.get("Authorization", ""))
        self.hub.calls.append(call)
        fault = None if route == "redirected" else self.hub.fault(what if route == "file" else route)
        return call, fault or Fault("")

    def _fail(self, call: Call, fault: Fault) -> None:
        self._send(call, fault.status, b'{"error": "not now"}', fault.headers)

    def _error(self, call: Call, status: int, code: str) -> None:
        self._send(call, status, json.dumps({"error": code}).encode(), {"X-Error-Code": code})

    def _json(self, call: Call, fault: Fault, answer: object, headers: dict = MappingProxyType({})) -> None:
        body = json.dumps(answer).encode() if fault.body is None else fault.body
        self._send(call, 200, body, {"Content-Type": "application/json", **headers}, fault)

    def _content(self, call: Call, fault: Fault, data: bytes, headers: dict) -> None:
        status, total = 200, len(data)
        if call.range and self.hub.ranges:
            first, last = map(int, call.range.removeprefix("bytes=").split("-"))
            data = data[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{first + len(data) - 1}/{total}"
            status = 206
        if fault.short is not None:
            data = data[: fault.short]
        if fault.spoil:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._send(call, status, data + bytes(fault.extra), headers, fault)

    def _send(self, call: Call, status: int, body: bytes, headers: dict, fault: Fault | None = None) -> None:
        fault = fault or Fault("")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.hold_after is not None and fault.hold_after < len(body):
            self._write(call, body[: fault.hold_after])
            body = body[fault.hold_after :]
            fault.released.wait(60)
        self._write(call, body[: fault.cut_after])
        self.close_connection = self.close_connection or fault.cut_after is not None

    def _write(self, call: Call, body: bytes) -> None:
        self.wfile.write(body)
        call.sent += len(body)
