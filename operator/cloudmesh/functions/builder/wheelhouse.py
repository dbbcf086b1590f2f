"""The wheels of a lock: fetched once, checked against their hashes, and made into one layer each."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import aiohttp

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.auth import Credentials
from cloudmesh.functions.image.blobs import Layer, LayerStore, evict
from cloudmesh.functions.image.guard import GuardedResolver, check_host
from cloudmesh.functions.image.wheel import Compiler, Wheel
from cloudmesh.functions.lock import Index, IndexUnavailable, LockedWheel, Locker, Target

_FORMAT = "1"
_TRIES = 4
_REDIRECTS = 5
_SECONDS = 300.0
_LARGEST = 1 << 30


class Wheelhouse:
    """Wheels and their layers on disk; it may be lost at any time.

    Args:
        folder: where wheels are kept.
        layers: where layers are kept.
        locker: knows where the index has a wheel.
        compiler: makes byte code; None leaves it out.
        limit: bytes of wheels to keep; the longest unused go first.
    """

    def __init__(
        self, folder: Path, layers: LayerStore, locker: Locker, compiler: Compiler | None, *, limit: int = 2 << 30
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._layers = layers
        self._locker = locker
        self._compiler = compiler
        self._limit = limit
        self._locks: dict[str, asyncio.Lock] = {}
        self._cpu = asyncio.Semaphore(2)

    async def fetch(
        self, wheels: Sequence[LockedWheel], target: Target, index: Index, urls: Mapping[str, str] | None = None
    ) -> dict[str, Path]:
        """Have `wheels` on disk.

        Args:
            wheels: of a lock.
            target: what they run on.
            index: where they come from.
            urls: where the index has them (SHA-256 -> URL), if that is known.

        Returns:
            SHA-256 -> file.

        Raises:
            DependenciesUnsatisfiable: the index doesn't have one any more.
            IndexUnavailable: the index doesn't answer, or gives other content.
        """
        missing = [wheel for wheel in wheels if not self._path(wheel).exists()]
        if missing:
            found = dict(urls or {})
            unknown = [wheel for wheel in missing if wheel.sha256 not in found]
            found |= await self._locker.locate(unknown, target, index)
            try:
                async with _session(index) as session, asyncio.TaskGroup() as group:
                    for wheel in missing:
                        group.create_task(self._download(session, wheel, found[wheel.sha256], index))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors
            evict(self._folder.glob("*/*.whl"), self._limit, {self._path(wheel) for wheel in wheels})
        for wheel in wheels:
            with contextlib.suppress(OSError):
                os.utime(self._path(wheel))
        return {wheel.sha256: self._path(wheel) for wheel in wheels}

    async def layers(self, wheels: Sequence[LockedWheel], target: Target, index: Index) -> list[Layer]:
        """One layer for each wheel, in the order given.

        Raises:
            CloudmeshError: a wheel is not to be had or must not be used.
        """
        known = [self._layers.find(self._key(wheel)) for wheel in wheels]
        missing = [wheel for wheel, layer in zip(wheels, known, strict=True) if layer is None]
        paths = await self.fetch(missing, target, index)
        made = dict(
            zip(
                (wheel.sha256 for wheel in missing),
                await asyncio.gather(*(self._layer(wheel, paths[wheel.sha256]) for wheel in missing)),
                strict=True,
            )
        )
        return [layer or made[wheel.sha256] for wheel, layer in zip(wheels, known, strict=True)]

    async def import_names(self, wheels: Iterable[LockedWheel], target: Target, index: Index) -> dict[str, str]:
        """Top-level import name -> distribution that provides it."""
        chosen = list(wheels)
        paths = await self.fetch(chosen, target, index)
        names: dict[str, str] = {}
        for wheel in chosen:
            for name in await asyncio.to_thread(_import_names, paths[wheel.sha256]):
                names.setdefault(name, wheel.name)
        return names

    def _key(self, wheel: LockedWheel) -> str:
        compiled = self._compiler.identity if self._compiler else "none"
        return "\n".join(("wheel", _FORMAT, wheel.sha256, wheel.filename, compiled))

    async def _layer(self, wheel: LockedWheel, path: Path) -> Layer:
        async with self._locks.setdefault(wheel.sha256, asyncio.Lock()), self._cpu:
            return await asyncio.to_thread(self._make, self._key(wheel), path)

    def _make(self, key: str, path: Path) -> Layer:
        with contextlib.ExitStack() as opened:  # members are read while the layer is written
            return self._layers.get_or_make(key, lambda: opened.enter_context(Wheel.open(path)).entries(self._compiler))

    def _path(self, wheel: LockedWheel) -> Path:
        return self._folder / wheel.sha256 / wheel.filename

    async def _download(self, session: aiohttp.ClientSession, wheel: LockedWheel, url: str, index: Index) -> None:
        async with self._locks.setdefault(wheel.sha256, asyncio.Lock()):
            path = self._path(wheel)
            for attempt in range(_TRIES):
                if path.exists():
                    return
                try:
                    await self._download_once(session, wheel, url, index)
                except IndexUnavailable:
                    if attempt + 1 == _TRIES:
                        raise
                    await asyncio.sleep(0.3 * 2**attempt)

    async def _download_once(self, session: aiohttp.ClientSession, wheel: LockedWheel, url: str, index: Index) -> None:
        path = self._path(wheel)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as out:
                digest = await _receive(session, url, index, out, wheel.filename)
            if digest != wheel.sha256:
                raise IndexUnavailable(f"{wheel.filename}: the index gave content that differs from the lock's hash")
            part.replace(path)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise IndexUnavailable(f"{wheel.filename}: {error or type(error).__name__}") from error
        finally:
            part.unlink(missing_ok=True)


async def _receive(session: aiohttp.ClientSession, url: str, index: Index, out: BinaryIO, name: str) -> str:
    """Write what lies at `url` to `out`, redirects followed by hand: each address is looked at.

    Returns:
        Its SHA-256 in hexadecimal.
    """
    for _ in range(_REDIRECTS):
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http"):
            raise InvalidRequest(f"{name}: the index names an address that isn't http(s)")
        if index.guarded:
            check_host(parts.hostname or "")
        headers = {}
        if (index.username or index.password) and parts.netloc == urlsplit(index.url).netloc:
            headers["Authorization"] = Credentials(index.username, index.password).basic()
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                url = urljoin(url, answer.headers["Location"])
                continue
            if answer.status != 200:
                raise IndexUnavailable(f"{name}: the index answered {answer.status}")
            hashed, size = hashlib.sha256(), 0
            async for chunk in answer.content.iter_chunked(1 << 18):
                size += len(chunk)
                if size > _LARGEST:
                    raise InvalidRequest(f"{name}: over {_LARGEST} bytes")
                hashed.update(chunk)
                out.write(chunk)
            return hashed.hexdigest()
    raise IndexUnavailable(f"{name}: over {_REDIRECTS} redirects")


def _import_names(path: Path) -> list[str]:
    with Wheel.open(path) as wheel:
        return sorted(wheel.import_names())


def _session(index: Index) -> aiohttp.ClientSession:
    context: ssl.SSLContext | bool = True
    if index.ca:
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=index.ca)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=8, ssl=context, resolver=GuardedResolver() if index.guarded else None),
        timeout=aiohttp.ClientTimeout(total=_SECONDS, sock_connect=10, sock_read=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=True,
    )
