"""Accounts of files as live providers: checked, their offers read and priced."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudmesh.api import names
from cloudmesh.compute.accounts import secret_of
from cloudmesh.compute.command.documents import Documents, Obj
from cloudmesh.compute.endpoints import guard_by, hosts_of
from cloudmesh.compute.ports import Finding, Provider
from cloudmesh.compute.prices import Catalogue, price_offers
from cloudmesh.compute.providers.registry import DEFAULT_ACCOUNT, Context, choose, find_maker
from cloudmesh.compute.redact import PUBLIC, Redactor
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import AuthFailed, CloudmeshError, Kube, Unsupported
from cloudmesh.engine.endpoints import Guard, check_allowed
from cloudmesh.engine.kube.transport import Reply, Request
from cloudmesh.policy.model import Offer

SECONDS = 300.0
SECRET_TYPES = (names.SECRET_TYPE_CREDENTIALS, "kubernetes.io/ssh-auth")
NO_CLUSTER = "only the cluster itself can tell: this command doesn't connect to it"


class NeedsCluster(Unsupported):
    """What was asked can be answered inside a cluster only."""


class NoCluster:
    """Stands where the API server would be."""

    async def send(self, request: Request) -> Reply:
        """Refuses.

        Raises:
            NeedsCluster: Always.
        """
        raise NeedsCluster(NO_CLUSTER)

    async def close(self) -> None:
        """There is nothing to close."""


@dataclass(slots=True)
class Handle:
    """One account.

    Args:
        namespace: Its namespace.
        name: Its name.
        obj: The CloudAccount.
        kind: Which cloud, empty if that isn't known.
        provider: None if it couldn't be made.
        findings: Results of the check.
        unchecked: Why it couldn't be checked here, empty if it was.
        offers: With prices.
        trouble: Why its offers can't be had, empty if they can.
    """

    namespace: str
    name: str
    obj: Obj
    kind: str = ""
    provider: Provider | None = None
    findings: tuple[Finding, ...] = ()
    unchecked: str = ""
    offers: tuple[Offer, ...] = ()
    trouble: str = ""
    redactor: Redactor = field(default_factory=Redactor, repr=False)

    @property
    def failed(self) -> str:
        """Why it can't be used, empty if it can."""
        found = [f"{f.subject}: {f.message}" for f in self.findings if f.failed]
        return "; ".join(found) or self.trouble


@contextlib.asynccontextmanager
async def open_accounts(
    documents: Documents, accounts: Sequence[tuple[str, str]], settings: ComputeSettings
) -> AsyncIterator[list[Handle]]:
    """Makes the providers of accounts; what can't be made says why in its findings."""
    handles = []
    for namespace, name in accounts:
        obj = documents.objects.get("CloudAccount", {}).get((namespace, name))
        handles.append(_open(documents, namespace, name, obj or default_account(namespace, name), settings))
    try:
        yield handles
    finally:
        for handle in handles:
            if handle.provider is not None:
                await handle.provider.close()


def default_account(namespace: str, name: str) -> Obj:
    """The account that a namespace gets when a cluster names none."""
    return {"metadata": {"namespace": namespace, "name": name}, "spec": dict(DEFAULT_ACCOUNT)}


def _open(documents: Documents, namespace: str, name: str, obj: Obj, settings: ComputeSettings) -> Handle:
    spec = obj["spec"]
    handle = Handle(namespace, name, obj)
    try:
        handle.kind, member = choose(spec)
        guard = guard_by(settings)
        credentials = _credentials(documents, obj, handle.kind, member, guard)
        handle.redactor = Redactor(value for key, value in credentials.items() if key not in PUBLIC)
        context = Context(
            namespace=namespace,
            name=name,
            uid=obj["metadata"].get("uid", ""),
            spec=member,
            images=spec.get("images") or {},
            credentials=credentials,
            kube=Kube(NoCluster()),
            defaults=settings.defaults(),
            guard=guard,
        )
        handle.provider = find_maker(handle.kind)(context)
    except CloudmeshError as error:
        handle.findings = (_failure(handle, error),)
    return handle


def _credentials(
    documents: Documents, obj: Obj, kind: str, member: Mapping[str, Any], guard: Guard
) -> dict[str, bytes]:
    hosts = hosts_of(kind, member)
    guard.check_hosts(hosts)
    if "workloadIdentity" in (obj["spec"].get("credentials") or {}):
        raise NeedsCluster(
            "`workloadIdentity` is the operator's own: this command has no token of it, use a Secret here"
        )
    name = secret_of(obj)
    if not name:
        return {}
    key = (obj["metadata"]["namespace"], name)
    if key not in documents.secrets:
        raise AuthFailed(f"Secret '{name}' isn't in the files")
    if documents.secret_types[key] not in SECRET_TYPES:
        raise AuthFailed(f"Secret '{name}' must be of type {names.SECRET_TYPE_CREDENTIALS}")
    data = documents.secrets[key]
    check_allowed(hosts, data, name)
    return data


async def check(handles: Sequence[Handle]) -> None:
    """Checks accounts side by side; the results stand in the handles."""
    await asyncio.gather(*map(_check, handles))


async def _check(handle: Handle) -> None:
    provider = handle.provider
    if provider is None:
        return
    try:
        async with asyncio.timeout(SECONDS):
            handle.findings = tuple(await provider.check())
    except NeedsCluster as error:
        handle.unchecked = str(error)
    except TimeoutError:
        handle.findings = (Finding("check", False, f"no answer within {SECONDS:g} s"),)
    except CloudmeshError as error:
        handle.findings = (_failure(handle, error),)


async def read_offers(handles: Sequence[Handle], documents: Documents, now: str) -> None:
    """Reads and prices the offers of accounts side by side; what can't be had is told in `trouble`."""
    catalogue = Catalogue.load()
    await asyncio.gather(*(_read_offers(handle, documents, catalogue, now) for handle in handles))


async def _read_offers(handle: Handle, documents: Documents, catalogue: Catalogue, now: str) -> None:
    provider = handle.provider
    if provider is None:
        handle.trouble = handle.failed
        return
    try:
        async with asyncio.timeout(SECONDS):
            offers = await provider.offers()
    except TimeoutError:
        handle.trouble = f"no offers within {SECONDS:g} s"
        return
    except CloudmeshError as error:
        handle.trouble = _failure(handle, error).message
        return
    first = (handle.obj["spec"].get("priceSheetRef") or {}).get("name", "")
    sheets = documents.of("PriceSheet", handle.namespace)
    sheets.sort(key=lambda sheet: (sheet["metadata"]["name"] != first, sheet["metadata"]["name"]))
    handle.offers = tuple(
        price_offers(offers, account=handle.name, kind=handle.kind, sheets=sheets, catalogue=catalogue, now=now)
    )


def _failure(handle: Handle, error: CloudmeshError) -> Finding:
    subject = "credentials" if isinstance(error, AuthFailed) else "account"
    return Finding(subject, False, f"{error.reason}: {handle.redactor.text(str(error))}")
