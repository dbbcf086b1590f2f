"""The reconciler of DataStore: whether it can be used, who uses it, and that it stays while somebody does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.api.datastore import DataStore
from cloudmesh.data.access import Access, access_of, redacted, secret_of
from cloudmesh.data.asked import store_prices
from cloudmesh.data.config import Prices
from cloudmesh.data.errors import ReadOnly
from cloudmesh.data.kinds import CLAIM, DATA_STORE, PRICE_SHEET, VIRTUAL_DIRECTORY
from cloudmesh.data.settings import DataSettings
from cloudmesh.data.store_status import COUNTERS_SECONDS, Look, counts_differ, make_status, settle
from cloudmesh.data.stores.clouds import identity_token
from cloudmesh.data.stores.common import EXPIRATION_KEY
from cloudmesh.data.stores.local import INFO as LOCAL
from cloudmesh.data.stores.registry import Make, StoreContext, maker
from cloudmesh.data.using import Use, users_of
from cloudmesh.engine import (
    AuthFailed,
    CloudmeshError,
    Done,
    Engine,
    InvalidRequest,
    Key,
    Obj,
    Settings,
    Unsupported,
    has_finalizer,
    is_abandoned,
    is_deleting,
    utc_now,
)

PROBE_SECONDS = 60.0
RETRY_SECONDS = 10.0
PROBE_LIMIT = 15.0
HELD_SECONDS = 10.0


NOT_ASKED = "gateways prove who they are by a token of their own: each directory tells whether it was believed"


class StoreReconciler:
    """Keeps every DataStore's status true, and keeps it and its Secret while a directory needs them.

    Args:
        engine: Access to the cluster.
        access: Reads credentials.
        make: Finds the function that makes a kind's stores.
        now: RFC 3339 time.
    """

    resource = DATA_STORE
    owns = ()

    def __init__(
        self,
        engine: Engine,
        access: Access,
        *,
        make: Callable[[str], Make] = maker,
        now: Callable[[], str] = utc_now,
    ) -> None:
        self._engine = engine
        self._access = access
        self._make = make
        self._now = now
        self._counted: dict[Key, float] = {}
        self._looks: dict[Key, tuple[float, object, Look]] = {}
        """When a store was asked last, by what, and what that showed: who only counts anew asks it no more often."""
        self._told: dict[Key, tuple[Any, ...]] = {}
        self._secrets: dict[Key, str] = {}

    def forget(self, key: Key) -> None:
        """The object is gone."""
        for memory in (self._counted, self._looks, self._told, self._secrets):
            memory.pop(key, None)
        self._wake(key)

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One pass: a look at the store, its status, and the finalizer that keeps it."""
        secret = secret_of(obj)
        self._engine.references.set(key, [("Secret", key.namespace, secret)] if secret else [])
        uses = users_of(key.name, self._engine.cache.list(VIRTUAL_DIRECTORY, key.namespace))
        if is_deleting(obj):
            return await self._end(obj, uses)
        if (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_PAUSED) == "true":
            return await self._pause(obj)
        if not c.find_condition((obj.get("status") or {}).get("conditions") or [], c.READY):
            obj = await self._write_pending(obj)
        store = DataStore.model_validate(obj)
        found: dict[str, bytes] = {}
        look = await self._look(obj, store, found, held=bool(uses))
        look = replace(look, ends=found.get(EXPIRATION_KEY, b"").decode("ascii", "replace").strip())
        prices = store_prices(obj, self._engine.cache.list(PRICE_SHEET, key.namespace), self._now())
        late = await self._write(key, obj, store.spec.kind, look, uses, prices)
        if uses:
            before = self._secrets.get(key, "")
            if before not in ("", secret):
                await self._access.release_secret(obj, before)
            self._secrets[key] = secret
        else:
            await self._access.release(self._newest(obj))
        mark = (
            obj["metadata"]["uid"],
            obj["metadata"].get("generation"),
            obj["metadata"].get("labels"),
            look.ready,
            prices,
        )
        if self._told.get(key) != mark:
            self._told[key] = mark
            self._wake(key)
        if not look.ready:
            return Done(requeue_after=RETRY_SECONDS)
        asked = self._looks[key][0] if key in self._looks else self._clock()
        due = max(1.0, asked + PROBE_SECONDS - self._clock())
        return Done(requeue_after=min(due, COUNTERS_SECONDS) if late else due)

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()

    def _newest(self, obj: Obj) -> Obj:
        return self._engine.cache.get(DATA_STORE, obj["metadata"]["namespace"], obj["metadata"]["name"]) or obj

    def _wake(self, key: Key) -> None:
        """Directories that name the store look again."""
        for use in users_of(key.name, self._engine.cache.list(VIRTUAL_DIRECTORY, key.namespace)):
            self._engine.enqueue(Key(VIRTUAL_DIRECTORY.kind, key.namespace, use.directory))

    # -- looking -----------------------------------------------------------------------------------------------------

    async def _look(self, obj: Obj, store: DataStore, credentials: dict[str, bytes], *, held: bool) -> Look:
        """One look; `credentials` takes what the Secret holds."""
        try:
            credentials |= await self._access.credentials(obj, hold=held)
            if store.spec.local is not None:
                return await self._look_at_claim(
                    store.metadata.namespace, store.spec.local.persistent_volume_claim_ref.name
                )
            return await self._asked(obj, store, credentials)
        except (AuthFailed, InvalidRequest, Unsupported, ReadOnly) as error:
            return Look(False, error.reason, redacted(str(error), credentials))
        except CloudmeshError as error:
            return Look(None, c.REASON_STORE_UNAVAILABLE, redacted(f"{error.reason}: {error}", credentials))

    async def _asked(self, obj: Obj, store: DataStore, credentials: Mapping[str, bytes]) -> Look:
        """What the store showed lately, or shows now."""
        key, identity = Key(DATA_STORE.kind, store.metadata.namespace, store.metadata.name), self._access.identity(obj)
        meta = obj["metadata"]
        by = meta["uid"], meta.get("generation"), hash(frozenset(credentials.items())), identity
        kept = self._looks.pop(key, None)
        if kept is None or not kept[2].ready or by != kept[1] or self._clock() >= kept[0] + PROBE_SECONDS:
            kept = self._clock(), by, await self._probe(store, credentials, identity)
        self._looks[key] = kept
        return kept[2]

    async def _probe(self, store: DataStore, credentials: Mapping[str, bytes], identity: Mapping[str, str]) -> Look:
        spec = store.spec
        context = StoreContext(
            store.metadata.name,
            spec.place.to_dict(),
            credentials,
            allow_private=self._access.settings.allow_private_endpoints,
            guard=self._access.guard,
            identity={**identity, "tokenFile": identity_token(identity["audience"])} if identity else {},
        )
        opened = self._make(spec.kind)(context)
        try:
            if identity:
                # the token is the gateways': nobody else can ask the store
                return Look(True, "Checked", NOT_ASKED, strong=opened.info.strong)
            async with asyncio.timeout(PROBE_LIMIT):
                probe = await opened.probe()
        except TimeoutError:
            return Look(None, c.REASON_STORE_UNAVAILABLE, f"no answer within {PROBE_LIMIT:g} s")
        finally:
            await opened.close()
        message = probe.message or f"it answers in {'a moment' if probe.latency_ms < 1000 else 'over a second'}"
        return Look(
            True, "Checked", redacted(message, credentials), probe.writable, probe.latency_ms, opened.info.strong
        )

    async def _look_at_claim(self, namespace: str, name: str) -> Look:
        claim = await self._engine.kube.get(CLAIM, namespace, name)
        if claim is None:
            return Look(False, c.REASON_STORE_UNAVAILABLE, f"PersistentVolumeClaim '{name}' isn't there")
        if is_deleting(claim):
            return Look(False, c.REASON_STORE_UNAVAILABLE, f"PersistentVolumeClaim '{name}' is being deleted")
        match (claim.get("status") or {}).get("phase"):
            case "Bound":
                return Look(True, "Checked", f"PersistentVolumeClaim '{name}' has its volume", strong=LOCAL.strong)
            case "Lost":
                told = f"PersistentVolumeClaim '{name}' has lost its volume"
                return Look(False, c.REASON_STORE_UNAVAILABLE, told, strong=LOCAL.strong)
            case _:
                told = f"PersistentVolumeClaim '{name}' has no volume yet; many volumes come with the first Pod"
                return Look(None, c.REASON_PENDING, told, strong=LOCAL.strong)

    # -- status ------------------------------------------------------------------------------------------------------

    async def _write(self, key: Key, obj: Obj, kind: str, look: Look, uses: list[Use], prices: Prices) -> bool:
        """Writes the status; says whether it tells older counters than there are."""
        old, clock = obj.get("status") or {}, self._clock()
        wanted = make_status(obj, kind, look, uses, self._now(), prices)
        status, counted = settle(wanted, old, self._counted.get(key, float("-inf")), clock)
        if counted:
            self._counted[key] = clock
        self._events(obj, old, status)
        await self._engine.status.write(DATA_STORE, obj, status)
        return counts_differ(wanted, status)

    def _events(self, obj: Obj, old: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        before = c.find_condition(old.get("conditions") or (), c.READY) or {}
        after = c.find_condition(status["conditions"], c.READY) or {}
        if (before.get("status"), before.get("reason")) != (after["status"], after["reason"]):
            type_: Any = "Warning" if after["status"] == "False" else "Normal"
            self._engine.events.emit(obj, type_, after["reason"], after["message"])

    async def _write_pending(self, obj: Obj) -> Obj:
        conditions = c.Conditions.of(obj, self._now())
        conditions.ready("Unknown", c.REASON_PENDING, "seen", reconciling=True)
        await self._put(obj, conditions)
        return self._newest(obj)

    async def _pause(self, obj: Obj) -> Done:
        conditions = c.Conditions.of(obj, self._now())
        conditions.pause(names.ANNOTATION_PAUSED)
        await self._put(obj, conditions)
        return Done()

    async def _put(self, obj: Obj, conditions: c.Conditions) -> None:
        old = obj.get("status") or {}
        status = {**old, "observedGeneration": conditions.generation, "conditions": conditions.list}
        await self._engine.status.write(DATA_STORE, obj, status)

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _end(self, obj: Obj, uses: list[Use]) -> Done:
        if not has_finalizer(obj, names.FINALIZER_IN_USE):
            return Done()
        if uses and not is_abandoned(obj):
            conditions = c.Conditions.of(obj, self._now())
            waits = ", ".join(use.directory for use in uses[:20])
            conditions.ready("False", "Deleting", f"waits for directories that use it: {waits}", reconciling=True)
            await self._put(obj, conditions)
            return Done(requeue_after=HELD_SECONDS)
        if uses:
            left = ", ".join(use.directory for use in uses[:20])
            self._engine.events.emit(
                obj, "Warning", "Abandoned", f"the store goes though directories keep files in it: {left}"
            )
        await self._access.release(obj)
        return Done()


def reconciler(engine: Engine, settings: Settings) -> StoreReconciler:
    """The reconciler of an operator."""
    return StoreReconciler(engine, access_of(engine, DataSettings.from_environ()))
