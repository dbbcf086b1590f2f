"""Locks requirements to exact wheels with hashes, by `uv` as a subprocess that sees nothing of its surroundings.

`uv pip compile` with one platform and wheels only walks back to a release that has a wheel and names the package that
has none, which `uv lock` does not (it locks the source distribution and fails later). A lock names files and hashes,
never addresses: it is the same behind any mirror.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import unquote, urlsplit

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from uv import find_uv_bin

from cloudmesh.engine.errors import InvalidRequest, Transient
from cloudmesh.functions.image.guard import check_host
from cloudmesh.functions.image.oci import Platform

_SECONDS = 90.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_VERSION = re.compile(r"[0-9A-Za-z.!+]{1,128}")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_NO_SOLUTION = "No solution found"
_NETWORK = ("Failed to fetch", "error sending request", "Request failed", "HTTP status", "timed out", "Network", "TLS")


class DependenciesUnsatisfiable(InvalidRequest):
    """The requirements can't be met; the message says which and why."""

    reason: ClassVar[str] = "DependenciesUnsatisfiable"


class IndexUnavailable(Transient):
    """The package index doesn't answer, or not as one."""

    reason: ClassVar[str] = "IndexUnavailable"


@dataclass(frozen=True, slots=True)
class Index:
    """A package index. An empty URL is uv's own default; a guarded one may not lead to the cluster's own addresses."""

    url: str = ""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    guarded: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if self.url and (parts.scheme not in ("https", "http") or not parts.hostname or parts.username):
            raise InvalidRequest(
                "index.url: must be an http(s) address; user name and password have fields of their own"
            )


@dataclass(frozen=True, slots=True)
class LockedWheel:
    """One wheel that a lock allows."""

    name: str
    version: str
    filename: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Target:
    """What wheels must run on.

    Args:
        python: version of Python, `3.11`.
        glibc: version of the base image's C library.
        platform: the image's platform.
    """

    python: str
    glibc: tuple[int, int]
    platform: Platform

    @property
    def machine(self) -> str:
        """The architecture as wheels call it."""
        machine = _MACHINES.get(self.platform.architecture)
        if self.platform.os != "linux" or machine is None:
            raise InvalidRequest(f"platforms: there are no wheels for {self.platform}")
        return machine

    def tags(self) -> list[Tag]:
        """The tags of wheels that run there, best first."""
        major, minor = (int(part) for part in self.python.split(".")[:2])
        legacy = (
            {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
            if self.machine == "x86_64"
            else {17: "manylinux2014"}
        )
        platforms = []
        for version in range(self.glibc[1], 4, -1):
            platforms.append(f"manylinux_{self.glibc[0]}_{version}_{self.machine}")
            if version in legacy:
                platforms.append(f"{legacy[version]}_{self.machine}")
        platforms.append(f"linux_{self.machine}")
        interpreter = f"cp{major}{minor}"
        return [
            *cpython_tags((major, minor), [interpreter], platforms),
            *compatible_tags((major, minor), interpreter, platforms),
        ]


@dataclass(frozen=True, slots=True)
class Lock:
    """Exact wheels, sorted by name."""

    python: str
    platform: Platform
    wheels: tuple[LockedWheel, ...]

    def text(self) -> str:
        """The lock as PEP 751 TOML, the same for the same wheels; files are named, not where they lie."""
        lines = [
            'lock-version = "1.0"',
            'created-by = "cloudmesh"',
            f'requires-python = "=={self.python}.*"',
            "",
            "[tool.cloudmesh]",
            f'platform = "{self.platform}"',
        ]
        for wheel in self.wheels:
            lines += [
                "",
                "[[packages]]",
                f'name = "{wheel.name}"',
                f'version = "{wheel.version}"',
                "[[packages.wheels]]",
                f"name = {json.dumps(wheel.filename)}",
                f"path = {json.dumps(wheel.filename)}",
                f"size = {wheel.size}",
                f'hashes = {{sha256 = "{wheel.sha256}"}}',
            ]
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a lock that came from outside.

        Raises:
            InvalidRequest: it is none; the message says where.
        """
        try:
            value = tomllib.loads(text)
            platform = Platform.parse(value["tool"]["cloudmesh"]["platform"])
            python = re.fullmatch(r"==(\d+\.\d+)\.\*", value["requires-python"])
            if python is None:
                raise InvalidRequest("lock: requires-python must be ==X.Y.*")
            wheels = tuple(_read_wheel(package) for package in value.get("packages", []))
        except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"lock: not one that this program made ({error})") from error
        return cls(python[1], platform, wheels)


def _read_wheel(package: Mapping[str, Any]) -> LockedWheel:
    (wheel,) = package["wheels"]
    name, version, filename = str(package["name"]), str(package["version"]), str(wheel["name"])
    sha256, size = str(wheel["hashes"]["sha256"]), int(wheel["size"])
    try:
        fits = parse_wheel_filename(filename)[0] == name
    except InvalidWheelFilename:
        fits = False
    if not (fits and _NAME.fullmatch(name) and _VERSION.fullmatch(version) and _SHA256.fullmatch(sha256) and size > 0):
        raise InvalidRequest(f"lock: packages: {name!r} has a malformed name, version, file name, size or hash")
    return LockedWheel(name, version, filename, sha256, size)


def check_requirements(requirements: Iterable[str]) -> list[Requirement]:
    """Parse requirements before anything else sees them.

    Raises:
        DependenciesUnsatisfiable: one is not a name with versions, extras and markers: an address, a path, an option.
    """
    checked = []
    for text in requirements:
        try:
            requirement = Requirement(text)
            if requirement.marker is not None:
                requirement.marker.evaluate({"extra": ""})
        except (InvalidRequirement, UndefinedEnvironmentName, UndefinedComparison) as error:
            reason = str(error).partition("\n")[0]
            raise DependenciesUnsatisfiable(
                f"requirement {text!r}: not a package name with versions ({reason}); "
                "addresses, paths and options are not taken"
            ) from error
        if requirement.url is not None:
            raise DependenciesUnsatisfiable(
                f"requirement {text!r}: addresses are not taken; name a package, such as {requirement.name}"
            )
        checked.append(requirement)
    return checked


async def check_address(index: Index) -> None:
    """Look at where an index that a user named leads, before uv goes there.

    Raises:
        InvalidRequest: to a loopback, link-local or API server address.
        IndexUnavailable: nowhere.
    """
    host = urlsplit(index.url).hostname
    if not host or not index.guarded:
        return
    check_host(host)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise IndexUnavailable(f"package index {host}: {error}") from error
    for item in found:
        check_host(str(item[4][0]))


class Locker:
    """Runs uv.

    Args:
        cache: folder for uv's cache; it may be lost at any time.
        constraints: distribution -> version that lies in the runtime, so that a user's wheels fit it.
        seconds: bound on one run.
        retries: how often uv asks the index again after a fault.
    """

    def __init__(
        self, cache: Path, constraints: Mapping[str, str], *, seconds: float = _SECONDS, retries: int = 2
    ) -> None:
        self._cache = cache
        self._constraints = dict(constraints)
        self._seconds = seconds
        self._retries = retries

    @property
    def identity(self) -> str:
        """Names what a lock depends on beside its request."""
        return json.dumps(sorted(self._constraints.items()))

    async def lock(self, requirements: Sequence[str], target: Target, index: Index) -> tuple[Lock, dict[str, str]]:
        """Lock `requirements`.

        Returns:
            The lock, and where the index has each wheel: SHA-256 -> URL.

        Raises:
            DependenciesUnsatisfiable: they can't be met with wheels for the target.
            IndexUnavailable: the index doesn't answer.
        """
        checked = check_requirements(requirements)
        if not checked:
            return Lock(target.python, target.platform, ()), {}
        lines = sorted(str(requirement) for requirement in checked)
        packages = await self._run(lines, target, index, constrained=True)
        rank = {tag: position for position, tag in enumerate(target.tags())}
        wheels, urls = [], {}
        for package in packages:
            wheel, url = _choose(package, rank, target)
            wheels.append(wheel)
            urls[wheel.sha256] = url
        return Lock(target.python, target.platform, tuple(sorted(wheels, key=lambda item: item.name))), urls

    async def locate(self, wheels: Sequence[LockedWheel], target: Target, index: Index) -> dict[str, str]:
        """Where the index has wheels of a lock: SHA-256 -> URL.

        Raises:
            DependenciesUnsatisfiable: the index doesn't have one of them any more.
            IndexUnavailable: the index doesn't answer.
        """
        if not wheels:
            return {}
        lines = [f"{wheel.name}=={wheel.version}" for wheel in wheels]
        urls = {}
        for package in await self._run(lines, target, index, constrained=False):
            for wheel in package.get("wheels", []):
                urls[str(wheel["hashes"].get("sha256"))] = str(wheel["url"])
        for locked in wheels:
            if locked.sha256 not in urls:
                raise DependenciesUnsatisfiable(
                    f"{locked.name} {locked.version}: the index has no {locked.filename} with the hash in the lock"
                    " any more; lock anew with the annotation cloudmesh.org/relock"
                )
        return urls

    async def _run(
        self, lines: Sequence[str], target: Target, index: Index, *, constrained: bool
    ) -> list[dict[str, Any]]:
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="lock-") as folder:
            place = Path(folder)
            (place / "requirements.txt").write_text("".join(f"{line}\n" for line in lines))
            command = [find_uv_bin(), "pip", "compile", "requirements.txt", "--only-binary", ":all:"]
            command += ["--generate-hashes", "--no-header", "--no-sources", "--quiet", "--format", "pylock.toml"]
            command += ["--python", sys.executable, "--python-version", target.python]
            command += ["--python-platform", f"{target.machine}-manylinux_{target.glibc[0]}_{target.glibc[1]}"]
            if constrained and self._constraints:
                text = "".join(f"{name}=={version}\n" for name, version in sorted(self._constraints.items()))
                (place / "constraints.txt").write_text(text)
                command += ["--constraints", "constraints.txt"]
            if not constrained:
                command.append("--no-deps")
            if index.url:
                command += ["--default-index", f"cloudmesh={index.url}"]
            output = await self._start(command, place, self._environment(place, index))
        packages = tomllib.loads(output).get("packages", [])
        return [package for package in packages if isinstance(package, dict)]

    def _environment(self, place: Path, index: Index) -> dict[str, str]:
        kept = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {
            "HOME": str(place),
            "PATH": "/nonexistent",
            "UV_CACHE_DIR": str(self._cache),
            "UV_NO_CONFIG": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_HTTP_TIMEOUT": "20",
            "UV_HTTP_RETRIES": str(self._retries),
            "UV_KEYRING_PROVIDER": "disabled",
            "NO_COLOR": "1",
        }
        if index.username or index.password:
            environment |= {
                "UV_INDEX_CLOUDMESH_USERNAME": index.username,
                "UV_INDEX_CLOUDMESH_PASSWORD": index.password,
            }
        if index.ca:
            paths = ssl.get_default_verify_paths()
            system = environment.get("SSL_CERT_FILE") or paths.cafile or ""
            bundle = Path(system).read_text() if system and Path(system).is_file() else ""
            (place / "ca.crt").write_text(f"{bundle}\n{index.ca}\n")
            environment["SSL_CERT_FILE"] = str(place / "ca.crt")
        return environment

    async def _start(self, command: Sequence[str], place: Path, environment: Mapping[str, str]) -> str:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=place,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(self._seconds):
                output, errors = await process.communicate()
        except TimeoutError as error:
            raise IndexUnavailable(f"the package index didn't answer within {self._seconds:.0f} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise _error(errors.decode("utf-8", "replace"))
        return output.decode()


def _choose(package: Mapping[str, Any], rank: Mapping[Tag, int], target: Target) -> tuple[LockedWheel, str]:
    name = canonicalize_name(str(package["name"]))
    best: tuple[int, str, Mapping[str, Any]] | None = None
    for wheel in package.get("wheels", []):
        filename = unquote(urlsplit(str(wheel["url"])).path.rpartition("/")[2])
        try:
            tags = parse_wheel_filename(filename)[3]
        except InvalidWheelFilename:
            continue
        ranks = [rank[tag] for tag in tags if tag in rank]
        if ranks and "sha256" in wheel.get("hashes", {}) and (best is None or (min(ranks), filename) < best[:2]):
            best = (min(ranks), filename, wheel)
    if best is None:
        raise DependenciesUnsatisfiable(
            f"{name} {package.get('version')}: no wheel with a SHA-256 for {target.platform} and Python {target.python}"
        )
    _, filename, wheel = best
    locked = LockedWheel(
        name, str(package["version"]), filename, wheel["hashes"]["sha256"], int(wheel.get("size") or 1)
    )
    return locked, str(wheel["url"])


def _error(text: str) -> DependenciesUnsatisfiable | IndexUnavailable:
    """What uv's words mean; the words themselves are kept, since they name packages and platforms."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = [
        line.removeprefix("cause:").removeprefix("hint:").removeprefix("error:").strip()
        for line in lines
        if not line.startswith("warning:") and _NO_SOLUTION not in line
    ]
    message = " ".join(words)[:2000] or "uv gave no reason"
    if _NO_SOLUTION in text:
        message = message.replace("you require", "the requirements name").replace("your requirements", "they")
        return DependenciesUnsatisfiable(message)
    if any(sign in text for sign in _NETWORK):
        return IndexUnavailable(f"package index: {message}")
    return DependenciesUnsatisfiable(message)
