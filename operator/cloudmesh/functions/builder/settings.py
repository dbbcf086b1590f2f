"""What the builder process is told by its environment, and the files it waits for."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.auth import Credentials
from cloudmesh.functions.image.transport import Endpoint
from cloudmesh.functions.lock import Index

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the process; paths to Secrets are folders whose files are the Secret's keys."""

    port: int
    tls: Path
    signing_key: Path
    layout: Path
    cache: Path
    registry_push: str
    registry_pull: str
    registry_insecure: bool
    registry_credentials: Path | None
    ca_bundle: Path | None
    index_url: str
    index_credentials: Path | None
    version: str
    builds: int
    local_endpoints: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the `CLOUDMESH_…` variables.

        Raises:
            InvalidRequest: one is missing or malformed; the message names it.
        """

        def path(name: str, default: str = "") -> Path | None:
            value = environment.get(name) or default
            return Path(value) if value else None

        def number(name: str, default: int, least: int, most: int) -> int:
            value = environment.get(name, str(default))
            if not value.isdecimal() or not least <= int(value) <= most:
                raise InvalidRequest(f"{name}={value!r}: give a number from {least} to {most}")
            return int(value)

        push = environment.get("CLOUDMESH_REGISTRY_PUSH", "")
        if not push:
            raise InvalidRequest("CLOUDMESH_REGISTRY_PUSH: name the registry to push to, such as registry.example:5000")
        return cls(
            port=number("CLOUDMESH_BUILDER_PORT", 8443, 0, 65535),
            tls=Path(environment.get("CLOUDMESH_BUILDER_TLS", "/var/run/cloudmesh/builder")),
            signing_key=Path(environment.get("CLOUDMESH_SIGNING_KEY", "/var/run/cloudmesh/signing/current.pem")),
            layout=Path(environment.get("CLOUDMESH_LAYOUT", "/opt/cloudmesh/layout")),
            cache=Path(environment.get("CLOUDMESH_CACHE", "/var/cache/cloudmesh")),
            registry_push=push,
            registry_pull=environment.get("CLOUDMESH_REGISTRY_PULL") or push,
            registry_insecure=environment.get("CLOUDMESH_REGISTRY_INSECURE", "false").lower() == "true",
            registry_credentials=path("CLOUDMESH_REGISTRY_CREDENTIALS"),
            ca_bundle=path("CLOUDMESH_CA_BUNDLE"),
            index_url=environment.get("CLOUDMESH_INDEX_URL", ""),
            index_credentials=path("CLOUDMESH_INDEX_CREDENTIALS"),
            version=environment.get("CLOUDMESH_VERSION", "0.0.0"),
            builds=number("CLOUDMESH_BUILDER_CONCURRENCY", 4, 1, 64),
            local_endpoints=environment.get("CLOUDMESH_ALLOW_LOCAL_ENDPOINTS", "false").lower() == "true",
        )

    def endpoint(self) -> Endpoint:
        """The registry, with the credentials that its files hold now."""
        credentials = None
        if self.registry_credentials is not None:
            username, password = (_text(self.registry_credentials / name) for name in ("username", "password"))
            credentials = Credentials(username, password)
        return Endpoint(self.registry_push, credentials, self._ca(), self.registry_insecure)

    def index(self) -> Index:
        """The package index that serves functions which name none."""
        url, username, password, ca = self.index_url, "", "", self._ca()
        folder = self.index_credentials
        if folder is not None:
            url = _text(folder / "url", "") or url
            username, password = _text(folder / "username", ""), _text(folder / "password", "")
            ca = "\n".join(part for part in (ca, _text(folder / "ca.crt", "")) if part)
        return Index(url, username, password, ca)

    def token(self) -> str:
        """The bearer token that callers must show."""
        return _text(self.tls / "token")

    def _ca(self) -> str:
        return _text(self.ca_bundle, "") if self.ca_bundle else ""

    def _awaited(self) -> Sequence[Path]:
        files = [self.tls / name for name in ("tls.crt", "tls.key", "token")]
        files.append(self.signing_key)
        if self.registry_credentials is not None:
            files += [self.registry_credentials / name for name in ("username", "password")]
        return files

    async def wait_for_files(self, pause: float = 1.0) -> None:
        """Wait until the files that the operator makes are there."""
        told: set[Path] = set()
        while missing := [path for path in self._awaited() if not path.exists()]:
            for path in missing:
                if path not in told:
                    told.add(path)
                    _log.info("waiting for %s", path)
            await asyncio.sleep(pause)


def _text(path: Path, default: str | None = None) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        if default is not None:
            return default
        raise InvalidRequest(f"{path}: {error.strerror}") from error
