"""The reconciler of VirtualDirectory: tells a gateway what it has to do, and what it tells back."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.api.names import gateway_name
from cloudmesh.api.virtualdirectory import VirtualDirectory
from cloudmesh.data import config as configs
from cloudmesh.data.access import Access, access_of, secret_of
from cloudmesh.data.approval import Decision, decide, question_of
from cloudmesh.data.asked import (
    auth_of,
    decoded,
    directory_config,
    encoded,
    regions_of,
    store_config,
    store_prices,
    users_in,
)
from cloudmesh.data.catalog.address import database_in
from cloudmesh.data.clusters import mounting, read_guests
from cloudmesh.data.config import DirectoryConfig, StoreConfig, Summary
from cloudmesh.data.directory_metrics import DirectoryMetrics
from cloudmesh.data.kinds import (
    CLAIM,
    DATA_STORE,
    DEPLOYMENT,
    POD,
    PRICE_SHEET,
    SERVICE,
    VIRTUAL_CLUSTER,
    VIRTUAL_DIRECTORY,
)
from cloudmesh.data.notable import Notable
from cloudmesh.data.remote import Gateways
from cloudmesh.data.resources import CONFIG_KEY, make_claim, make_deployment, make_secret, make_service
from cloudmesh.data.settings import DataSettings
from cloudmesh.data.summary import HttpReader, Reader, Seen, Trouble, make_status, settle
from cloudmesh.data.using import claimed, claimed_elsewhere, first_parts, uses_of
from cloudmesh.engine import (
    SECRET,
    AuthFailed,
    CloudmeshError,
    Conflict,
    Done,
    Engine,
    InvalidRequest,
    Key,
    NameConflict,
    NotFound,
    Obj,
    Settings,
    Transient,
    Unsupported,
    has_finalizer,
    is_abandoned,
    is_deleting,
    utc_now,
)
from cloudmesh.engine.children import check_own, ensure_child

ANNOTATION_CONFIG = f"{names.GROUP}/config"
"""A new value on a Pod makes its node look at the mounted Secret at once, not within a minute."""
BY_PREFIX = "prefix"
"""Index of directories by the first part of their prefixes."""
REASON_CATALOG = "CatalogUnavailable"
WORKING_SECONDS = 2.0
IDLE_SECONDS = 15.0
TROUBLE_SECONDS = 30.0
NUDGE_SECONDS = 4.0
NUDGES = 8
"""A configuration that doesn't arrive by then is refused, or comes when the node looks by itself."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a gateway was told last: content of its Secret; no text if there is none."""

    text: bytes = b""
    config: DirectoryConfig | None = None

    @property
    def fingerprint(self) -> str:
        """By which the gateway says which one it uses."""
        return configs.fingerprint(self.text) if self.text else ""


@dataclass(frozen=True, slots=True)
class Nudge:
    """How often a configuration was brought to a gateway, and when last on the loop's clock."""

    fingerprint: str
    count: int
    at: float


class _Refused(Exception):
    """The spec can't be had now; what was there before goes on."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble


class DirectoryReconciler:
    """Keeps every VirtualDirectory's gateway as its spec asks, and its status as the gateway tells.

    Args:
        engine: Access to the cluster.
        access: Reads credentials.
        reader: Asks gateways; a parameter for tests.
        now: RFC 3339 time.
    """

    resource = VIRTUAL_DIRECTORY
    owns = (DEPLOYMENT, SERVICE, CLAIM, POD)

    def __init__(
        self, engine: Engine, access: Access, *, reader: Reader | None = None, now: Callable[[], str] = utc_now
    ) -> None:
        self._engine = engine
        self._access = access
        self._reader = reader or HttpReader()
        self._now = now
        self._counted: dict[Key, float] = {}
        self._nudged: dict[Key, Nudge] = {}
        self._strange: set[Key] = set()
        self._summaries: dict[Key, Summary] = {}
        self._notable: dict[Key, Notable] = {}
        engine.cache.add_index(VIRTUAL_DIRECTORY, BY_PREFIX, first_parts)
        engine.metrics.register(DirectoryMetrics(self._summaries))
        self._uses: dict[Key, tuple[Any, ...]] = {}

    def forget(self, key: Key) -> None:
        """The object is gone; its children go by their owner references, and stores may be let go."""
        self._counted.pop(key, None)
        self._nudged.pop(key, None)
        self._strange.discard(key)
        self._summaries.pop(key, None)
        self._notable.pop(key, None)
        for use in self._uses.pop(key, ()):
            self._engine.enqueue(Key(DATA_STORE.kind, key.namespace, use.store))

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One pass: read what was told and is answered, tell what is asked for now, write the status."""
        if not is_deleting(obj) and (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_PAUSED) == "true":
            return await self._pause(obj)
        if not c.find_condition((obj.get("status") or {}).get("conditions") or [], c.READY):
            obj = await self._write_pending(obj)
        directory = VirtualDirectory.model_validate(obj)
        self._refer(key, directory)
        self._wake_stores(key, obj)
        if is_deleting(obj):
            return await self._end(key, obj, directory)
        if directory.spec.deletion_policy == "Delete" or directory.spec.catalog.postgresql is not None:
            await self._engine.finalizers.ensure(VIRTUAL_DIRECTORY, obj)
        else:
            await self._engine.finalizers.remove(VIRTUAL_DIRECTORY, obj)
        trouble: Trouble | None = None
        decision: Decision | None = None
        told, summary, silence = Told(), None, "the gateway starts"
        try:
            told = await self._told(obj)
            summary, silence = await self._ask(key, told)
            wanted = await self._wanted(obj, directory, told, summary)
            if directory.spec.apply.mode == "RequireApproval":
                decision = self._decide(obj, wanted, told)
                wanted = decision.config
            told = await self._make(obj, directory, wanted, told)
            if not wanted.auth.basic and (missing := await self._no_users(directory)):
                trouble = missing
        except _Refused as error:
            trouble = error.trouble
            told = await self._let_in(obj, directory, told)
        except NameConflict as error:
            trouble = Trouble(c.REASON_NAME_CONFLICT, str(error))
        except InvalidRequest as error:
            trouble = Trouble("InvalidRequest", f"the API server refuses what the spec makes: {error}")
        seen = Seen(
            trouble, summary, silence, told.config, told.fingerprint, self._served(obj), decision,
            approval=directory.spec.apply.mode == "RequireApproval", deleted=self._deleted(key, directory),
        )  # fmt: skip
        counted = await self._write(key, obj, seen)
        current = summary is not None and summary.config == told.fingerprint
        if not current:
            await self._nudge(key, obj, told, summary)
        if trouble is not None:
            return Done(requeue_after=TROUBLE_SECONDS)
        if summary is None or not current:
            return Done(requeue_after=WORKING_SECONDS)
        busy = summary.pending or summary.waking
        settled = not busy and all(store.state in ("Up", "Slow") for store in summary.stores)
        # its stores hear of new numbers with the next pass
        return Done(requeue_after=IDLE_SECONDS if settled and not counted else WORKING_SECONDS)

    def _deleted(self, key: Key, directory: VirtualDirectory) -> tuple[str, ...]:
        found = ((s.name, self._engine.cache.get(DATA_STORE, key.namespace, s.name)) for s in directory.spec.stores)
        return tuple(name for name, store in found if store is not None and is_deleting(store))

    @staticmethod
    def _served(obj: Obj) -> bool:
        return "files" in (obj.get("status") or {})

    def _refer(self, key: Key, directory: VirtualDirectory) -> None:
        """Secrets whose change is a new look: its own, those of its stores, that of its users."""
        wanted = {gateway_name(key.name)}
        for asked in directory.spec.stores:
            store = self._engine.cache.get(DATA_STORE, key.namespace, asked.name)
            if store is not None and (name := secret_of(store)):
                wanted.add(name)
        if directory.spec.expose.auth.basic is not None:
            wanted.add(directory.spec.expose.auth.basic.secret_ref.name)
        if directory.spec.catalog.postgresql is not None:
            wanted.add(directory.spec.catalog.postgresql.uri_secret_ref.name)
        wanted.update(mounting(self._engine.cache, key.namespace))
        self._engine.references.set(key, [("Secret", key.namespace, name) for name in sorted(wanted)])

    def _wake_stores(self, key: Key, obj: Obj) -> None:
        """Stores look at who uses them when that changed."""
        uses, before = tuple(uses_of(obj)), self._uses.get(key, ())
        if uses != before:
            self._uses[key] = uses
            for name in {use.store for use in {*uses, *before} - ({*uses} & {*before})}:
                self._engine.enqueue(Key(DATA_STORE.kind, key.namespace, name))

    # -- what the gateway was told, and answers ------------------------------------------------------------------------

    async def _told(self, obj: Obj) -> Told:
        name = gateway_name(obj["metadata"]["name"])
        found = await self._engine.kube.get(SECRET, obj["metadata"]["namespace"], name)
        if found is None:
            return Told()
        check_own(SECRET, obj, found, name)
        text = decoded(found.get("data")).get(CONFIG_KEY, b"")
        try:
            return Told(text, configs.load(text))
        except msgspec.DecodeError:
            return Told()

    async def _ask(self, key: Key, told: Told) -> tuple[Summary | None, str]:
        """What the gateway answers, and why it doesn't."""
        deployment = self._engine.cache.get(DEPLOYMENT, key.namespace, gateway_name(key.name))
        self._strange.discard(key)
        if told.config is None or deployment is None:
            return None, "the gateway is being made"
        if trouble := _pod_trouble(self._engine.cache.children(told.config.uid, POD)):
            return None, trouble
        if not int((deployment.get("status") or {}).get("readyReplicas") or 0):
            return None, "the gateway starts"
        try:
            summary = await self._reader.read(key.namespace, key.name, told.config.operator_token)
        except AuthFailed:
            self._summaries.pop(key, None)
            # its Secret was made anew and hasn't come to it yet
            self._strange.add(key)
            return None, "the gateway takes up its new configuration"
        except Transient as error:
            self._summaries.pop(key, None)
            return None, str(error)
        self._summaries[key] = summary
        return summary, ""

    # -- what the gateway is to be told --------------------------------------------------------------------------------

    async def _wanted(
        self, obj: Obj, directory: VirtualDirectory, told: Told, summary: Summary | None
    ) -> DirectoryConfig:
        namespace, name = directory.metadata.namespace, directory.metadata.name
        cache = self._engine.cache
        known = {store["metadata"]["name"]: store for store in cache.list(DATA_STORE, namespace)}
        sheets = cache.list(PRICE_SHEET, namespace)
        if why := claimed(obj, cache.list(VIRTUAL_DIRECTORY, namespace), known):
            raise _Refused(Trouble(c.REASON_STORE_CLAIMED, why))
        if why := self._claimed_elsewhere(obj):
            raise _Refused(Trouble(c.REASON_STORE_CLAIMED, why))
        before = {store.name: store for store in told.config.stores} if told.config is not None else {}
        stores: list[StoreConfig] = []
        for asked in directory.spec.stores:
            store = known.get(asked.name)
            if store is None:
                raise _Refused(Trouble(c.REASON_STORE_UNAVAILABLE, f"DataStore '{asked.name}' isn't there"))
            if is_deleting(store) and asked.name not in before:
                raise _Refused(Trouble(c.REASON_STORE_UNAVAILABLE, f"DataStore '{asked.name}' is being deleted"))
            credentials = await self._credentials(store)
            prices = store_prices(store, sheets, self._now())
            identity = self._access.identity(store)
            stores.append(store_config(asked, namespace, name, store, credentials, prices, identity))
        named = {store.name for store in directory.spec.stores}
        for left in before.values():
            if left.name in named or left.name not in known or _emptied(left, told, summary):
                continue
            if left.awaits_approval:
                # it never belonged to the directory
                continue
            keys = encoded(await self._credentials(known[left.name]))
            prices = store_prices(known[left.name], sheets, self._now())
            stores.append(
                msgspec.structs.replace(left, access="Drain", credentials=keys, prices=prices, placed_by=None)
            )
        return directory_config(
            directory,
            stores,
            installation=await self._access.installation(),
            token=(told.config.operator_token if told.config is not None else "") or secrets.token_urlsafe(32),
            users=await self._users(directory),
            guests=await read_guests(self._engine, namespace, name),
            database=await self._database(directory),
            allow_private=self._access.settings.allow_private_endpoints,
            forbidden=await self._access.forbidden(),
            regions={
                cluster["metadata"]["name"]: regions_of(cluster) for cluster in cache.list(VIRTUAL_CLUSTER, namespace)
            },
        )

    def _decide(self, obj: Obj, wanted: DirectoryConfig, told: Told) -> Decision:
        """What of it may be told now."""
        status = obj.get("status") or {}
        placed = str(status.get("approvedQuestion", ""))
        if told.config is None and placed not in ("", question_of(wanted)):
            raise _Refused(
                Trouble(
                    c.REASON_AWAITING_APPROVAL,
                    "the rules that were approved are lost with the Secret of the gateway: write them into the spec"
                    " again, or set `apply.mode` to Auto",
                )
            )
        annotation = (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_APPROVED_QUOTE, "")
        return decide(wanted, told.config, status, annotation, self._now())

    def _claimed_elsewhere(self, obj: Obj) -> str:
        cache, parts = self._engine.cache, first_parts(obj)
        if "" in parts:
            others = cache.list(VIRTUAL_DIRECTORY)
        else:
            others = [o for part in ("", *parts) for o in cache.indexed(VIRTUAL_DIRECTORY, BY_PREFIX, part)]
        return claimed_elsewhere(obj, others, lambda namespace, name: cache.get(DATA_STORE, namespace, name))

    async def _credentials(self, store: Obj) -> dict[str, bytes]:
        about = f"DataStore '{store['metadata']['name']}'"
        try:
            return await self._access.credentials(store, hold=not is_deleting(store))
        except (AuthFailed, InvalidRequest, Unsupported) as error:
            raise _Refused(Trouble(c.REASON_STORE_UNAVAILABLE, f"{about}: {error}")) from error

    async def _users(self, directory: VirtualDirectory) -> dict[str, str]:
        basic = directory.spec.expose.auth.basic
        if basic is None:
            return {}
        name = basic.secret_ref.name
        found = await self._engine.kube.get(SECRET, directory.metadata.namespace, name)
        if found is None:
            # nobody of a Secret that is gone is let in; `_no_users` tells it
            return {}
        try:
            return users_in(decoded(found.get("data")), name)
        except InvalidRequest as error:
            raise _Refused(Trouble("InvalidRequest", str(error))) from error

    async def _no_users(self, directory: VirtualDirectory) -> Trouble | None:
        """What to tell where the Secret of the users isn't there."""
        basic = directory.spec.expose.auth.basic
        if basic is None or await self._engine.kube.get(SECRET, directory.metadata.namespace, basic.secret_ref.name):
            return None
        return Trouble("AuthFailed", f"Secret '{basic.secret_ref.name}' isn't there: nobody is let in by a password")

    async def _let_in(self, obj: Obj, directory: VirtualDirectory, told: Told) -> Told:
        """Tells the gateway who is let in, whatever else of the spec can't be had: nobody keeps a right for that."""
        if told.config is None:
            return told
        guests = await read_guests(self._engine, directory.metadata.namespace, directory.metadata.name)
        try:
            auth = auth_of(directory, await self._users(directory), guests)
        except _Refused:
            # who is known stays known until the Secret can be read; rules are of the spec
            auth = auth_of(directory, told.config.auth.basic, guests)
        if auth == told.config.auth:
            return told
        try:
            return await self._make(obj, directory, msgspec.structs.replace(told.config, auth=auth), told)
        except (NameConflict, InvalidRequest):
            # the trouble that is told is enough, and the next look tries again
            return told

    async def _database(self, directory: VirtualDirectory) -> tuple[str, str]:
        """Address of the catalogue's database and certificates of its authority; empty for a file."""
        asked = directory.spec.catalog.postgresql
        if asked is None:
            return "", ""
        name = asked.uri_secret_ref.name
        found = await self._engine.kube.get(SECRET, directory.metadata.namespace, name)
        if found is None:
            raise _Refused(Trouble(REASON_CATALOG, f"Secret '{name}' isn't there"))
        try:
            return database_in(decoded(found.get("data")), name)
        except InvalidRequest as error:
            raise _Refused(Trouble(REASON_CATALOG, str(error))) from error

    async def _make(self, obj: Obj, directory: VirtualDirectory, wanted: DirectoryConfig, told: Told) -> Told:
        """Makes the gateway and its configuration be as wanted."""
        kube, cache = self._engine.kube, self._engine.cache
        text = configs.dump(wanted)
        if (claim := make_claim(obj, directory)) is not None:
            await self._claim(obj, claim)
        if text != told.text:
            secret = make_secret(obj, text)
            try:
                if told.text:
                    await kube.apply(SECRET, secret)
                else:
                    await kube.create(SECRET, secret)
            except Conflict:
                there = await kube.get(SECRET, obj["metadata"]["namespace"], secret["metadata"]["name"])
                check_own(SECRET, obj, there, secret["metadata"]["name"])
                await kube.apply(SECRET, secret)
        settings = self._access.settings
        await ensure_child(kube, cache, SERVICE, obj, make_service(obj))
        deployment = make_deployment(obj, wanted, settings.gateway_image, log_level=settings.log_level)
        await ensure_child(kube, cache, DEPLOYMENT, obj, deployment)
        return Told(text, wanted)

    async def _claim(self, obj: Obj, claim: Obj) -> None:
        """Makes the volume that the catalogue lies on."""
        kube, cache = self._engine.kube, self._engine.cache
        found = cache.get(CLAIM, obj["metadata"]["namespace"], claim["metadata"]["name"])
        if found is None or is_deleting(found):
            # a claim can't be changed: what there is is as it was asked for, or a stranger's
            try:
                await kube.create(CLAIM, claim)
            except Conflict:
                there = await kube.get(CLAIM, obj["metadata"]["namespace"], claim["metadata"]["name"])
                check_own(CLAIM, obj, there, claim["metadata"]["name"])
        else:
            check_own(CLAIM, obj, found, claim["metadata"]["name"])

    async def _nudge(self, key: Key, obj: Obj, told: Told, summary: Summary | None) -> None:
        """Has the node bring a changed Secret to the gateway now."""
        if summary is None and key not in self._strange:
            return
        clock = asyncio.get_running_loop().time()
        before = self._nudged.get(key)
        if before is None or before.fingerprint != told.fingerprint:
            before = Nudge(told.fingerprint, 0, float("-inf"))
        if before.count >= NUDGES or clock < before.at + NUDGE_SECONDS:
            return
        self._nudged[key] = Nudge(told.fingerprint, before.count + 1, clock)
        for pod in self._engine.cache.children(obj["metadata"]["uid"], POD):
            if is_deleting(pod) or (pod.get("status") or {}).get("phase") != "Running":
                continue
            # the time makes it another value each time: the node may not have seen the new Secret yet
            patch = {"metadata": {"annotations": {ANNOTATION_CONFIG: f"{told.fingerprint} {self._now()}"}}}
            try:
                await self._engine.kube.patch(POD, key.namespace, pod["metadata"]["name"], patch)
            except NotFound:
                continue

    # -- status ------------------------------------------------------------------------------------------------------

    async def _write(self, key: Key, obj: Obj, seen: Seen) -> bool:
        """Writes the status; says whether its counters are new."""
        old, clock = obj.get("status") or {}, asyncio.get_running_loop().time()
        status, counted = settle(make_status(obj, seen, self._now()), old, self._counted.get(key, float("-inf")), clock)
        if counted:
            self._counted[key] = clock
        self._events(obj, old, status)
        if seen.summary is not None:
            for reason, message in self._notable.setdefault(key, Notable()).news(seen.summary, clock):
                self._engine.events.emit(obj, "Warning", reason, message)
        await self._engine.status.write(VIRTUAL_DIRECTORY, obj, status)
        return counted

    def _events(self, obj: Obj, old: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        before = c.find_condition(old.get("conditions") or (), c.READY) or {}
        after = c.find_condition(status["conditions"], c.READY) or {}
        if (before.get("status"), before.get("reason")) != (after["status"], after["reason"]):
            type_: Any = "Normal" if after["status"] == "True" or after["reason"] == c.REASON_PENDING else "Warning"
            self._engine.events.emit(obj, type_, after["reason"], after["message"])

    async def _write_pending(self, obj: Obj) -> Obj:
        conditions = c.Conditions.of(obj, self._now(), anew=True)
        conditions.ready("Unknown", c.REASON_PENDING, "seen", reconciling=True)
        status = {"observedGeneration": conditions.generation, "conditions": conditions.list}
        await self._engine.status.write(VIRTUAL_DIRECTORY, obj, status)
        return {**obj, "status": {**(obj.get("status") or {}), **status}}

    async def _pause(self, obj: Obj) -> Done:
        conditions = c.Conditions.of(obj, self._now())
        conditions.pause(names.ANNOTATION_PAUSED)
        status = {**(obj.get("status") or {}), "conditions": conditions.list}
        await self._engine.status.write(VIRTUAL_DIRECTORY, obj, status)
        return Done()

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _end(self, key: Key, obj: Obj, directory: VirtualDirectory) -> Done:
        """With deletionPolicy Delete the gateway takes all objects away first; else all that lasts is in the stores. A
        database isn't the directory's own: what it has in it goes too."""
        if not has_finalizer(obj, names.FINALIZER_CLEANUP):
            return Done()
        emptying = directory.spec.deletion_policy == "Delete"
        if (not emptying and directory.spec.catalog.postgresql is None) or is_abandoned(obj):
            if is_abandoned(obj):
                left = ", ".join(f"'{use.prefix}' in {use.store}" for use in uses_of(obj))
                self._engine.events.emit(obj, "Warning", "Abandoned", f"its objects may stay: {left}")
            await self._engine.finalizers.remove(VIRTUAL_DIRECTORY, obj)
            return Done()
        waits = ""
        try:
            told = await self._told(obj)
            summary, silence = await self._ask(key, told)
            done = summary is not None and (summary.emptied if emptying else summary.ended)
            if summary is not None and done and summary.config == told.fingerprint:
                if summary.strangers:
                    stay = f"{summary.strangers} objects below its prefixes were never its files: they stay"
                    self._engine.events.emit(obj, "Normal", "StrangersStay", stay)
                await self._engine.finalizers.remove(VIRTUAL_DIRECTORY, obj)
                return Done()
            if told.config is None and not self._served(obj):
                # it never had a gateway, so nothing was ever written
                await self._engine.finalizers.remove(VIRTUAL_DIRECTORY, obj)
                return Done()
            # by a deletion in the foreground even the Secret may be gone
            config = told.config or await self._wanted(obj, directory, told, summary)
            going = msgspec.structs.replace(config, emptying=emptying, ending=not emptying)
            told = await self._make(obj, directory, going, told)
            if summary is None or summary.config != told.fingerprint:
                await self._nudge(key, obj, told, summary)
            does = "empties the stores" if emptying else "writes the catalogue into the stores, and removes it"
            waits = silence or f"the gateway {does}"
        except _Refused as error:
            waits = error.trouble.message
        except CloudmeshError as error:
            uid = obj["metadata"]["uid"]
            give_up = f"the annotation {names.ANNOTATION_ABANDON}: {uid} gives up what can't be removed"
            await self._tell_end(obj, f"{error.reason}: {error}; {give_up}")
            raise
        await self._tell_end(obj, waits)
        return Done(requeue_after=WORKING_SECONDS)

    async def _tell_end(self, obj: Obj, waits: str) -> None:
        conditions = c.Conditions.of(obj, self._now())
        conditions.ready("False", "Deleting", waits, reconciling=True)
        status = {**(obj.get("status") or {}), "conditions": conditions.list}
        await self._engine.status.write(VIRTUAL_DIRECTORY, obj, status)


def _emptied(left: StoreConfig, told: Told, summary: Summary | None) -> bool:
    """Whether a directory needs nothing any more of a store that its gateway was told to empty."""
    if summary is None or summary.config != told.fingerprint or left.access != "Drain":
        return False
    return any(store.name == left.name and store.drained for store in summary.stores)


def _pod_trouble(pods: list[Obj]) -> str:
    """Why the gateway's Pod doesn't come up, empty if nothing is known against it."""
    for pod in pods:
        if is_deleting(pod):
            continue
        status = pod.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return f"the gateway's Pod has no node: {condition.get('message', '')}"
        for container in status.get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                last = ((container.get("lastState") or {}).get("terminated") or {}).get("message", "")
                told = waiting.get("message") or ""
                return f"the gateway's Pod: {waiting['reason']}: {(last or told)[:500]}".removesuffix(": ")
    return ""


def reconciler(engine: Engine, settings: Settings) -> DirectoryReconciler:
    """The reconciler of an operator; others reach directories' files through the engine."""
    engine.directories = Gateways(engine.kube)
    return DirectoryReconciler(engine, access_of(engine, DataSettings.from_environ()))
