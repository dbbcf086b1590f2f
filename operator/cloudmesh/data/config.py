"""What a gateway is told: the operator writes it as JSON into a Secret, the gateway reads it from the mounted file."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Access = Literal["ReadWrite", "ReadOnly", "Drain"]
Prefer = Literal["Cheapest", "Nearest", "Fastest", "Balanced", "Sequential", "Random", "Plugin"]


class Prices(msgspec.Struct, frozen=True, rename="camel"):
    """What a store costs, in nano-units of the currency; None where nobody knows: unknown is never free."""

    currency: str = "USD"
    gib_month: int | None = None
    thousand_writes: int | None = None
    thousand_reads: int | None = None
    gib_egress: int | None = None
    source: str = ""
    confidence: str = "unknown"
    as_of: str = ""


class StoreConfig(msgspec.Struct, frozen=True, rename="camel"):
    """One store of the directory.

    Args:
        name: Name of the DataStore.
        kind: Member of its spec.
        settings: That member.
        credentials: The Secret's data, base64.
        prefix: Beginning of all keys of this directory in it, with a slash at the end, or empty.
        access: What it may be used for.
        domain: Stores of the same one are lost together: for `spread: Provider`.
        region: Where it is, empty if unknown.
        capacity: Bytes that it may hold, None for no limit.
        requests_per_second: Limit.
        bytes_per_second: Limit.
        prices: What it costs.
        must_be_priced: Nothing is put into it while nobody knows what it costs.
        placed_by: Prices by which Cheapest goes until others are approved; None for `prices`.
        awaits_approval: Nothing is put into it before somebody approves that it belongs to the directory.
        mount: Folder of a local store's volume.
        uid: Of the DataStore.
        identity: What proves who the gateway is in the place of a Secret: what `spec.credentials.workloadIdentity`
            says, with the name of the `session` and the `audience` of the token that it has for that.
    """

    name: str
    kind: str
    settings: Mapping[str, Any] = {}
    credentials: Mapping[str, str] = {}
    prefix: str = ""
    access: Access = "ReadWrite"
    domain: str = ""
    region: str = ""
    capacity: int | None = None
    requests_per_second: int | None = None
    bytes_per_second: int | None = None
    prices: Prices = Prices()
    must_be_priced: bool = False
    placed_by: Prices | None = None
    awaits_approval: bool = False
    mount: str = ""
    uid: str = ""
    identity: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"StoreConfig({self.name!r}, {self.kind!r})"


class Match(msgspec.Struct, frozen=True, rename="camel"):
    """Which files a rule is for; what is left out matches all.

    Args:
        path: Pattern of the whole path; `*` within a part, `**` over parts. Kept in NFC, as paths are.
        min_size: Bytes at least.
        max_size: Bytes at most.
        older_than_seconds: Not changed for so long.
        content_type: Media type with `*`, such as `image/*`.
        tags: Tags that it must have.
    """

    path: str = "**"
    min_size: int = 0
    max_size: int | None = None
    older_than_seconds: int = 0
    content_type: str = ""
    tags: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        # a pattern in another form of Unicode than the paths would match nothing, and say nothing
        msgspec.structs.force_setattr(self, "path", unicodedata.normalize("NFC", self.path))


class PlacementRule(msgspec.Struct, frozen=True, rename="camel"):
    """How files are placed.

    Args:
        name: For people.
        match: Which files.
        copies: Copies wanted.
        min_copies: Copies without which a write isn't acknowledged, and none is removed.
        spread: Copies must lie in different stores, providers or regions.
        prefer: Which stores come first.
        near: Regions that Nearest is near to.
        plugin: Entry point that ranks stores, for Plugin.
        only: Stores that may be used, empty for all.
        but: Stores that may not.
        weak_copies: Whether copies in weak stores count toward `min_copies`.
    """

    name: str = "default"
    match: Match = Match()
    copies: int = 2
    min_copies: int = 1
    spread: Literal["Store", "Provider", "Region"] = "Store"
    prefer: Prefer = "Balanced"
    near: tuple[str, ...] = ()
    plugin: str = ""
    only: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    weak_copies: Literal["Ignore", "Count"] = "Ignore"

    def allows(self, store: str) -> bool:
        """Whether it may use the store of that name, by `only` and `but`."""
        return (not self.only or store in self.only) and store not in self.but


class AccessRule(msgspec.Struct, frozen=True, rename="camel"):
    """Who may do what below a path; the first rule that fits decides."""

    path: str = "**"
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    access: Literal["ReadWrite", "ReadOnly", "None"] = "ReadWrite"

    def __post_init__(self) -> None:
        # see Match
        msgspec.structs.force_setattr(self, "path", unicodedata.normalize("NFC", self.path))


class Guest(msgspec.Struct, frozen=True, rename="camel"):
    """Who comes with a password that the operator made, such as a VirtualCluster for one of its mounts.

    Args:
        name: Who it is for rules.
        hashed: bcrypt hash of the password.
        folder: All that it may see; empty for the whole directory. Kept in NFC, as paths are.
        access: What it may do there.
    """

    name: str
    hashed: str
    folder: str = ""
    access: Literal["ReadWrite", "ReadOnly"] = "ReadWrite"

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "folder", unicodedata.normalize("NFC", self.folder))

    def __repr__(self) -> str:
        return f"Guest({self.name!r})"


class AuthConfig(msgspec.Struct, frozen=True, rename="camel"):
    """Who is let in.

    Args:
        kubernetes: Tokens of Kubernetes: whoever may `get` (and to change, `update`) virtualdirectories/files.
        basic: By user name a bcrypt hash.
        anonymous: What whoever doesn't say who they are may do.
        rules: Paths.
        guests: By the name that they show, who else is let in with a password.
    """

    kubernetes: bool = True
    basic: Mapping[str, str] = {}
    anonymous: Literal["None", "ReadOnly", "ReadWrite"] = "None"
    rules: tuple[AccessRule, ...] = ()
    guests: Mapping[str, Guest] = {}

    def __repr__(self) -> str:
        return "AuthConfig(…)"


class StoreTerms(msgspec.Struct, frozen=True, rename="camel"):
    """What placement goes by in one store."""

    name: str
    access: Access = "ReadWrite"
    domain: str = ""
    region: str = ""
    prices: Prices = Prices()


class Proposal(msgspec.Struct, frozen=True, rename="camel"):
    """How files are to be placed once somebody has approved what that takes.

    Args:
        question: Hash of it: a quote answers one question.
        rules: In order.
        stores: All stores.
    """

    question: str
    rules: tuple[PlacementRule, ...]
    stores: tuple[StoreTerms, ...]


class DirectoryConfig(msgspec.Struct, frozen=True, rename="camel"):
    """One directory.

    Args:
        namespace: Namespace of the VirtualDirectory.
        name: Its name.
        uid: Its uid.
        installation: Id of the installation.
        stores: Stores, in the user's order.
        rules: In order; the first that matches a file places it.
        quota_bytes: Bytes of all files together, None for no limit.
        quota_files: Files at most, None for no limit.
        currency: Of what is told of costs.
        max_monthly_nanos: What all copies may cost a month, None for no limit.
        trash_seconds: How long what was deleted or replaced can be restored.
        versions: Older contents of a file that are kept; 0: a write replaces.
        settle_names: Objects get the names that their files have by now, where that is cheap.
        verify_seconds: How often each copy is read and compared; 0 for never.
        adopt: Files that stores already hold under the prefix appear in the tree.
        auth: Who is let in.
        web: The web page is served.
        webdav: WebDAV is served.
        operator_token: What the operator shows at `/internal/…`.
        allow_private: Addresses of loopback and link-local networks may be named by stores.
        forbidden: Hosts and addresses of this cluster that no store may be at, such as the API server's.
        proposal: What waits for approval, to be counted; None if nothing does.
        postgres: Address of the catalogue's database, with a password; empty for a file of its own.
        postgres_ca: Certificates of the authority that its server's certificate must be of, PEM; empty for none.
        ending: The directory is being deleted and its files stay: nothing is done any more, and the catalogue goes
            after it was written into the stores once more.
        emptying: The directory is being deleted with its files: nobody is let in, and all its objects go.
    """

    namespace: str
    name: str
    uid: str
    installation: str
    stores: tuple[StoreConfig, ...]
    rules: tuple[PlacementRule, ...] = (PlacementRule(),)
    quota_bytes: int | None = None
    quota_files: int | None = None
    currency: str = "USD"
    max_monthly_nanos: int | None = None
    trash_seconds: int = 2592000
    versions: int = 0
    settle_names: bool = True
    verify_seconds: int = 2592000
    adopt: bool = True
    auth: AuthConfig = AuthConfig()
    web: bool = True
    webdav: bool = True
    operator_token: str = ""
    allow_private: bool = False
    forbidden: tuple[str, ...] = ()
    proposal: Proposal | None = None
    emptying: bool = False
    postgres: str = ""
    postgres_ca: str = ""
    ending: bool = False

    def __repr__(self) -> str:
        return f"DirectoryConfig({self.namespace}/{self.name}, {len(self.stores)} stores)"


def dump(config: DirectoryConfig) -> bytes:
    """The JSON of it, the same for the same content."""
    return msgspec.json.encode(config, order="sorted")


def load(text: bytes) -> DirectoryConfig:
    """Reads it.

    Raises:
        msgspec.ValidationError: It isn't one.
    """
    return msgspec.json.decode(text, type=DirectoryConfig)


def fingerprint(text: bytes) -> str:
    """Hash of a configuration, by which operator and gateway agree on which one is in use; tells nothing of it."""
    return hashlib.sha256(text).hexdigest()[:16]


class StoreSummary(msgspec.Struct, frozen=True, rename="camel"):
    """How one store does, as the gateway sees it."""

    name: str
    state: Literal["Up", "Slow", "Unknown", "Gone", "Claimed", "Suspicious"]
    message: str = ""
    shrunk: bool = False
    """Its listing isn't believed, since it lacks too much (`SuspiciousShrink`); the message says what."""
    files: int = 0
    bytes: int = 0
    latency_ms: int = 0
    used: int | None = None
    free: int | None = None
    monthly_nanos: int | None = None
    """What its copies cost a month, None if nobody knows."""
    egress_bytes: int = 0
    """Bytes that were read from it through the gateway since the month began, in UTC."""
    egress_nanos: int | None = None
    """What those cost."""
    drained: bool = False
    """The directory needs nothing of it any more: no copy is on record, no write open, and its journal is elsewhere."""


class Quote(msgspec.Struct, frozen=True, rename="camel"):
    """What another way to place files takes, counted over all files; amounts are None where a price isn't known.

    Args:
        question: Hash of what was asked.
        files: Files of which copies are made.
        copies: Those copies.
        bytes: Of those copies.
        removed: Copies that go when those are there.
        removed_bytes: Of those.
        requests_nanos: What the requests cost, once.
        egress_nanos: What reading the sources costs, once.
        before_nanos: What keeping all copies costs a month now.
        after_nanos: What it costs then.
        currency: Of the amounts.
        unpriced: Stores whose price isn't known and that are concerned.
        unseen: Stores that didn't answer then: by the catalogue, and as if they took files.
        seconds: How long it takes at the stores' limits; None where they have none.
        made_at: Microseconds.
    """

    question: str
    files: int = 0
    copies: int = 0
    bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0
    requests_nanos: int | None = 0
    egress_nanos: int | None = 0
    before_nanos: int | None = 0
    after_nanos: int | None = 0
    currency: str = "USD"
    unpriced: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    seconds: int | None = None
    made_at: int = 0


class Counters(msgspec.Struct, frozen=True, rename="camel"):
    """What the mover did since the gateway's process began.

    Args:
        verified: Copies that were read and found whole.
        damaged: Copies whose bytes weren't those on record.
        repaired: Copies that were made in place of one that was lost, damaged or out of date.
        settled: Objects that got the names that their files have by now.
        shifted: Copies that went to an emptier store.
        trash_removed: Copies of what was deleted or replaced that were removed when its time was over.
        conflicts: Files that were made, or got their content, of what somebody else wrote over a copy.
    """

    verified: int = 0
    damaged: int = 0
    repaired: int = 0
    settled: int = 0
    shifted: int = 0
    trash_removed: int = 0
    conflicts: int = 0


class Summary(msgspec.Struct, frozen=True, rename="camel"):
    """What the gateway answers at `GET /internal/summary`; the operator makes the status of it."""

    config: str
    """`fingerprint` of the configuration in use."""
    error: str = ""
    """Why a newer configuration can't be used."""
    files: int = 0
    directories: int = 0
    bytes: int = 0
    pending: int = 0
    """Files that there is work with, as far as they are known: see `waking`."""
    waking: bool = False
    """Stores or rules changed, and not all files that have to be looked at since are in `pending` yet."""
    corrupted: int = 0
    """Copies whose bytes aren't those on record."""
    under_replicated: int = 0
    """Files with fewer whole copies than their rule wants."""
    unreachable: int = 0
    """Files without a whole copy in a store that answers."""
    beyond_repair: int = 0
    """Files without any whole copy, of which a damaged one is left."""
    done: Counters = Counters()
    clock_ahead_ms: int = 0
    """How far the gateway's clock is ahead of the stores', if so far that nothing is removed for its age; else 0."""
    stores: tuple[StoreSummary, ...] = ()
    verified_at: int = 0
    """When a copy was last read and found whole; 0 if none ever was."""
    monthly_nanos: int | None = None
    egress_nanos: int | None = None
    """What was read from all stores since the month began cost, None if nobody knows."""
    confidence: str = "unknown"
    """How sure `monthly_nanos` is."""
    currency: str = "USD"
    entries: int = 0
    snapshot_at: int = 0
    quote: Quote | None = None
    """What `proposal` takes."""
    quote_waits: str = ""
    """Why that isn't counted yet."""
    emptied: bool = False
    """All objects are gone, as `emptying` asks for."""
    ended: bool = False
    """The catalogue is gone, as `ending` asks for."""
    strangers: int = 0
    """Objects of others below its prefixes that `emptying` leaves there."""
    unaffordable: int = 0
    """Files some of whose copies wait, since they would cost more than `max_monthly_nanos`."""
    never_written: str = ""
    """Rules by which no write can be acknowledged, since their stores are weak."""
    troubles: str = ""
    """What goes wrong in the background, though files are served."""
