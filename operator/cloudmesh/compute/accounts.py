"""Live handles of CloudAccounts: provider, limits, failure memory and last listings, shared by all reconcilers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from cloudmesh.api import conditions as c
from cloudmesh.compute.clocks import clock_of
from cloudmesh.compute.cloud_metrics import CloudMetrics
from cloudmesh.compute.endpoints import guard_of
from cloudmesh.compute.failures import FailureMemory
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machines import is_failed
from cloudmesh.compute.nodes import NodeBook
from cloudmesh.compute.ports import Finding, Identity, Node, Provider, ProviderInfo, powers_of
from cloudmesh.compute.providers.registry import Maker, find_maker
from cloudmesh.compute.rate import Bucket
from cloudmesh.compute.redact import Redactor
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.compute.tokens import Scope
from cloudmesh.engine import (
    SECRET,
    AuthFailed,
    CloudmeshError,
    Conflict,
    Engine,
    Key,
    Obj,
    RateLimited,
    Resource,
    Transient,
    is_deleting,
    per_engine,
)
from cloudmesh.policy.model import Block, Offer
from cloudmesh.policy.offers import OfferTable

T = TypeVar("T")

NOT_READ = "not read yet"
CALL_SECONDS = 30.0
LEASE_MARGIN_SECONDS = 6.0
NAMESPACE = Resource("v1", "Namespace", "namespaces", namespaced=False)
SYSTEM_NAMESPACE = "kube-system"
CHANGED_AFTER_SECONDS = 1.0
BY_ACCOUNT, BY_ASKED, BY_STARTED = "account", "account-asked", "account-started"
"""Indexes of VirtualMachines in the cache: of an account; those of it that count; those of it that were started."""
STARTS = 9
MAX_VALUE = 253
FREE = ("check", "offers", "identity")
"""Calls that touch no machine: they need no proof of whose credentials these are."""
STRANGE_SECONDS = 5.0


class Busy(Exception):
    """The account's rate is used up, or it isn't known whose account it is: come back after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the account can't be called for {seconds:.2f} s")
        self.seconds = seconds


class Account:
    """The live handle of one CloudAccount.

    Args:
        hub: What all accounts share.
        obj: The CloudAccount.
        scope: Whose nodes are its own.
        provider: The cloud.
        memory: What failed a moment ago.
    """

    def __init__(self, hub: Accounts, obj: Obj, scope: Scope, provider: Provider, memory: FailureMemory) -> None:
        meta = obj["metadata"]
        self.namespace: str = meta["namespace"]
        self.name: str = meta["name"]
        self.uid: str = meta["uid"]
        self.key = Key(CLOUD_ACCOUNT.kind, self.namespace, self.name)
        self.scope = scope
        self.provider = provider
        self.info: ProviderInfo = provider.info
        self.powers: tuple[str, ...] = powers_of(provider)
        self.images: Mapping[str, str] = {}
        self.limit_machines: int | None = None
        self.ready = False
        self.reason = c.REASON_PENDING
        self.message = "not checked yet"
        self.findings: tuple[Finding, ...] = ()
        self.offers: tuple[Offer, ...] = ()
        self.offers_as_of = ""
        self.offers_error = NOT_READ
        self.priced: OfferTable | None = None
        self.failures = memory
        self.nodes = NodeBook(self.info.grace_seconds)
        self.identity = ""
        """The cloud's own account, as the present credentials tell it; empty until they were asked."""
        self.home: str = (obj.get("status") or {}).get("identity", "")
        """The one that the machines were made in."""
        self.fingerprint: Hashable = None
        self.secret = ""
        """Name of the Secret that carries the finalizer."""
        self.held = False
        """Whether the CloudAccount and its Secret carry the finalizer that keeps them."""
        self.guard = asyncio.Lock()
        """Held while that finalizer is set or taken off."""
        self.starting: set[str] = set()
        """Uids of machines that are just being asked for."""
        self.unmade: set[str] = set()
        """Uids of machines that were to be asked for, and for sure weren't made."""
        self.retried: str = (obj.get("status") or {}).get("retriedBy", "")
        """Value of annotation `cloudmesh.org/retry-requested` that was acted on."""
        self.deleting = False
        self.idle_since: float | None = None
        """Since when no machine needs it, on the loop's clock."""
        self.region = ""
        self.sheets: tuple[Any, ...] = ()
        """Versions of the PriceSheets that its offers were priced with."""
        self.quarantined = ""
        """Why some of its prices aren't believed."""
        self.bucket = Bucket(None)
        self.redactor = Redactor()
        self.survey_wanted = asyncio.Event()
        self.poll_wanted = asyncio.Event()
        self.hinted = False
        """Something has changed behind our back, it is said: the next listing needn't wait for it."""
        self._hub = hub
        self.keys: dict[str, Key] = {}
        """VirtualMachine of each create token."""
        self.silent = False
        """It hasn't listed its machines for several tries: what they do isn't known."""
        self.told: tuple[Offer, ...] = ()
        """Offers as the provider told them, before they were priced."""
        self.starts: dict[str, deque[int]] = {
            told["type"]: deque([told["seconds"]], maxlen=STARTS)
            for told in (obj.get("status") or {}).get("startSeconds") or ()
        }
        """Seconds to Ready of the last machines, by type."""
        self.judged: set[str] = set()
        """Uids of machines whose status is what this process found; others' is what an earlier leader left."""
        self._waiting: dict[str, Key] = {}
        self._by_id: tuple[int, dict[str, Offer]] = (-1, {})
        self._offers_version = 0

    def __repr__(self) -> str:
        return f"Account({self.namespace}/{self.name}, {self.info.kind})"

    def use(self, provider: Provider) -> None:
        """Goes on with another provider: the spec or the credentials changed."""
        self.provider = provider
        self.info = provider.info
        self.powers = powers_of(provider)
        self.nodes.grace_seconds = provider.info.grace_seconds
        self.identity = ""
        self.told = ()  # other offers than before are no reason to doubt them
        self.failures.accept()
        self.failures.clear()

    @property
    def unseen(self) -> bool:
        """Whether this process's first look at it goes on: until it ends, what an earlier leader found stands."""
        return not self.ready and not self.silent and self.reason == c.REASON_PENDING

    # -- whose credentials -----------------------------------------------------------------------------------------

    @property
    def strange(self) -> str:
        """Why the credentials are no good for the machines that there are, empty if they are."""
        if self.identity == self.home or not self.identity:
            return ""
        return (
            f"the credentials lead to {self.identity}, and there are machines in {self.home}: "
            "put the old credentials (and region) back until those machines are gone"
        )

    @property
    def proven(self) -> bool:
        """Whether calls reach the machines that there are."""
        return not isinstance(self.provider, Identity) or (bool(self.identity) and self.identity == self.home)

    def identify(self, identity: str, *, occupied: bool) -> None:
        """Takes in whose credentials these are.

        Args:
            identity: The cloud's own account.
            occupied: There are machines of the one before.
        """
        self.identity = identity
        if identity != self.home and not (self.home and occupied):
            if self.home:
                self.nodes = NodeBook(self.info.grace_seconds)
            self.home = identity
            self._hub.changed(self)

    # -- failures ------------------------------------------------------------------------------------------------

    def blocks(self) -> tuple[Block, ...]:
        """The failure memory, without what is over."""
        return self.failures.blocks(self._hub.now())

    def remember(self, offer: Offer, error: CloudmeshError) -> None:
        """Keeps in mind that an offer failed; the status follows within a second."""
        if isinstance(error, AuthFailed):
            self.refuse(error)
        elif self.failures.remember(offer, error, self._hub.now(), quota=self.info.quota_seconds):
            self._hub.changed(self)

    def retry(self, value: str) -> None:
        """Somebody wants what failed to be tried again at once.

        Args:
            value: Of the annotation; only a new one counts.
        """
        value = value[:MAX_VALUE]
        if value in ("", self.retried):
            return
        self.retried = value
        if self.failures.clear():
            self._hub.changed(self, now=True)
            self._hub.wake_users(self)

    def worked(self, offer: Offer) -> None:
        """An offer gave a machine: what is remembered against it goes."""
        if self.failures.forget(offer):
            self._hub.changed(self)

    def refuse(self, error: AuthFailed) -> None:
        """The cloud refuses the credentials: nothing works until somebody changes them."""
        self.failures.refuse(self.name, error)
        self.set_ready(False, error.reason, str(error))

    def set_ready(self, ready: bool, reason: str, message: str) -> None:
        """Says whether it can be used, and wakes all that waits for it when that changes."""
        before = (self.ready, self.reason)
        self.ready, self.reason, self.message = ready, reason, message
        if before != (ready, reason):
            self._hub.changed(self, now=True)
            self._hub.wake_users(self)

    def set_silent(self, silent: bool) -> None:
        """Says whether the cloud answers to listings, and wakes all machines when that changes."""
        if self.silent != silent:
            self.silent = silent
            self._hub.changed(self)
            self._hub.wake_users(self)

    # -- offers --------------------------------------------------------------------------------------------------

    def set_offers(self, offers: Sequence[Offer]) -> None:
        """Takes priced offers in."""
        new = tuple(offers)
        if new == self.offers and self.priced is not None:
            return
        self.offers = new
        self.priced = OfferTable.from_offers(new)
        self._offers_version += 1
        self._hub.changed(self)
        self._hub.wake_users(self)

    @property
    def offers_version(self) -> int:
        """Grows with each change of the offers."""
        return self._offers_version

    def offer(self, offer_id: str) -> Offer | None:
        """The offer of an id, None if the account doesn't have it (any more)."""
        if self._by_id[0] != self._offers_version:
            self._by_id = (self._offers_version, {offer.id: offer for offer in self.offers})
        return self._by_id[1].get(offer_id)

    def observe_start(self, type_: str, seconds: int) -> None:
        """Notes how long a machine of a type took to be ready."""
        self.starts.setdefault(type_, deque(maxlen=STARTS)).append(max(0, seconds))
        self._hub.changed(self)

    # -- calls ---------------------------------------------------------------------------------------------------

    async def call(
        self,
        operation: str,
        work: Callable[[], Awaitable[T]],
        *,
        caller: Hashable = None,
        seconds: float = CALL_SECONDS,
        effect: bool = False,
    ) -> T:
        """Calls the cloud, within the account's rate and a time limit.

        Args:
            operation: Name for metrics.
            work: The call.
            caller: Who waits in the line of the rate.
            seconds: Time limit; beyond it the outcome is unknown.
            effect: It changes something: the lease must be held for a while.

        Raises:
            Busy: Not yet; nothing was done.
            CloudmeshError: As the provider raises it; whatever else it raises is an unknown outcome.
        """
        loop = asyncio.get_running_loop()
        if operation not in FREE and not self.proven:
            raise Busy(STRANGE_SECONDS)
        if wait := self.bucket.wait(caller, loop.time()):
            raise Busy(wait)
        if effect:
            self._hub.engine.require_lease(LEASE_MARGIN_SECONDS)
        begin, result = time.monotonic(), "ok"
        try:
            async with asyncio.timeout(seconds):
                answer = await work()
        except CloudmeshError as error:
            result = error.reason
            if isinstance(error, RateLimited):
                self.bucket.pause(error.retry_after, loop.time())
            self.redactor.clean(error)
            raise
        except TimeoutError:
            result = Transient.reason
            raise Transient(f"{operation} took longer than {seconds:g} s") from None
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; the text may hold secrets
            result = "Unexpected"
            raise Transient(f"{operation} failed unexpectedly: {type(error).__name__}") from None
        except BaseException:
            result = "cancelled"
            raise
        finally:
            self._hub.metrics.calls.labels(self.info.kind, operation, result).inc()
            self._hub.metrics.seconds.labels(self.info.kind, operation).observe(time.monotonic() - begin)
        self.bucket.went_well()
        return answer

    # -- nodes ---------------------------------------------------------------------------------------------------

    def learn(self, node: Node) -> None:
        """Takes in what a create or look-up told of a node."""
        self.nodes.put(node, asyncio.get_running_loop().time())

    def expect(self, token: str, key: Key) -> None:
        """A machine is changing: list often, and wake it by what the listings show or don't show."""
        if token not in self._waiting:
            self._waiting[token] = key
            self.poll_wanted.set()

    def hint(self) -> None:
        """Somebody says that a machine has changed: list at once, but no more often than allowed."""
        self.hinted = True
        self.poll_wanted.set()

    def settled(self, token: str) -> None:
        """A machine is as it should be."""
        self._waiting.pop(token, None)

    def forget_machine(self, token: str) -> None:
        """A VirtualMachine is gone."""
        self._waiting.pop(token, None)
        self.keys.pop(token, None)
        self.nodes.drop(token)

    @property
    def waiting(self) -> Mapping[str, Key]:
        """Tokens of machines that are changing, and their keys."""
        return self._waiting


class Accounts:
    """All accounts of a process.

    Args:
        engine: Access to the cluster.
        settings: Of the compute wing.
        now: RFC 3339 time.
        maker: Finds the function that makes a kind's providers.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ComputeSettings | None = None,
        *,
        now: Callable[[], str] | None = None,
        maker: Callable[[str], Maker] = find_maker,
    ) -> None:
        self.engine = engine
        engine.cache.add_index(VIRTUAL_MACHINE, BY_ACCOUNT, lambda obj: [_account_of(obj)])
        engine.cache.add_index(VIRTUAL_MACHINE, BY_ASKED, _asked)
        engine.cache.add_index(VIRTUAL_MACHINE, BY_STARTED, _started)
        self.settings = settings or ComputeSettings()
        self.guard = guard_of(engine, self.settings)
        self.now = now or clock_of(engine).now
        self.maker = maker
        self.metrics = CloudMetrics(engine.metrics)
        self.added = asyncio.Event()
        """Set when an account came or went."""
        self._accounts: dict[tuple[str, str], Account] = {}
        self._installation = ""
        self._tables: dict[tuple[Any, ...], OfferTable] = {}

    def get(self, namespace: str, name: str) -> Account | None:
        """One account; None if it isn't known (yet)."""
        return self._accounts.get((namespace, name))

    def hint(self, namespace: str, name: str) -> None:
        """Something has changed in an account, it is said."""
        if (account := self.get(namespace, name)) is not None:
            account.hint()

    def in_namespace(self, namespace: str) -> list[Account]:
        """All accounts of a namespace."""
        return [account for (space, _), account in sorted(self._accounts.items()) if space == namespace]

    def all(self) -> list[Account]:
        """All accounts."""
        return list(self._accounts.values())

    def table(self, namespace: str, names: Sequence[str]) -> OfferTable:
        """The priced offers of some accounts in one table, kept until one of them changes."""
        found = [account for name in names if (account := self.get(namespace, name)) and account.priced is not None]
        key = (namespace, *((account.uid, account.offers_version) for account in found))
        table = self._tables.get(key)
        if table is None:
            if len(self._tables) >= 64:
                self._tables.clear()
            table = OfferTable.merge([account.priced for account in found if account.priced is not None])
            self._tables[key] = table
        return table

    def put(self, account: Account) -> None:
        """Takes an account on, in place of one of its name."""
        self._accounts[(account.namespace, account.name)] = account
        self.added.set()

    def drop(self, namespace: str, name: str) -> Account | None:
        """Forgets an account, and gives it."""
        account = self._accounts.pop((namespace, name), None)
        if account is not None:
            self.added.set()
        return account

    async def scope(self, namespace: str, name: str) -> Scope:
        """Whose nodes an account's are: the installation is told by the uid of a namespace that every cluster has.

        Raises:
            Transient: It can't be read.
        """
        if not self._installation:
            found = await self.engine.kube.get(NAMESPACE, None, SYSTEM_NAMESPACE)
            if found is None:
                raise Transient(f"the namespace {SYSTEM_NAMESPACE} isn't there")
            self._installation = found["metadata"]["uid"]
        return Scope(self._installation, namespace, name)

    async def hold(self, account: Account) -> None:
        """Sets the finalizer that keeps the CloudAccount and its Secret while a machine needs them.

        Raises:
            Conflict: The account is being deleted.
        """
        if account.held and not account.deleting:
            return
        async with account.guard:
            finalizers = self.engine.finalizers
            obj = self.engine.cache.get(CLOUD_ACCOUNT, account.namespace, account.name)
            if obj is None or obj["metadata"]["uid"] != account.uid or is_deleting(obj):
                raise Conflict(f"CloudAccount '{account.name}' is being deleted: it makes no new machines")
            await finalizers.hold(CLOUD_ACCOUNT, obj)
            if name := secret_of(obj):
                secret = await self.engine.kube.get(SECRET, account.namespace, name)
                if secret is None:
                    raise AuthFailed(f"Secret '{name}' isn't there")
                await finalizers.hold(SECRET, secret)
            if account.secret not in ("", name) and not self._needed(obj, account.secret):
                before = await self.engine.kube.get(SECRET, account.namespace, account.secret)
                if before is not None:
                    await finalizers.release(SECRET, before)
            account.secret, account.held = name, True

    async def release(self, account: Account, obj: Obj) -> bool:
        """Takes that finalizer off if no machine is left; gives whether it is off."""
        async with account.guard:
            if self.machines(account):
                return False
            account.held = False
            await self.let_go(obj)
            return True

    async def let_go(self, obj: Obj) -> None:
        """Takes the finalizer off a CloudAccount, and off its Secret if no other account needs that."""
        finalizers, meta = self.engine.finalizers, obj["metadata"]
        if (name := secret_of(obj)) and not self._needed(obj, name):
            secret = await self.engine.kube.get(SECRET, meta["namespace"], name)
            if secret is not None:
                await finalizers.release(SECRET, secret)
        await finalizers.release(CLOUD_ACCOUNT, obj)

    def _needed(self, obj: Obj, secret: str) -> bool:
        namespace = obj["metadata"]["namespace"]
        others = [
            other
            for other in self.engine.cache.list(CLOUD_ACCOUNT, namespace)
            if secret_of(other) == secret and other["metadata"]["uid"] != obj["metadata"]["uid"]
        ]
        used = {machine["spec"]["accountRef"]["name"] for machine in self.engine.cache.list(VIRTUAL_MACHINE, namespace)}
        return any(other["metadata"]["name"] in used for other in others)

    def machines(self, account: Account) -> list[Obj]:
        """The VirtualMachines of an account, as the cache has them."""
        return self._machines(account.namespace, account.name)

    def machines_of(self, obj: Obj) -> list[Obj]:
        """The same of a CloudAccount."""
        return self._machines(obj["metadata"]["namespace"], obj["metadata"]["name"])

    def _machines(self, namespace: str, name: str) -> list[Obj]:
        return self.engine.cache.indexed(VIRTUAL_MACHINE, BY_ACCOUNT, (namespace, name))

    def is_occupied(self, account: Account) -> bool:
        """Whether a machine of an account was asked for and isn't seen gone."""
        return any(
            _may_stand(obj.get("status") or {})
            for obj in self.machines(account)
            if obj["metadata"]["uid"] not in account.unmade
        )

    def count_asked(self, account: Account) -> int:
        """How many machines of an account there are or are to be; those that were refused don't count."""
        return self.engine.cache.count_indexed(VIRTUAL_MACHINE, BY_ASKED, (account.namespace, account.name))

    def count_started(self, account: Account) -> int:
        """How many machines of an account were started, with those that are just being started."""
        started = self.engine.cache.count_indexed(VIRTUAL_MACHINE, BY_STARTED, (account.namespace, account.name))
        return started + sum(1 for uid in account.starting if not self._is_started(uid))

    def _is_started(self, uid: str) -> bool:
        return self.engine.cache.count_indexed(VIRTUAL_MACHINE, BY_STARTED, uid) > 0

    def changed(self, account: Account, *, now: bool = False) -> None:
        """Something of an account's status changed: written at once, or with what else comes within a second."""
        self.engine.enqueue(account.key, None if now else CHANGED_AFTER_SECONDS)

    def wake_users(self, account: Account) -> None:
        """Looks at all machines of an account again, and at the clusters around it."""
        for obj in self.machines(account):
            self.engine.enqueue(Key(VIRTUAL_MACHINE.kind, account.namespace, obj["metadata"]["name"]))
        self.wake_clusters(account)

    def wake_clusters(self, account: Account) -> None:
        """Looks at the clusters of an account's namespace again."""
        for namespace, name in self.engine.cache.names(VIRTUAL_CLUSTER, account.namespace):
            self.engine.enqueue(Key(VIRTUAL_CLUSTER.kind, namespace, name))


def _account_of(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["spec"]["accountRef"]["name"]


def _asked(obj: Obj) -> list[Hashable]:
    return [] if is_failed(obj.get("status") or {}) else [_account_of(obj)]


def _started(obj: Obj) -> list[Hashable]:
    status = obj.get("status") or {}
    return [_account_of(obj), obj["metadata"]["uid"]] if status.get("createToken") and not is_failed(status) else []


def _may_stand(status: Mapping[str, Any]) -> bool:
    if not status.get("createToken") or status.get("state") == "Deleted":
        return False
    return bool(status.get("providerID")) or not is_failed(status)


def secret_of(obj: Obj) -> str:
    """Name of the Secret that a CloudAccount logs in with, empty for none."""
    reference = (obj["spec"].get("credentials") or {}).get("secretRef") or {}
    return str(reference.get("name", ""))


@per_engine
def shared(engine: Engine, **options: Any) -> Accounts:
    """The accounts of an engine: the same for all of its reconcilers.

    Args:
        engine: The engine.
        options: Of `Accounts`, for the first who asks.
    """
    return Accounts(engine, **options)
