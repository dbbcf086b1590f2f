"""What stores are reached with: their Secrets, the hosts that those may be sent to, and who holds them in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudmesh.api import names
from cloudmesh.api.datastore import PLACES
from cloudmesh.data.asked import decoded
from cloudmesh.data.kinds import CLOUD_ACCOUNT, DATA_STORE, NAMESPACE
from cloudmesh.data.settings import DataSettings
from cloudmesh.data.stores.clouds import audience, is_own
from cloudmesh.engine import (
    SECRET,
    AuthFailed,
    Engine,
    InvalidRequest,
    Obj,
    Transient,
    has_finalizer,
    is_deleting,
    per_engine,
)
from cloudmesh.engine.endpoints import HOSTS_KEY, Guard, check_allowed, hosts_at

SYSTEM_NAMESPACE = "kube-system"
MIN_SECRET = 4
"""Shorter values aren't looked for in texts: they stand everywhere."""


class Access:
    """Reads what stores need, for one process.

    Args:
        engine: Access to the cluster.
        settings: Of the data wing.
    """

    def __init__(self, engine: Engine, settings: DataSettings) -> None:
        self.settings = settings
        self._engine = engine
        self.guard = Guard(settings.forbidden_hosts, inside=settings.allow_private_endpoints)
        self._installation = ""

    async def installation(self) -> str:
        """Id of the installation: the uid of a namespace that every cluster has.

        Raises:
            Transient: It can't be read.
        """
        if not self._installation:
            found = await self._engine.kube.get(NAMESPACE, None, SYSTEM_NAMESPACE)
            if found is None:
                raise Transient(f"the namespace {SYSTEM_NAMESPACE} isn't there")
            self._installation = found["metadata"]["uid"]
        return self._installation

    async def forbidden(self) -> tuple[str, ...]:
        """Hosts and addresses of this cluster that no store may be at.

        Raises:
            Transient: The API server's addresses never could be read.
        """
        await self.guard.learn(self._engine.kube)
        return self.guard.forbidden

    async def credentials(self, store: Obj, *, hold: bool = False) -> dict[str, bytes]:
        """Data of a DataStore's Secret; it must be of the right type, and made for the host that the store names.

        Args:
            store: The DataStore.
            hold: Sets the finalizer that keeps DataStore and Secret while a directory needs them.

        Raises:
            AuthFailed: The Secret isn't there or of another type.
            InvalidRequest: The endpoint is refused, or the Secret doesn't list its host.
            Conflict: The DataStore is being deleted.
        """
        self.identity(store)
        spec = store["spec"]
        kind = next(kind for kind in PLACES if kind in spec)
        hosts = hosts_at(spec[kind], PLACES[kind].ENDPOINTS)
        if hosts:
            await self.guard.learn(self._engine.kube)
            self.guard.check_hosts(hosts)
            await self.guard.check_names(hosts)
        if hold:
            await self._engine.finalizers.hold(DATA_STORE, store)
        name = secret_of(store)
        if not name:
            return {}
        secret = await self._engine.kube.get(SECRET, store["metadata"]["namespace"], name)
        if secret is None:
            raise AuthFailed(f"Secret '{name}' isn't there")
        if secret.get("type") != names.SECRET_TYPE_CREDENTIALS:
            raise AuthFailed(f"Secret '{name}' must be of type {names.SECRET_TYPE_CREDENTIALS}")
        data = decoded(secret.get("data"))
        check_allowed(hosts, data, name)
        if hold and not is_deleting(secret):
            await self._engine.finalizers.hold(SECRET, secret)
        return data

    def identity(self, store: Obj) -> dict[str, str]:
        """What proves who a gateway is where the DataStore names no Secret; empty where it does, or needs nothing.

        Raises:
            InvalidRequest: It names an endpoint that isn't its cloud's own, to which no token is sent.
            AuthFailed: Its namespace may not.
        """
        asked = (store["spec"].get("credentials") or {}).get("workloadIdentity")
        if not asked:
            return {}
        meta, spec = store["metadata"], store["spec"]
        kind = next(kind for kind in PLACES if kind in spec)
        if not is_own(kind, spec[kind]):
            hosts = hosts_at(spec[kind], PLACES[kind].ENDPOINTS)
            raise InvalidRequest(
                "a store with an endpoint that isn't its cloud's own needs `spec.credentials.secretRef`:"
                f" {hosts[0]} gets no token"
            )
        if meta["namespace"] not in self.settings.identity_namespaces:
            raise AuthFailed(
                f"DataStores of namespace '{meta['namespace']}' may not use the identity of a service account: whoever"
                " installs Cloudmesh allows it by the chart's value `accounts.workloadIdentity.namespaces`; or use"
                " `spec.credentials.secretRef`"
            )
        session = f"{meta['namespace']}@{meta['name']}"
        for_whom = audience(kind, spec[kind], asked, self.settings.identity_audience)
        return {**asked, "session": session, "audience": for_whom}

    async def release(self, store: Obj) -> None:
        """Takes that finalizer off a DataStore that no directory needs, and off its Secret unless another one does."""
        if not has_finalizer(store, names.FINALIZER_IN_USE):
            return
        if name := secret_of(store):
            await self.release_secret(store, name)
        await self._engine.finalizers.release(DATA_STORE, store)

    async def release_secret(self, store: Obj, name: str) -> None:
        """Takes it off a Secret that this DataStore doesn't need any more, unless something else does."""
        namespace, own = store["metadata"]["namespace"], store["metadata"]["name"]
        for resource in (DATA_STORE, CLOUD_ACCOUNT):
            if not self._engine.cache.knows(resource):
                continue
            for other in self._engine.cache.list(resource, namespace):
                mine = resource is DATA_STORE and other["metadata"]["name"] == own
                if not mine and secret_of(other) == name and has_finalizer(other, names.FINALIZER_IN_USE):
                    return
        secret = await self._engine.kube.get(SECRET, namespace, name)
        if secret is not None:
            await self._engine.finalizers.release(SECRET, secret)


def secret_of(obj: Mapping[str, Any]) -> str:
    """Name of the Secret with the credentials of a DataStore or CloudAccount, empty if it has none."""
    return str(((obj["spec"].get("credentials") or {}).get("secretRef") or {}).get("name", ""))


def redacted(text: str, credentials: Mapping[str, bytes]) -> str:
    """A text of a store without what its Secret holds."""
    for key, value in credentials.items():
        word = value.decode("utf-8", "replace").strip()
        if key != HOSTS_KEY and len(word) >= MIN_SECRET:
            text = text.replace(word, "***")
    return text


@per_engine
def access_of(engine: Engine, settings: DataSettings | None = None) -> Access:
    """What both reconcilers of a process share.

    Args:
        engine: Its engine.
        settings: Of the data wing, for the first who asks; those of the environment if None.
    """
    return Access(engine, settings or DataSettings.from_environ())
