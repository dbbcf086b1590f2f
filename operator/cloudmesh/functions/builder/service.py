"""What the builder does for its callers: read, lock, build. Its HTTP face is `http`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, Unsupported
from cloudmesh.functions.builder.assemble import Foundation, assemble
from cloudmesh.functions.builder.builds import Build, Builds, RegistryUnavailable
from cloudmesh.functions.builder.locks import find_lock, keep_lock, lock_key
from cloudmesh.functions.builder.publish import Place, find, publish, push_shared, push_wheel_layer
from cloudmesh.functions.builder.requests import BuildRequest, Destination, LockRequest, ParseRequest
from cloudmesh.functions.builder.settings import Settings
from cloudmesh.functions.builder.wheelhouse import Wheelhouse
from cloudmesh.functions.image.blobs import LayerStore
from cloudmesh.functions.image.bytecode import Interpreter
from cloudmesh.functions.image.guard import AddressRefused
from cloudmesh.functions.image.oci import canonical_json, sha256
from cloudmesh.functions.image.registry import Repository
from cloudmesh.functions.image.signing import Signer, Verifier
from cloudmesh.functions.image.transport import Endpoint, Transfer, Transport
from cloudmesh.functions.key import build_key
from cloudmesh.functions.lock import Index, Lock, LockedWheel, Locker, Target, check_address, check_requirements
from cloudmesh.functions.signatures import Parsed, SourceError, missing_imports, sandbox
from cloudmesh.functions.signatures.verdicts import Verdicts
from cloudmesh_function.parts import PROVIDES

_log = logging.getLogger(__name__)
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0


class Service:
    """The builder's work.

    Args:
        settings: of the process; the files they name must be there.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.foundation = Foundation.read(settings.layout)
        self.builds = Builds(settings.builds)
        self.ready = False
        self.registry_error = "base and runtime are not in the registry yet"
        self._signer = Signer(settings.signing_key.read_bytes())
        folder = settings.signing_key.parent
        self._verifier = Verifier.read(folder / "current.pub.pem", folder / "previous.pub.pem", signer=self._signer)
        cache = settings.cache
        self._locker = Locker(cache / "uv", self.foundation.provides())
        self._wheelhouse = Wheelhouse(
            cache / "wheels",
            LayerStore(cache / "layers"),
            self._locker,
            Interpreter.running(self.foundation.python),
        )
        self._transport: Transport | None = None
        self._endpoint: Endpoint | None = None
        self._verdicts = Verdicts()
        self._listed: set[str] = set()
        shared = (self.foundation.base, self.foundation.runtime)
        self._sources = {layer.descriptor.digest: "base" for image in shared for layer in image.layers}

    # --- readiness

    async def prepare(self) -> None:
        """Start the reader of sources and bring base and runtime into the registry, until both are there."""
        try:
            await sandbox.warm()
        except (OSError, SourceError) as error:
            _log.warning("the reader of sources can't be started yet: %s", error)  # the first source tries again
        pause = _FIRST_PAUSE
        images = [self.foundation.base, self.foundation.runtime]
        while not self.ready:
            try:
                await push_shared(await self._shared_transport(), images)
                self.ready, self.registry_error = True, ""
                _log.info("ready: base %s, runtime %s", self.foundation.base.digest, self.foundation.runtime.digest)
            except (CloudmeshError, OSError) as error:
                self.registry_error = str(error)
                _log.warning("base and runtime can't be pushed, next try in %.1f s: %s", pause, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _shared_transport(self) -> Transport:
        endpoint = self.settings.endpoint()
        if self._transport is None or endpoint != self._endpoint:
            if self._transport is not None:
                await self._transport.close()
            self._transport, self._endpoint = Transport(endpoint), endpoint
        return self._transport

    async def close(self) -> None:
        """End builds, connections and the reader of sources."""
        await self.builds.close()
        if self._transport is not None:
            await self._transport.close()
        await sandbox.close()

    def info(self) -> dict[str, Any]:
        """The answer to `GET /v1/info`."""
        return {
            "version": self.settings.version,
            "base": {"digest": self.foundation.base.digest},
            "runtime": {"digest": self.foundation.runtime.digest},
            "python": self.foundation.target.python,
            "platforms": [str(self.foundation.base.platform)],
        }

    # --- reading

    async def parse(self, request: ParseRequest) -> dict[str, Any]:
        """The answer to `POST /v1/parse`.

        Raises:
            SourceError: the source can't be served.
        """
        parsed = await self._read(request)
        return {
            "digest": sha256(parsed.canonical_openapi),
            "document": parsed.document,
            "operations": parsed.operations,
            "imports": parsed.imports,
            "warnings": parsed.warnings,
        }

    async def _read(self, request: ParseRequest) -> Parsed:
        inputs = [
            request.source,
            request.name,
            request.module,
            request.base_path,
            request.expose.to_json(),
            list(request.requirements),
        ]
        key = hashlib.sha256(canonical_json(inputs)).hexdigest()
        return await self._verdicts.get(
            key,
            lambda: sandbox.parse(
                request.source,
                name=request.name,
                module=request.module,
                expose=request.expose,
                base_path=request.base_path,
                requirements=request.requirements,
            ),
        )

    # --- locking

    async def lock(self, request: LockRequest) -> dict[str, Any]:
        """The answer to `POST /v1/lock`: the lock, and which imports its packages provide.

        Raises:
            AddressRefused: the request's own index leads to an address that is kept from users.
            DependenciesUnsatisfiable: the requirements can't be met.
            IndexUnavailable: the index doesn't answer.
        """
        index = self._index(request.index)
        target = self._target(request.python)
        with _index_errors():
            lock, urls = await self._locked(request, target, index)
            wheels = self.foundation.wheels(lock.wheels)
            await self._wheelhouse.fetch(wheels, target, index, urls)
            provides = await self._wheelhouse.import_names(wheels, target, index)
        return {
            "lock": lock.text(),
            "packages": [{"name": wheel.name, "version": wheel.version} for wheel in lock.wheels],
            "provides": provides,
        }

    def _index(self, own: Index | None) -> Index:
        if own is None:
            return self.settings.index()
        return dataclasses.replace(own, guarded=not self.settings.local_endpoints)

    async def _locked(self, request: LockRequest, target: Target, index: Index) -> tuple[Lock, dict[str, str]]:
        if not request.requirements:
            return await self._locker.lock((), target, index)
        check_requirements(request.requirements)
        await check_address(index)
        repository = Repository(await self._shared_transport(), "layers")
        key = lock_key(request, index.url, self._locker.identity)
        if not request.relock:
            kept = await find_lock(repository, key, self._verifier)
            if kept is not None:
                return kept, {}
        lock, urls = await self._locker.lock(request.requirements, target, index)
        await keep_lock(repository, key, lock, self._signer)
        return lock, urls

    def _target(self, python: str) -> Target:
        target = self.foundation.target
        if python != target.python:
            raise InvalidRequest(f"python: {python} is not to be had; use {target.python}")
        return target

    # --- building

    def start(self, request: BuildRequest) -> Build:
        """Start a build, or join the one that is the same.

        Raises:
            InvalidRequest: the key isn't that of the request.
        """
        parse = request.parse
        key = build_key(
            source=parse.source,
            module=parse.module,
            name=parse.name,
            base_path=parse.base_path,
            expose=request.expose,
            lock=request.lock,
            python=request.python,
            platforms=[str(platform) for platform in request.platforms],
            base=self.foundation.base.digest,
            runtime=self.foundation.runtime.digest,
        )
        if key != request.key:
            raise InvalidRequest(f"key: {request.key} is not the key of this request, {key}; read /v1/info again")
        return self.builds.start(request.id, lambda build: self._build(build, request))

    async def _build(self, build: Build, request: BuildRequest) -> dict[str, Any]:
        transfer = Transfer()
        build.stage = "Reading"
        parsed = await self._read(request.parse)
        async with self._place(request) as place:
            build.stage = "Looking"
            if not request.rebuild:
                with _registry_errors(request.destination):
                    found = await find(place, request.key, self._verifier, transfer)
                if found is not None:
                    return self._result(place, found.digest, request, parsed, transfer, reused=True)
            build.stage = "Fetching"
            wheels, index = self._wheels(request, parsed), self._index(request.index)
            with _index_errors():
                await check_address(index)
                await self._check_imports(request, parsed, wheels, index)
                layers = await self._wheelhouse.layers(wheels, self.foundation.target, index)
            build.stage = "Assembling"
            images = [
                assemble(self.foundation, request.parse, parsed, layers, platform) for platform in request.platforms
            ]
            build.stage = "Pushing"
            with _registry_errors(request.destination):
                if place.shared:
                    for layer, wheel in zip(layers, wheels, strict=True):
                        if layer.diff_id not in self._listed:
                            await push_wheel_layer(place.transport, layer, wheel.filename, transfer)
                            self._listed.add(layer.diff_id)
                described = await publish(
                    place,
                    images,
                    key=request.key,
                    signer=self._signer,
                    openapi=parsed.canonical_openapi,
                    transfer=transfer,
                    sources=self._sources | {layer.descriptor.digest: "layers" for layer in layers},
                )
            return self._result(place, described.digest, request, parsed, transfer, reused=False)

    def _wheels(self, request: BuildRequest, parsed: Parsed) -> list[LockedWheel]:
        if not request.lock:
            return []
        lock = Lock.parse(request.lock)
        if lock.platform != self.foundation.target.platform or lock.python != self.foundation.target.python:
            raise InvalidRequest(f"lock: it is for Python {lock.python} on {lock.platform}")
        return self.foundation.wheels(lock.wheels)

    async def _check_imports(
        self, request: BuildRequest, parsed: Parsed, wheels: list[LockedWheel], index: Index
    ) -> None:
        """Name an import that nothing provides before the image is made of it."""
        if not parsed.imports:
            return
        names = await self._wheelhouse.import_names(wheels, self.foundation.target, index)
        provided = {*PROVIDES, *names, *(name.replace("-", "_") for name in self.foundation.provides())}
        for name in missing_imports(parsed.imports, provided):
            line, column = parsed.import_positions.get(name, (0, 0))
            raise SourceError(
                line,
                column,
                f"import of {name!r}: no requirement provides it; add its package to `spec.python.requirements`",
            )

    @contextlib.asynccontextmanager
    async def _place(self, request: BuildRequest) -> AsyncIterator[Place]:
        own = request.destination
        if own is not None:
            async with Transport(own.endpoint, guarded=not self.settings.local_endpoints) as transport:
                yield Place(transport, own.name, own.pull, shared=False)
            return
        name = f"fn/{request.namespace}/{request.parse.name}"
        yield Place(await self._shared_transport(), name, f"{self.settings.registry_pull}/{name}", shared=True)

    def _result(
        self,
        place: Place,
        digest: str,
        request: BuildRequest,
        parsed: Parsed,
        transfer: Transfer,
        *,
        reused: bool,
    ) -> dict[str, Any]:
        return {
            "image": f"{place.pull}@{digest}",
            "digest": digest,
            "key": request.key,
            "reused": reused,
            "uploadedBytes": transfer.uploaded_bytes,
            "layersMounted": transfer.mounted,
            "openapi": {"digest": sha256(parsed.canonical_openapi)},
        }


@contextlib.contextmanager
def _index_errors() -> Iterator[None]:
    try:
        yield
    except AddressRefused as error:
        raise AddressRefused(
            f"`spec.python.indexRef`: {error}; write the address of another package index into the Secret's key `url`"
        ) from error


@contextlib.contextmanager
def _registry_errors(own: Destination | None) -> Iterator[None]:
    """What a registry of the user's own refuses is for the user to mend; what ours refuses never is."""
    try:
        yield
    except CloudmeshError as error:
        if own is None or not isinstance(error, AuthFailed | InvalidRequest | Unsupported):
            raise RegistryUnavailable(str(error)) from error
        raise InvalidRequest(_what_to_mend(own, error)) from error


def _what_to_mend(own: Destination, error: CloudmeshError) -> str:
    where = f"{own.endpoint.name}/{own.name}"
    match error:
        case AddressRefused():
            return f"`spec.image.repository`: {error}; name a registry outside of the cluster, or leave the field out"
        case AuthFailed() if own.endpoint.credentials:
            return f"`spec.image.pushSecretRef`: {error}; put a login into the Secret that may push to {where}"
        case AuthFailed():
            return f"`spec.image.pushSecretRef`: {error}; name a Secret with a login that may push to {where}"
        case _:
            return f"`spec.image.repository`: {error}; name a repository that the builder can push to"
