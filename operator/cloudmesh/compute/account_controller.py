"""The reconciler of CloudAccount: credentials, provider, status, and who may go when."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.compute.account_status import Counted, make_status, settle, total
from cloudmesh.compute.accounts import Account, Accounts, secret_of, shared
from cloudmesh.compute.endpoints import hosts_of
from cloudmesh.compute.failures import FailureMemory
from cloudmesh.compute.identity import WorkloadIdentity, identity_of
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, PRICE_SHEET
from cloudmesh.compute.ports import Provider
from cloudmesh.compute.prices import Catalogue, next_change, price_offers
from cloudmesh.compute.providers.registry import DEFAULT_ACCOUNT, DEFAULT_ACCOUNT_NAME, Context, choose, listen
from cloudmesh.compute.redact import PUBLIC, Redactor
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.compute.surveyor import Surveyor
from cloudmesh.engine import (
    SECRET,
    AlreadyExists,
    AuthFailed,
    CloudmeshError,
    Done,
    Engine,
    Key,
    Obj,
    Settings,
    Transient,
    Unsupported,
    has_finalizer,
    is_abandoned,
    is_deleting,
)
from cloudmesh.engine.endpoints import check_allowed
from cloudmesh.policy.model import Offer

SECRET_TYPES = (names.SECRET_TYPE_CREDENTIALS, "kubernetes.io/ssh-auth")
HELD_SECONDS = 10.0
IDLE_SECONDS = 30.0
STATUS_SECONDS = 900.0


class AccountReconciler:
    """Keeps every CloudAccount's handle and status as its spec and Secret ask.

    Args:
        engine: Access to the cluster.
        accounts: Live accounts.
        catalogue: Packaged prices; loaded when they are first needed.
    """

    resource = CLOUD_ACCOUNT
    owns = ()

    def __init__(self, engine: Engine, accounts: Accounts, *, catalogue: Catalogue | None = None) -> None:
        self._engine = engine
        self._accounts = accounts
        self._catalogue = catalogue
        self._counted: dict[str, Counted] = {}
        self._surveyor = Surveyor(accounts, self.price)
        engine.background("accounts", self._surveyor.run)

    def forget(self, key: Key) -> None:
        """The object is gone."""
        account = self._accounts.drop(key.namespace, key.name)
        if account is not None:
            self._counted.pop(account.uid, None)
            self._surveyor.retire(account.provider)

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One pass: the handle is made or renewed, the finalizer set right, the status written."""
        try:
            return await self._pass(key, obj)
        except AuthFailed as error:
            # of the API server, mostly at the Secret's finalizer: what the cloud refuses is in the status by now
            self._engine.events.emit(obj, "Warning", error.reason, f"goes on trying: {error}")
            raise

    async def _pass(self, key: Key, obj: Obj) -> Done:
        name = secret_of(obj)
        self._engine.references.set(key, [("Secret", key.namespace, name)] if name else [])
        account = self._accounts.get(key.namespace, key.name)
        if is_deleting(obj):
            return await self._end(obj, account)
        if not c.find_condition((obj.get("status") or {}).get("conditions") or [], c.READY):
            obj = await self._write_pending(obj)
        try:
            account = await self._configure(obj, account)
        except Transient as error:
            if account is None:
                await self._tell(obj, "Unknown", c.REASON_PENDING, str(error))
            raise
        except CloudmeshError as error:
            if account is None:
                await self._tell(obj, "False", error.reason, str(error))
                return Done()
            account.set_ready(False, error.reason, str(error))
            account.fingerprint = None
        account.retry((obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_RETRY_REQUESTED, ""))
        requeue = await self._write(obj, account)
        if has_finalizer(obj, names.FINALIZER_IN_USE):
            if not self._accounts.machines(account):
                requeue = min(requeue, await self._idle(obj, account))
            else:
                account.idle_since = None
                if not account.held:  # another Secret than before: it must stay as well
                    await self._accounts.hold(account)
        return Done(requeue_after=requeue)

    # -- the handle ------------------------------------------------------------------------------------------------

    async def _configure(self, obj: Obj, account: Account | None) -> Account:
        """Makes the provider anew if its spec or its credentials changed."""
        meta, spec = obj["metadata"], obj["spec"]
        kind, member = choose(spec)
        credentials = await self._credentials(obj, kind, member)
        identity = identity_of(obj, hosts_of(kind, member), self._accounts.settings)
        images = spec.get("images") or {}
        proof = (_frozen(spec.get("credentials") or {}), tuple(sorted(credentials.items())))
        fingerprint = (kind, _frozen(member), _frozen(images), *proof)
        if account is None or account.uid != meta["uid"]:
            scope = await self._accounts.scope(meta["namespace"], meta["name"])
            provider = self._make(obj, kind, member, images, credentials, identity, scope.installation)
            account = Account(self._accounts, obj, scope, provider, FailureMemory.from_status(obj.get("status") or {}))
            account.held = has_finalizer(obj, names.FINALIZER_IN_USE) and not secret_of(obj)
            account.fingerprint = fingerprint
            self._accounts.put(account)
            self._accounts.wake_users(account)
        elif account.fingerprint != fingerprint:
            provider = self._make(obj, kind, member, images, credentials, identity, account.scope.installation)
            self._surveyor.retire(account.provider)
            account.use(provider)
            account.fingerprint, account.held = fingerprint, False
            account.survey_wanted.set()
        account.redactor = Redactor(value for name, value in credentials.items() if name not in PUBLIC)
        account.images = images
        account.region = str(member.get("region", ""))
        limits = spec.get("limits") or {}
        account.limit_machines = limits.get("machines")
        account.bucket.rate = limits.get("requestsPerSecond") or account.info.requests_per_second
        sheets = self._sheets(obj)
        versions = tuple(sheet["metadata"].get("resourceVersion") for sheet in sheets)
        if account.sheets != (mark := (versions, next_change(sheets, self._accounts.now()))):
            account.sheets = mark
            if account.offers_as_of:
                account.set_offers(self.price(account, account.told))
        return account

    def _make(
        self,
        obj: Obj,
        kind: str,
        member: Mapping[str, Any],
        images: Mapping[str, str],
        credentials: Mapping[str, bytes],
        identity: WorkloadIdentity | None,
        installation: str,
    ) -> Provider:
        meta, settings = obj["metadata"], self._accounts.settings
        try:
            maker = self._accounts.maker(kind)
        except Unsupported:
            self._accounts.metrics.unloaded.labels(kind).inc()
            raise
        return maker(
            Context(
                namespace=meta["namespace"],
                name=meta["name"],
                uid=meta["uid"],
                spec=member,
                images=images,
                credentials=credentials,
                identity=identity,
                kube=self._engine.kube,
                defaults=settings.defaults(),
                guard=self._accounts.guard,
                installation=installation,
            )
        )

    async def _credentials(self, obj: Obj, kind: str, member: Mapping[str, Any]) -> dict[str, bytes]:
        """Data of the Secret; it must be of the right type, and made for the hosts that the account names."""
        hosts = hosts_of(kind, member)
        if hosts:
            await self._accounts.guard.learn(self._engine.kube)
        self._accounts.guard.check_hosts(hosts)
        await self._accounts.guard.check_names(hosts)
        name = secret_of(obj)
        if not name:
            return {}
        secret = await self._engine.kube.get(SECRET, obj["metadata"]["namespace"], name)
        if secret is None:
            raise AuthFailed(f"Secret '{name}' isn't there")
        if secret.get("type") not in SECRET_TYPES:
            raise AuthFailed(f"Secret '{name}' must be of type {names.SECRET_TYPE_CREDENTIALS}")
        data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        check_allowed(hosts, data, name)
        return data

    # -- prices ----------------------------------------------------------------------------------------------------

    def price(self, account: Account, offers: Sequence[Offer]) -> Sequence[Offer]:
        """The offers with the best known prices."""
        obj = self._engine.cache.get(CLOUD_ACCOUNT, account.namespace, account.name)
        if self._catalogue is None:
            self._catalogue = Catalogue.load()
        return price_offers(
            offers,
            account=account.name,
            kind=account.info.kind,
            sheets=self._sheets(obj) if obj is not None else [],
            catalogue=self._catalogue,
            now=self._accounts.now(),
        )

    def _sheets(self, obj: Obj) -> list[Obj]:
        """PriceSheets of the namespace, the one that the account names first."""
        first = (obj["spec"].get("priceSheetRef") or {}).get("name", "")
        found = self._engine.cache.list(PRICE_SHEET, obj["metadata"]["namespace"])
        return sorted(found, key=lambda sheet: (sheet["metadata"]["name"] != first, sheet["metadata"]["name"]))

    # -- status ----------------------------------------------------------------------------------------------------

    async def _write(self, obj: Obj, account: Account) -> float:
        old, generation = obj.get("status") or {}, int(obj["metadata"].get("generation", 0))
        totals = total(self._accounts.machines(account))
        for currency, nanos in totals.hourly.items():
            self._accounts.metrics.hourly.labels(account.namespace, account.name, currency).set(nanos / 1e9)
        status = make_status(account, old, generation, totals, self._accounts.now())
        counted = self._counted.setdefault(account.uid, Counted())
        status, wait = settle(status, old, counted, asyncio.get_running_loop().time())
        self._events(obj, old, status)
        await self._engine.status.write(CLOUD_ACCOUNT, obj, status)
        return wait or STATUS_SECONDS

    def _events(self, obj: Obj, old: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        before = c.find_condition(old.get("conditions") or (), c.READY) or {}
        after = c.find_condition(status["conditions"], c.READY) or {}
        if (before.get("status"), before.get("reason")) != (after["status"], after["reason"]):
            type_: Any = "Warning" if after["status"] == "False" else "Normal"
            self._engine.events.emit(obj, type_, after["reason"], after["message"])

    async def _write_pending(self, obj: Obj) -> Obj:
        await self._tell(obj, "Unknown", c.REASON_PENDING, "seen")
        return self._engine.cache.get(CLOUD_ACCOUNT, obj["metadata"]["namespace"], obj["metadata"]["name"]) or obj

    async def _tell(self, obj: Obj, status: c.Status, reason: str, message: str) -> None:
        old, conditions = obj.get("status") or {}, c.Conditions.of(obj, self._accounts.now())
        conditions.ready(status, reason, message, reconciling=status == "Unknown", stalled=status == "False")
        new = {**old, "observedGeneration": conditions.generation, "conditions": conditions.list}
        if status == "False":
            self._events(obj, old, new)
        await self._engine.status.write(CLOUD_ACCOUNT, obj, new)

    # -- the end ---------------------------------------------------------------------------------------------------

    async def _idle(self, obj: Obj, account: Account) -> float:
        """No machine is left: what kept the account goes, unless a machine comes in a moment."""
        clock = asyncio.get_running_loop().time()
        if account.idle_since is None:
            account.idle_since = clock
        if (wait := account.idle_since + IDLE_SECONDS - clock) > 0:
            return wait
        account.idle_since = None
        await self._accounts.release(account, obj)
        return STATUS_SECONDS

    async def _end(self, obj: Obj, account: Account | None) -> Done:
        if account is not None:
            account.deleting = True
        if not has_finalizer(obj, names.FINALIZER_IN_USE):
            return Done()
        machines = self._accounts.machines_of(obj)
        if machines and is_abandoned(obj):
            left = ", ".join(sorted(machine["metadata"]["name"] for machine in machines)[:20])
            self._engine.events.emit(
                obj, "Warning", "Abandoned", f"the account goes though machines need it for their end: {left}"
            )
            await self._accounts.let_go(obj)
            return Done()
        if machines:
            if account is None:
                # a new leader: the machines can't be deleted without it
                account = await self._configure(obj, None)
                account.deleting = True
            account.set_ready(False, "Deleting", f"waits for {len(machines)} machines to end")
            await self._write(obj, account)
            return Done(requeue_after=HELD_SECONDS)
        await self._accounts.let_go(obj)
        return Done()


async def ensure_default_account(engine: Engine, namespace: str) -> str:
    """Makes the account that needs no credentials, once; what is there is never changed. Gives its name.

    Raises:
        CloudmeshError: It can't be made.
    """
    if engine.cache.get(CLOUD_ACCOUNT, namespace, DEFAULT_ACCOUNT_NAME) is None:
        body = {
            "apiVersion": CLOUD_ACCOUNT.api_version,
            "kind": CLOUD_ACCOUNT.kind,
            "metadata": {
                "name": DEFAULT_ACCOUNT_NAME,
                "namespace": namespace,
                "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY},
            },
            "spec": {kind: dict(member) for kind, member in DEFAULT_ACCOUNT.items()},
        }
        with contextlib.suppress(AlreadyExists):
            await engine.kube.create(CLOUD_ACCOUNT, body)
    return DEFAULT_ACCOUNT_NAME


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((key, _frozen(item)) for key, item in value.items()))
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value


def reconciler(engine: Engine, settings: Settings) -> AccountReconciler:
    """The reconciler of an operator."""
    accounts = shared(engine, settings=ComputeSettings.from_environ())
    listen(engine, accounts.hint)
    return AccountReconciler(engine, accounts)
