"""A builder with a small layout, a registry and an index on loopback: everything real but the registry's storage."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloudmesh.functions.builder.requests import Body, BuildRequest
from cloudmesh.functions.builder.service import Service
from cloudmesh.functions.builder.settings import Settings
from cloudmesh.functions.image.blobs import layer_of
from cloudmesh.functions.image.layer import File
from cloudmesh.functions.image.layout import Image, write_layout
from cloudmesh.functions.image.oci import Platform, RunConfig
from cloudmesh.functions.key import build_key

PLATFORM = Platform("linux", "amd64")
PYTHON = ".".join(str(part) for part in sys.version_info[:3])
SOURCE = "def double(x: int) -> int:\n    return 2 * x\n"


def write_small_layout(folder: Path) -> None:
    """Base and runtime, a file each."""
    labels = {"org.cloudmesh.python": PYTHON, "org.cloudmesh.glibc": "2.36"}
    run = RunConfig(["/usr/bin/python3.11"], {"PATH": "/usr/bin"}, "65532:65532", "/tmp", labels)
    runtime = RunConfig(labels={"org.cloudmesh.provides": "click==8.5.1 msgspec==0.22.0"})
    write_layout(
        folder,
        {
            "base": Image(PLATFORM, run, (layer_of([File.of("usr/bin/python3.11", b"base" * 100_000)]),)),
            "runtime": Image(PLATFORM, runtime, (layer_of([File.of("opt/cloudmesh/runtime/x.py", b"runtime")]),)),
        },
    )


def make_settings(
    folder: Path, registry: str, *, index: str = "", credentials: tuple[str, str] | None = None
) -> Settings:
    """Settings whose files lie in `folder`."""
    if not (folder / "layout").exists():
        write_small_layout(folder / "layout")
    signing = folder / "signing" / "current.pem"
    if not signing.exists():
        signing.parent.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        signing.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    (folder / "tls").mkdir(exist_ok=True)
    (folder / "tls" / "token").write_text("t0ken\n")
    environment = {
        "CLOUDMESH_BUILDER_PORT": "0",
        "CLOUDMESH_BUILDER_TLS": str(folder / "tls"),
        "CLOUDMESH_SIGNING_KEY": str(signing),
        "CLOUDMESH_LAYOUT": str(folder / "layout"),
        "CLOUDMESH_CACHE": str(folder / "cache"),
        "CLOUDMESH_REGISTRY_PUSH": registry,
        "CLOUDMESH_REGISTRY_PULL": "localhost:25500",
        "CLOUDMESH_REGISTRY_INSECURE": "true",
        "CLOUDMESH_INDEX_URL": index,
        "CLOUDMESH_VERSION": "1.2.3",
        "CLOUDMESH_ALLOW_LOCAL_ENDPOINTS": "true",
    }
    if credentials:
        (folder / "registry").mkdir(exist_ok=True)
        (folder / "registry" / "username").write_text(credentials[0])
        (folder / "registry" / "password").write_text(credentials[1])
        environment["CLOUDMESH_REGISTRY_CREDENTIALS"] = str(folder / "registry")
    return Settings.from_environment(environment)


@dataclass
class Bench:
    """A service and the requests that fit it."""

    service: Service

    def body(self, source: str = SOURCE, *, name: str = "stats", **changes: Any) -> dict[str, Any]:
        """The body of a build, its key right unless `changes` holds one."""
        info = self.service.info()
        body: dict[str, Any] = {
            "namespace": "default",
            "name": name,
            "module": name.replace("-", "_"),
            "source": source,
            "basePath": "/cloudmesh",
            "expose": {"functions": {"names": ["*"]}},
            "requirements": [],
            "lock": "",
            "python": "3.11",
            "platforms": ["linux/amd64"],
            "repository": None,
            "index": None,
            "rebuild": False,
        } | changes
        body.setdefault(
            "key",
            build_key(
                source=body["source"],
                module=body["module"],
                name=body["name"],
                base_path=body["basePath"],
                expose=body["expose"],
                lock=body["lock"],
                python=body["python"],
                platforms=body["platforms"],
                base=info["base"]["digest"],
                runtime=info["runtime"]["digest"],
            ),
        )
        return body

    async def build(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Build and wait for the end."""
        build = self.service.start(BuildRequest.from_body(Body(body), body))
        assert build.task is not None
        await build.task
        return build.to_json()

    async def lock(self, requirements: Sequence[str]) -> str:
        """The text of a lock."""
        from cloudmesh.functions.builder.requests import LockRequest

        request = LockRequest.from_body(Body({"requirements": list(requirements)}))
        return str((await self.service.lock(request))["lock"])


@asynccontextmanager
async def bench(settings: Settings, *, prepared: bool = True) -> AsyncIterator[Bench]:
    """A builder's service; with `prepared`, base and runtime are in the registry."""
    service = Service(settings)
    try:
        if prepared:
            await service.prepare()
        yield Bench(service)
    finally:
        await service.close()
