"""A Hugging Face Hub of one process: the part of its HTTP interface that uploading and downloading small files use."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """Repositories in memory, each {path: bytes}; `url` is where it listens."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.visibility: dict[str, Any] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()

    def commit_of(self, name: str) -> str:
        """The state of a repository, as the 40 digits of a commit."""
        digest = hashlib.sha1(name.encode())
        for path, data in sorted(self.repositories[name].items()):
            digest.update(path.encode() + data)
        return digest.hexdigest()

    def commit(self, name: str, lines: str) -> None:
        """Apply the operations of one commit."""
        for line in lines.splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                value = operation["value"]
                assert value["encoding"] == "base64"
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])

    def _handler(hub) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's own self is another
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def json(self, data: Any) -> None:
                self.answer(200, json.dumps(data).encode(), Content_Type="application/json")

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length")
                if length is None:
                    parts = []
                    while size := int(self.rfile.readline(), 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    body = b"".join(parts).decode()
                else:
                    body = self.rfile.read(int(length)).decode()
                path = self.path.split("?")[0]
                if path == "/api/repos/create":
                    asked = json.loads(body)
                    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                    hub.visibility[name] = asked.get("visibility")
                    hub.repositories.setdefault(name, {})
                    return self.json({"url": f"{hub.url}/{name}", "name": name, "id": name})
                if path == "/api/validate-yaml":
                    return self.json({"errors": [], "warnings": []})
                _, _, _, owner, repo, action, *_ = path.split("/")
                name = f"{owner}/{repo}"
                if action == "preupload":
                    files = [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in json.loads(body)["files"]
                    ]
                    return self.json({"files": files})
                hub.commit(name, body)
                oid = hub.commit_of(name)
                return self.json(
                    {"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{name}/commit/{oid}"}
                )

            def do_GET(self) -> None:
                parts = self.path.split("?")[0].strip("/").split("/")
                if parts[0] == "api":
                    name = "/".join(parts[2:4])
                    if name not in hub.repositories:
                        return self.answer(404, b"{}", X_Error_Code="RepoNotFound")
                    if "tree" in parts:
                        return self.json(
                            [
                                {
                                    "type": "file",
                                    "path": p,
                                    "size": len(d),
                                    "oid": hashlib.sha1(d).hexdigest(),
                                }
                                for p, d in hub.repositories[name].items()
                            ]
                        )
                    siblings = [{"rfilename": p} for p in hub.repositories[name]]
                    return self.json(
                        {"id": name, "sha": hub.commit_of(name), "siblings": siblings, "tags": []}
                    )
                name, file = "/".join(parts[:2]), "/".join(parts[4:])
                data = hub.repositories.get(name, {}).get(file)
                if data is None:
                    return self.answer(404, b"", X_Error_Code="EntryNotFound")
                etag = hashlib.sha1(data).hexdigest()
                return self.answer(200, data, ETag=f'"{etag}"', X_Repo_Commit=hub.commit_of(name))

            do_HEAD = do_GET  # noqa: N815 - the names of http.server

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
