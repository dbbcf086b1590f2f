"""Places that give tokens to workloads, as Azure and Google have them: they look at every word that they are sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

TENANT, CLIENT = "6f2a4c1e-0b7d-4e55-9a3c-2d1f8e7b6a90", "0b7d4e55-9a3c-2d1f-8e7b-6a906f2a4c1e"
PROVIDER = "projects/123456789012/locations/global/workloadIdentityPools/campus/providers/cluster"
EMAIL = "lab-data@physics.iam.gserviceaccount.com"
ENTRA = {
    "grant_type": "client_credentials", "client_id": CLIENT, "scope": "https://storage.azure.com/.default",
    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
}  # fmt: skip
STS = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "audience": f"//iam.googleapis.com/{PROVIDER}",
    "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
}  # fmt: skip
STORAGE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
Told = tuple[int, dict[str, Any]]


@dataclass
class Givers:
    """All of them at one address.

    Args:
        url: The address.
        believed: The one token of a service account that is good.
        seconds: For how long what is given is.
        ahead: Seconds by which their clock differs from ours.
        given: Called with each token that is given for a store.
    """

    url: str = ""
    believed: str = "the-first-token-0123"
    seconds: int = 3600
    ahead: int = 0
    given: Callable[[str], Any] = lambda _: None
    answers: list[Told] = field(default_factory=list)
    """What is answered first, in place of what is right."""
    asked: list[str] = field(default_factory=list)
    """Whom, each time."""
    wrong: list[str] = field(default_factory=list)
    """What wasn't as it must be."""
    tokens: list[str] = field(default_factory=list)
    """All that were given for stores."""
    traded: list[str] = field(default_factory=list)
    """All with which somebody may only act as a service account."""

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Told:
        self.asked.append(path)
        if self.answers:
            return self.answers.pop(0)
        if path.startswith("/v1/projects/"):
            return self._act(path, headers, body)
        form = {name: texts[0] for name, texts in parse_qs(body.decode(), strict_parsing=True).items()}
        self._same("content-type", headers.get("content-type"), "application/x-www-form-urlencoded")
        self._same("authorization", headers.get("authorization"), None)
        if path == f"/{TENANT}/oauth2/v2.0/token":
            token = form.pop("client_assertion", "")
            self._same("form", form, ENTRA)
            if token != self.believed:
                return 401, {"error": "invalid_client", "error_description": token, "error_codes": [700213]}
            return 200, {"token_type": "Bearer", "expires_in": self.seconds, "access_token": self._token("azure")}
        if path == "/v1/token":
            token, scope = form.pop("subject_token", ""), form.pop("scope", "")
            self._same("form", form, STS)
            if token != self.believed:
                return 400, {"error": "invalid_grant", "error_description": token}
            made = self._traded() if scope == "https://www.googleapis.com/auth/iam" else self._token("google", scope)
            return 200, {
                "access_token": made, "issued_token_type": STS["requested_token_type"], "token_type": "Bearer",
                "expires_in": self.seconds,
            }  # fmt: skip
        return 404, {"error": "not_found"}

    def _act(self, path: str, headers: dict[str, str], body: bytes) -> Told:
        self._same("path", path, f"/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken")
        self._same("body", json.loads(body), {"scope": [STORAGE_SCOPE], "lifetime": "3600s"})
        if headers.get("authorization", "").removeprefix("Bearer ") not in self.traded:
            return 401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}}
        ends = self.now() + timedelta(seconds=self.seconds)
        return 200, {"accessToken": self._token("acting"), "expireTime": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def _token(self, what: str, scope: str = STORAGE_SCOPE) -> str:
        self._same("scope", scope, STORAGE_SCOPE)
        self.tokens.append(f"{what}-{len(self.tokens) + 1}-for-the-store")
        self.given(self.tokens[-1])
        return self.tokens[-1]

    def _traded(self) -> str:
        self.traded.append(f"traded-{len(self.traded) + 1}")
        return self.traded[-1]

    def _same(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.wrong.append(f"{what}: {found!r} in place of {wanted!r}")


@contextmanager
def givers() -> Iterator[Givers]:
    """Serves them; at the end all that they were sent must have been right."""
    scene = Givers()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, told = scene.answer(self.path, {n.lower(): text for n, text in self.headers.items()}, body)
            data = json.dumps(told).encode()
            self.send_response_only(status)
            self.send_header("Date", format_datetime(scene.now(), usegmt=True))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    scene.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield scene
        assert not scene.wrong, scene.wrong
    finally:
        server.shutdown()
        server.server_close()
