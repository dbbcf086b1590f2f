"""From the objects that users write to what a gateway is told. Pure."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from cloudmesh.api.datastore import KINDS, PLACES, DataStore
from cloudmesh.api.places import Location, Place
from cloudmesh.api.quantity import parse_quantity
from cloudmesh.api.virtualdirectory import DEFAULT_COPIES, DirectoryStore, VirtualDirectory
from cloudmesh.api.virtualdirectory import PlacementRule as AskedRule
from cloudmesh.data.config import (
    AccessRule,
    AuthConfig,
    DirectoryConfig,
    Guest,
    Match,
    PlacementRule,
    Prices,
    StoreConfig,
)
from cloudmesh.data.money import common_currency, in_currency
from cloudmesh.data.prices import prices_of, sheets_for
from cloudmesh.data.resources import mount_of
from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.engine.resources import Obj
from cloudmesh.policy.amounts import to_nanos

HTPASSWD_KEY = "htpasswd"
REGION_LABEL = "region"
_BCRYPT = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
MAX_USERS = 1000
UNPRICED = Prices()
"""Of a store whose price nobody knows."""


def prefix_of(namespace: str, directory: str, store: Mapping[str, Any]) -> str:
    """Beginning of a directory's keys in a store, empty for the whole store.

    Args:
        namespace: Of the directory.
        directory: Its name.
        store: Entry of its `spec.stores`.
    """
    asked = store.get("prefix") or f"{namespace}/{directory}/"
    return "" if asked == "/" else str(asked)


def place_of(store: Mapping[str, Any]) -> Place:
    """What a DataStore says of the place that it is.

    Raises:
        InvalidRequest: It is of no kind that is known here.
    """
    spec = store["spec"]
    kind = next((kind for kind in KINDS if kind in spec), None)
    if kind is None:
        raise InvalidRequest(f"DataStore '{store['metadata']['name']}' is of a kind that isn't known here")
    return PLACES[kind].model_validate(spec[kind])


def location_of(store: Mapping[str, Any]) -> Location:
    """Which place a DataStore is; see `place_of`."""
    secret = ((store["spec"].get("credentials") or {}).get("secretRef") or {}).get("name", "")
    return place_of(store).location(store["metadata"]["namespace"], secret)


def overlap(one: str, other: str) -> bool:
    """Whether two prefixes have keys in common."""
    return one.startswith(other) or other.startswith(one)


def _bytes(quantity: str | None) -> int | None:
    return None if quantity is None else math.ceil(parse_quantity(quantity))


def region_of(store: DataStore) -> str:
    """Where a store is: its label `region`, else that of its spec; empty if unknown."""
    return store.metadata.labels.get(REGION_LABEL) or store.spec.place.own_region


def store_prices(obj: Obj, sheets: Sequence[Obj], now: str) -> Prices:
    """What a store costs.

    Args:
        obj: The DataStore.
        sheets: PriceSheets of its namespace.
        now: RFC 3339 time.
    """
    store = DataStore.model_validate(obj)
    return prices_of(
        store.metadata.name, store.spec.kind, region_of(store), store.spec.place.domain, sheets=sheets_for(obj, sheets),
        now=now,
    )  # fmt: skip


def store_config(
    asked: DirectoryStore,
    namespace: str,
    directory: str,
    obj: Obj,
    credentials: Mapping[str, bytes],
    prices: Prices = UNPRICED,
    identity: Mapping[str, str] = MappingProxyType({}),
) -> StoreConfig:
    """One store of a directory.

    Args:
        asked: Entry of `spec.stores`.
        namespace: Of the directory.
        directory: Its name.
        obj: The DataStore.
        credentials: Data of its Secret.
        prices: What it costs.
        identity: What proves who the gateway is in the place of a Secret.
    """
    store = DataStore.model_validate(obj)
    kind, limits = store.spec.kind, store.spec.limits
    return StoreConfig(
        name=asked.name,
        kind=kind,
        settings=store.spec.place.to_dict(),
        credentials=encoded(credentials),
        prefix=prefix_of(namespace, directory, {"prefix": asked.prefix}),
        access=store.spec.access,
        domain=store.spec.place.domain,
        region=region_of(store),
        capacity=_bytes(store.spec.capacity),
        requests_per_second=limits.requests_per_second,
        bytes_per_second=_bytes(limits.bytes_per_second),
        prices=prices,
        mount=mount_of(asked.name) if kind == "local" else "",
        uid=store.metadata.uid,
        identity=dict(identity),
    )


def _near(asked: AskedRule, regions: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    if asked.near is None:
        return ()
    if asked.near.cluster_ref is not None:
        return tuple(regions.get(asked.near.cluster_ref.name, ()))
    return (asked.near.region,) if asked.near.region is not None else ()


def regions_of(cluster: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the machines of a VirtualCluster are, by name."""
    placement = (cluster.get("status") or {}).get("placement") or {}
    found = {str(one["region"]) for one in placement.get("decisions") or () if one.get("region")}
    return tuple(sorted(found))


def _rule(asked: AskedRule, stores: Sequence[str], regions: Mapping[str, Sequence[str]]) -> PlacementRule:
    only = tuple(asked.stores.only or ()) if asked.stores is not None else ()
    but = tuple(asked.stores.except_ or ()) if asked.stores is not None else ()
    usable = len(only) if only else len(stores) - len(but)
    match = asked.match
    return PlacementRule(
        name=asked.name,
        match=Match()
        if match is None
        else Match(
            path=match.path or "**",
            min_size=_bytes(match.min_size) or 0,
            max_size=None if match.max_size is None else math.floor(parse_quantity(match.max_size)),
            older_than_seconds=match.older_than_seconds or 0,
            content_type=match.content_type or "",
            tags=dict(match.tags),
        ),
        copies=asked.copies or max(1, min(DEFAULT_COPIES, usable)),
        min_copies=asked.min_copies,
        spread=asked.spread,
        prefer=asked.prefer,
        near=_near(asked, regions),
        plugin=asked.plugin.name if asked.plugin is not None else "",
        only=only,
        but=but,
        weak_copies=asked.weak_copies,
    )


def rules_of(
    directory: VirtualDirectory, regions: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> tuple[PlacementRule, ...]:
    """The rules of a directory as its gateway knows them.

    Args:
        directory: What was asked for.
        regions: By VirtualCluster, where it is.
    """
    names = [store.name for store in directory.spec.stores]
    return tuple(_rule(rule, names, regions) for rule in directory.spec.placement.rules)


def users_in(data: Mapping[str, bytes], secret: str) -> dict[str, str]:
    """Names and bcrypt hashes of a Secret's key `htpasswd`.

    Raises:
        InvalidRequest: The key is missing, or a line isn't a name and a bcrypt hash.
    """
    text = data.get(HTPASSWD_KEY)
    if text is None:
        raise InvalidRequest(f"Secret '{secret}' must have a key `{HTPASSWD_KEY}`, with lines of `htpasswd -B`")
    users: dict[str, str] = {}
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, digest = line.strip().partition(":")
        if not name or not _BCRYPT.fullmatch(digest):
            raise InvalidRequest(f"Secret '{secret}', `{HTPASSWD_KEY}`, line {number}: must be name:bcrypt-hash")
        users[name] = digest
    if len(users) > MAX_USERS:
        raise InvalidRequest(f"Secret '{secret}' has {len(users)} users: {MAX_USERS} are the most")
    return users


def auth_of(
    directory: VirtualDirectory, users: Mapping[str, str], guests: Mapping[str, Guest] = MappingProxyType({})
) -> AuthConfig:
    """Who is let in.

    Args:
        directory: What was asked for.
        users: Names and bcrypt hashes.
        guests: Clusters that have it mounted, by the names that they show.
    """
    auth = directory.spec.expose.auth
    return AuthConfig(
        kubernetes=auth.kubernetes == "Enabled",
        basic=dict(users),
        anonymous=auth.anonymous,
        rules=tuple(
            AccessRule(path=rule.path, users=tuple(rule.users), groups=tuple(rule.groups), access=rule.access)
            for rule in auth.rules
        ),
        guests=dict(guests),
    )


def directory_config(
    directory: VirtualDirectory,
    stores: Iterable[StoreConfig],
    *,
    installation: str,
    token: str,
    users: Mapping[str, str],
    guests: Mapping[str, Guest] = MappingProxyType({}),
    database: tuple[str, str] = ("", ""),
    allow_private: bool,
    forbidden: Sequence[str] = (),
    regions: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> DirectoryConfig:
    """What the gateway is told.

    Args:
        directory: What was asked for.
        stores: Its stores, and behind them those that are being emptied since they left it.
        installation: Id of the installation.
        token: What the operator shows at `/internal/…`.
        users: Names and bcrypt hashes.
        guests: Clusters that have it mounted, by the names that they show.
        database: Address of the catalogue's database, and certificates of its server's authority; empty for a file.
        allow_private: Endpoints in loopback and link-local networks are allowed.
        forbidden: Hosts and addresses of this cluster that no store may be at.
        regions: By VirtualCluster, where it is.
    """
    meta, spec, found = directory.metadata, directory.spec, tuple(stores)
    limit = spec.max_monthly_cost
    currency = common_currency((store.prices for store in found), limit.currency if limit is not None else "")
    return DirectoryConfig(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        installation=installation,
        stores=tuple(
            replace(store, prices=in_currency(store.prices, currency), must_be_priced=limit is not None)
            for store in found
        ),
        currency=currency,
        max_monthly_nanos=None if limit is None else to_nanos(limit.amount),
        rules=rules_of(directory, regions),
        quota_bytes=None if spec.quota is None or spec.quota.size is None else int(parse_quantity(spec.quota.size)),
        quota_files=None if spec.quota is None else spec.quota.files,
        trash_seconds=spec.versions.trash_seconds,
        versions=spec.versions.keep,
        settle_names=spec.settle_names == "WhenCheap",
        verify_seconds=spec.verify.every_seconds,
        adopt=spec.adopt == "Existing",
        auth=auth_of(directory, users, guests),
        web=spec.expose.web == "Enabled",
        webdav=spec.expose.webdav == "Enabled",
        operator_token=token,
        postgres=database[0],
        postgres_ca=database[1],
        allow_private=allow_private,
        forbidden=tuple(forbidden),
    )


def encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    """Data of a Secret as it stands in a configuration."""
    return {key: base64.b64encode(value).decode() for key, value in sorted(data.items())}


def decoded(data: Mapping[str, str] | None) -> dict[str, bytes]:
    """Data of a Secret as bytes.

    Raises:
        InvalidRequest: It isn't base64; the API server sees to that.
    """
    try:
        return {key: base64.b64decode(value) for key, value in (data or {}).items()}
    except binascii.Error as error:
        raise InvalidRequest(f"the Secret's data isn't base64: {error}") from error
