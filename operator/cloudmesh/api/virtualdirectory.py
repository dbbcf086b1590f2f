"""VirtualDirectory: one directory over several DataStores, its files placed and kept by rules."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.fields import ATOMIC, SET, LocalReference, ObjectMeta, Quantity, ResourceName, Unique, by_key
from cloudmesh.api.machines import OWN_NAME, Amount, PartName, exactly_one, positive, unchangeable
from cloudmesh.api.quantity import parse_quantity
from cloudmesh.api.schema import Column, Definition, Model, Rule, Rules, Shape
from cloudmesh.api.virtualdirectory_status import VirtualDirectoryStatus

MAX_STORES = 16
MAX_SECONDS = 10 * 366 * 86400
DEFAULT_COPIES = 2

_PREFIX = r"^(/|([A-Za-z0-9_.][-A-Za-z0-9_.]*/)+)$"
_PATH = r"^[^/\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
_MEDIA_TYPE = r"^[A-Za-z0-9*][-A-Za-z0-9!#$&^_.+*]*/[A-Za-z0-9*][-A-Za-z0-9!#$&^_.+*]*$"
_TAG = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"

Prefix = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=_PREFIX),
    Shape(_PREFIX, "`prefix` must end with '/', such as `lab/data/`, or be '/' for the whole store"),
    Rules(
        Rule(
            cel="!self.matches('(^|/)([.]{1,2}|[.]cloudmesh)/')",
            message="no part of `prefix` may be '.', '..' or '.cloudmesh'",
            holds=lambda p: re.search(r"(\A|/)(\.{1,2}|\.cloudmesh)/", p) is None,
        )
    ),
]
PathPattern = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=_PATH),
    Shape(_PATH, "`path` must be a pattern such as `raw/**` or `**/*.csv`, without a '/' at its beginning"),
]
"""A pattern of a whole path: `*` stands for any text within a part, `**` over parts, `?` for one character."""
StoreNames = Annotated[list[ResourceName], Field(min_length=1, max_length=MAX_STORES, json_schema_extra=SET), Unique]
Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[!-~]+$")]
"""A user or group, as whoever knows them writes it."""
Tags = Annotated[
    dict[str, Annotated[str, Field(max_length=256)]],
    Field(max_length=16),
    Rules(
        Rule(
            cel=f"self.all(k, k.size() <= 63 && k.matches('{_TAG}'))",
            message="`tags` must have names such as 'project' as keys",
            holds=lambda keys: all(len(k) <= 63 and re.search(rf"\A{_TAG[1:-1]}\Z", k) for k in keys),
        )
    ),
]


class DirectoryStore(Model):
    """One store of the directory."""

    RULES: ClassVar = (unchangeable("spec.stores[]", "prefix"),)

    name: ResourceName
    """Name of a DataStore in the namespace."""
    prefix: Prefix | None = None
    """Beginning of the keys of all objects in it, such as `lab/`; `/`: the whole store; left out, `NAMESPACE/NAME/`."""


class FileMatch(Model):
    """Which files a rule is for; what is left out matches all."""

    RULES: ClassVar = (
        Rule(
            cel=(
                "!has(self.minSize) || !has(self.maxSize) || !isQuantity(string(self.minSize))"
                " || !isQuantity(string(self.maxSize))"
                " || quantity(string(self.minSize)).compareTo(quantity(string(self.maxSize))) <= 0"
            ),
            message="`minSize` must not be more than `maxSize`",
            holds=lambda m: (
                m.min_size is None or m.max_size is None or parse_quantity(m.min_size) <= parse_quantity(m.max_size)
            ),
            field_path=".minSize",
        ),
    )

    path: PathPattern | None = None
    """Pattern of the whole path, such as `raw/**` or `**/*.csv`."""
    min_size: Quantity | None = None
    """Bytes at least, such as `1Gi`."""
    max_size: Quantity | None = None
    """Bytes at most."""
    older_than_seconds: Annotated[int, Field(ge=1, le=MAX_SECONDS)] | None = None
    """Not changed for so long, in seconds."""
    content_type: (
        Annotated[
            str,
            Field(min_length=3, max_length=128, pattern=_MEDIA_TYPE),
            Shape(_MEDIA_TYPE, "must be a media type such as `text/csv` or `image/*`"),
        ]
        | None
    ) = None
    """Media type, such as `text/csv` or `image/*`."""
    tags: Tags = Field(default_factory=dict)
    """Tags that a file must have, all of them."""


class Near(Model):
    """What files should be near to; exactly one of `region` and `clusterRef`."""

    RULES: ClassVar = (exactly_one("near", "region", "clusterRef"),)

    region: (
        Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")] | None
    ) = None
    """Region: that of the label `region` of a DataStore, else of its `spec.s3.region` or `spec.swift.region`."""
    cluster_ref: LocalReference | None = None
    """A VirtualCluster: near are the regions in which its machines are, as its status says."""


class PlacementPlugin(Model):
    """A placement that somebody else wrote."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z][-A-Za-z0-9_.]*$")]
    """Name of its entry point in group `cloudmesh.placement`."""


class StoreChoice(Model):
    """Which stores of the directory a rule may use; exactly one of `only` and `except`."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.only) != has(self.except)",
            message="`stores` of a rule must have exactly one of `only` and `except`",
            holds=lambda s: bool(s.only) != bool(s.except_),
        ),
    )

    only: StoreNames | None = None
    """These and no others."""
    except_: Annotated[StoreNames | None, Field(alias="except")] = None
    """All but these."""


class PlacementRule(Model):
    """How the files that it matches are placed."""

    RULES: ClassVar = (
        Rule(
            cel=f"self.minCopies <= (has(self.copies) ? self.copies : {DEFAULT_COPIES})",
            message=f"`minCopies` must not be more than `copies` ({DEFAULT_COPIES} if left out)",
            holds=lambda r: r.min_copies <= (r.copies or DEFAULT_COPIES),
            field_path=".minCopies",
        ),
        Rule(
            cel="(self.prefer == 'Nearest') == has(self.near)",
            message="`near` must be set when `prefer` is 'Nearest', and only then",
            holds=lambda r: (r.prefer == "Nearest") == (r.near is not None),
            field_path=".near",
        ),
        Rule(
            cel="(self.prefer == 'Plugin') == has(self.plugin)",
            message="`plugin` must be set when `prefer` is 'Plugin', and only then",
            holds=lambda r: (r.prefer == "Plugin") == (r.plugin is not None),
            field_path=".plugin",
        ),
    )

    name: PartName
    """Name of the rule, for people."""
    match: FileMatch | None = None
    """Which files; left out, all: the last rule must be such a one."""
    copies: Annotated[int, Field(ge=1, le=MAX_STORES)] | None = None
    """Copies wanted, each in another store; left out, 2, or 1 where there is but one store."""
    min_copies: Annotated[int, Field(ge=1, le=MAX_STORES)] = 1
    """Copies that must be whole before a write is acknowledged, and without which none is removed."""
    spread: Literal["Store", "Provider", "Region"] = "Store"
    """Copies lie in different stores, providers or regions, as far as there are such."""
    prefer: Literal["Balanced", "Cheapest", "Fastest", "Nearest", "Sequential", "Random", "Plugin"] = "Balanced"
    """Which stores come first: the least used, the cheapest for a month with one write and one read, the quickest,
    those near, in the order of `stores`, by chance, or as a `plugin` says."""
    near: Near | None = None
    """What files should be near to, for `prefer: Nearest`."""
    plugin: PlacementPlugin | None = None
    """What ranks the stores, for `prefer: Plugin`."""
    stores: StoreChoice | None = None
    """Which stores of the directory may be used; left out, all."""
    weak_copies: Literal["Ignore", "Count"] = "Ignore"
    """Count: copies in weak stores, where a write can't be tied to what is there, count toward `minCopies` too."""


class Placement(Model):
    """Where files lie."""

    RULES: ClassVar = (
        Rule(
            cel="!has(self.rules[self.rules.size() - 1].match)",
            message="the last of `rules` must be without `match`, so that each file has a rule",
            holds=lambda p: p.rules[-1].match is None,
            field_path=".rules",
        ),
    )

    rules: Annotated[
        list[PlacementRule], Field(min_length=1, max_length=32, json_schema_extra=by_key("name")), Unique
    ] = Field(default=[PlacementRule(name="default")])
    """In order; the first that matches a file places it."""


class Quota(Model):
    """What the directory holds at most; a write beyond it is refused."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.size) || has(self.files)",
            message="`quota` must have at least one of `size` and `files`",
            holds=lambda q: q.size is not None or q.files is not None,
        ),
    )

    size: Annotated[Quantity, positive("size")] | None = None
    """Bytes of all files, each counted once, such as `1Ti`."""
    files: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = None
    """Number of files."""


class Versions(Model):
    """What becomes of what was deleted or written over."""

    keep: Annotated[int, Field(ge=0, le=100)] = 0
    """Older contents of each file that can be restored; 0: none, a write replaces."""
    trash_seconds: Annotated[int, Field(ge=0, le=MAX_SECONDS)] = 2592000
    """How long what was deleted, and older contents, can be restored, in seconds; 0: not at all."""


class Verify(Model):
    """How copies are checked."""

    every_seconds: Annotated[int, Field(ge=0, le=MAX_SECONDS)] = 2592000
    """Each copy is read and compared after so many seconds; 0: never."""


class Sqlite(Model):
    """The catalogue as a file on a volume."""

    RULES: ClassVar = (
        unchangeable("spec.catalog.sqlite", "storage", required=True),
        unchangeable("spec.catalog.sqlite", "storageClassName"),
    )

    storage: Annotated[Quantity, positive("storage")] = "5Gi"
    """Size of the volume: a million files need about 1Gi."""
    storage_class_name: ResourceName | None = None
    """Class of the volume; left out, the cluster's default."""


class Postgresql(Model):
    """The catalogue in a schema of its own in a PostgreSQL database, from version 13."""

    uri_secret_ref: LocalReference
    """A Secret with the key `uri`, such as `postgresql://user:password@host/database?sslmode=require`; with a key
    `ca.crt` the server's certificate must be of that authority. Whoever it names may make schemas."""


class CatalogSpec(Model):
    """Where the catalogue is kept, exactly one of both; it can be made anew of what lies in the stores."""

    RULES: ClassVar = (
        exactly_one("spec.catalog", "sqlite", "postgresql"),
        Rule(
            cel="has(self.sqlite) == has(oldSelf.sqlite)",
            message="`spec.catalog` can't be changed to another kind",
            holds=lambda _: True,
        ),
    )

    sqlite: Sqlite | None = None
    """A file on a volume."""
    postgresql: Postgresql | None = None
    """A database: a new version of the gateway begins while the one before it still serves."""


class BasicAuth(Model):
    """Users of the directory's own."""

    secret_ref: LocalReference
    """A Secret with the key `htpasswd`: lines `name:hash` with bcrypt hashes, as `htpasswd -B` writes them."""


class PathAccess(Model):
    """Who may do what below a path."""

    path: PathPattern = "**"
    """Pattern of the whole path, such as `raw/**`."""
    users: Annotated[list[Name], Field(max_length=64, json_schema_extra=SET), Unique] = Field(default_factory=list)
    """Users that it is for."""
    groups: Annotated[list[Name], Field(max_length=64, json_schema_extra=SET), Unique] = Field(default_factory=list)
    """Groups that it is for; with no users either, it is for everybody who is let in."""
    access: Literal["ReadWrite", "ReadOnly", "None"]
    """What they may do there."""


class Auth(Model):
    """Who is let in."""

    kubernetes: Literal["Enabled", "Disabled"] = "Enabled"
    """Tokens of Kubernetes: to read needs `get`, to change `update`, on virtualdirectories/files of this name."""
    basic: BasicAuth | None = None
    """Users of the directory's own, by name and password."""
    anonymous: Literal["None", "ReadOnly", "ReadWrite"] = "None"
    """What whoever doesn't say who they are may do."""
    rules: Annotated[list[PathAccess], Field(max_length=64, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """Narrows what those who are let in may do; the first rule that fits a path and a user decides."""


class Expose(Model):
    """How the directory is reached."""

    auth: Auth = Auth()
    """Who is let in."""
    web: Literal["Enabled", "Disabled"] = "Enabled"
    """The web page at `/`, and the links by which it downloads."""
    webdav: Literal["Enabled", "Disabled"] = "Enabled"
    """WebDAV under `/dav/`: for file managers, and programs that know it."""


def _usable(rule: PlacementRule, stores: list[DirectoryStore]) -> int:
    if rule.stores is None:
        return len(stores)
    return len(rule.stores.only) if rule.stores.only else len(stores) - len(rule.stores.except_ or ())


def _named(rule: PlacementRule) -> list[str]:
    return [] if rule.stores is None else [*(rule.stores.only or ()), *(rule.stores.except_ or ())]


_USABLE = (
    "(!has(r.stores) ? self.stores.size()"
    " : has(r.stores.only) ? r.stores.only.size() : self.stores.size() - r.stores.except.size())"
)


class Apply(Model):
    """When a change of where files belong is acted on."""

    mode: Literal["Auto", "RequireApproval"] = "Auto"
    """Auto: at once; RequireApproval: when annotation `cloudmesh.org/approved-quote` holds the hash of the quote. Until
    then files are placed, repaired and written by the rules and stores of before."""


class VirtualDirectorySpec(Model):
    """The stores, and how files are placed, kept and reached."""

    RULES: ClassVar = (
        Rule(
            cel=(
                "self.placement.rules.all(r, !has(r.stores)"
                " || (has(r.stores.only) ? r.stores.only : r.stores.except).all(n, self.stores.exists(s, s.name == n)))"
            ),
            message="`stores` of a rule must be named in `spec.stores`",
            holds=lambda d: all(n in {s.name for s in d.stores} for r in d.placement.rules for n in _named(r)),
            field_path=".placement.rules",
        ),
        Rule(
            cel=f"self.placement.rules.all(r, (has(r.copies) ? r.copies : 1) <= {_USABLE})",
            message="`copies` must not be more than the stores that the rule may use: each copy lies in another one",
            holds=lambda d: all((r.copies or 1) <= _usable(r, d.stores) for r in d.placement.rules),
            field_path=".placement.rules",
        ),
        Rule(
            cel=f"self.placement.rules.all(r, r.minCopies <= {_USABLE})",
            message="`minCopies` must not be more than the stores that the rule may use",
            holds=lambda d: all(r.min_copies <= _usable(r, d.stores) for r in d.placement.rules),
            field_path=".placement.rules",
        ),
    )

    stores: Annotated[
        list[DirectoryStore], Field(min_length=1, max_length=MAX_STORES, json_schema_extra=by_key("name")), Unique
    ]
    """Stores; one that is taken out is emptied first, as long as its DataStore is there."""
    placement: Placement = Placement()
    """Where files lie."""
    quota: Quota | None = None
    """What the directory holds at most; left out, as much as the stores take."""
    max_monthly_cost: Amount | None = None
    """What keeping all copies may cost a month; a write beyond it is refused, and stores without a price take none.
    Left out, no limit."""
    apply: Apply = Apply()
    """When a change of rules or stores is acted on."""
    versions: Versions = Versions()
    """What becomes of what was deleted or written over."""
    settle_names: Literal["WhenCheap", "Never"] = "WhenCheap"
    """WhenCheap: after a rename objects get the names of their files, where the store can copy them by itself or they
    have 1 MiB at most; Never: they keep their names, and the journal says what they are."""
    verify: Verify = Verify()
    """How copies are checked."""
    adopt: Literal["Existing", "None"] = "Existing"
    """Existing: objects that stores already hold under the prefix appear in the tree; None: they are left alone."""
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """Retain: all objects stay when the directory is deleted; Delete: they go first: delete it before its namespace."""
    catalog: CatalogSpec = CatalogSpec(sqlite=Sqlite())
    """Where the catalogue is kept."""
    expose: Expose = Expose()
    """How the directory is reached."""


class VirtualDirectory(Model):
    """One directory over several stores, its files placed and kept by rules."""

    CRD: ClassVar = Definition(
        kind="VirtualDirectory",
        plural="virtualdirectories",
        short_names=("vdir",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the directory is as asked."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, in one word."),
            Column("Files", ".status.files", "Number of files.", type="integer"),
            Column("Size", ".status.size", "Bytes of all files, each counted once."),
            Column("Pending", ".status.pendingCopies", "Files that the mover has work with.", type="integer"),
            Column("$/Month", ".status.cost.monthly", "What keeping all copies costs a month."),
            Column("URL", ".status.url", "Where it answers inside the cluster."),
            Column("Quote", ".status.quote.hash", "Hash of the quote that waits for approval.", priority=1),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', "Why, in a sentence.", priority=1),
            Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", type="date"),
        ),
    )
    RULES: ClassVar = (OWN_NAME,)

    api_version: Literal["cloudmesh.org/v1alpha1"] = "cloudmesh.org/v1alpha1"
    """Version of the API."""
    kind: Literal["VirtualDirectory"] = "VirtualDirectory"
    """Kind of the object."""
    metadata: ObjectMeta
    """Name, namespace, labels and the like."""
    spec: VirtualDirectorySpec
    """The stores, and how files are placed, kept and reached."""
    status: VirtualDirectoryStatus = VirtualDirectoryStatus()
    """What the operator found."""
