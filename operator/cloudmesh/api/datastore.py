"""DataStore: one place that holds files, with its address, credentials and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.cloudaccount import HostKey, HostName, Settings
from cloudmesh.api.datastore_status import DataStoreStatus
from cloudmesh.api.fields import LocalReference, ObjectMeta, Quantity
from cloudmesh.api.machines import OWN_NAME, exactly_one, positive, unchangeable
from cloudmesh.api.places import Location, Place, address
from cloudmesh.api.schema import Column, Definition, Model, Rule, Shape
from cloudmesh.api.store_identity import IDENTITY_RULES, StoreCredentials, attribute, listed

AWS, AZURE, GOOGLE = "amazonaws.com", "blob.core.windows.net", "googleapis.com"
THIS_CLUSTER = "cluster"
"""Failure domain of the volumes of this cluster: they are lost together with it."""
_ENDPOINT = r"^https?://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!-~]*)?$"
_REGION = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_COLLECTION = (
    r"^https?://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
    r"(/[-A-Za-z0-9._~%!$&()*+,;=:@/]*)?$"
)
_LOGIN = r"^[A-Za-z0-9_][-A-Za-z0-9_.@+]*$"
_FOLDER = r"^/([A-Za-z0-9_][-A-Za-z0-9_.@+~]*(/[A-Za-z0-9_][-A-Za-z0-9_.@+~]*)*)?$"
_BUCKET = r"^[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]$"
_ACCOUNT = r"^[a-z0-9]{3,24}$"
_CONTAINER = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_GCS_BUCKET = r"^[a-z0-9][-_a-z0-9]*(\.[-_a-z0-9]+)*$"
_AUTH_URL = (
    r"^https?://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!-~]*)?/(v3|v1|v1\.0)/?$"
)
_SWIFT_CONTAINER = r"^[A-Za-z0-9_][-A-Za-z0-9_.]*$"
_SWIFT_REGION = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_KEYSTONE_NAME = r"^[A-Za-z0-9_]([-A-Za-z0-9_. ]*[A-Za-z0-9_])?$"
KeystoneName = Annotated[
    str,
    Field(min_length=1, max_length=64, pattern=_KEYSTONE_NAME),
    Shape(
        _KEYSTONE_NAME, "must be a name of Keystone such as `physics`: letters, digits, '-', '_', '.' and spaces within"
    ),
]


class S3(Place):
    """A bucket of S3, or of a store that speaks S3."""

    CREDENTIALS = "Needed"
    ENDPOINTS: ClassVar = {"endpoint": "Url"}
    RULES: ClassVar = (
        unchangeable("spec.s3", "bucket", required=True),
        Rule(
            cel="has(self.endpoint) || self.region.matches('^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$')",
            message="`spec.s3.region` must be one of AWS, such as 'us-east-1', where `spec.s3.endpoint` is left out",
            holds=lambda s: s.endpoint is not None or _is_aws(s.region),
            field_path=".region",
        ),
    )

    endpoint: (
        Annotated[
            str,
            Field(min_length=1, max_length=512, pattern=_ENDPOINT),
            Shape(_ENDPOINT, "must be a URL such as `https://s3.example.org:9000`, without user or password"),
        ]
        | None
    ) = None
    """Address of the API, such as `https://s3.example.org:9000`; left out, that of AWS in the region."""
    region: Annotated[
        str,
        Field(min_length=1, max_length=63, pattern=_REGION),
        Shape(_REGION, "must be a region such as `us-east-1`"),
    ] = "us-east-1"
    """Region that requests are signed for."""
    bucket: Annotated[
        str,
        Field(min_length=3, max_length=63, pattern=_BUCKET),
        Shape(_BUCKET, "must be a bucket's name such as `lab-data`: 3 to 63 lower-case letters, digits, '-' and '.'"),
    ]
    """The bucket; it must be there."""

    def location(self, namespace: str, secret: str) -> Location:
        """See `Place.location`."""
        return ("s3", *address(self._url), self.bucket)

    @property
    def reached_at(self) -> str:
        """See `Place.reached_at`."""
        return address(self._url)[0]

    @property
    def domain(self) -> str:
        """See `Place.domain`."""
        return self.reached_at if self.endpoint else AWS

    @property
    def own_region(self) -> str:
        """See `Place.own_region`."""
        return self.region

    @property
    def _url(self) -> str:
        return self.endpoint or f"https://s3.{AWS}"


class AzureBlob(Place):
    """A container of Azure Blob Storage."""

    CREDENTIALS = "Needed"
    ENDPOINTS: ClassVar = {"endpoint": "Url"}
    RULES: ClassVar = (
        unchangeable("spec.azureBlob", "account", required=True),
        unchangeable("spec.azureBlob", "container", required=True),
    )

    account: Annotated[
        str,
        Field(min_length=3, max_length=24, pattern=_ACCOUNT),
        Shape(_ACCOUNT, "must be a storage account's name such as `labdata`: 3 to 24 lower-case letters and digits"),
    ]
    """The storage account."""
    container: Annotated[
        str,
        Field(min_length=3, max_length=63, pattern=_CONTAINER),
        Shape(
            _CONTAINER,
            "must be a container's name such as `lab-data`: 3 to 63 lower-case letters and digits, single '-' within",
        ),
    ]
    """The container; it must be there."""
    endpoint: (
        Annotated[
            str,
            Field(min_length=1, max_length=512, pattern=_ENDPOINT),
            Shape(_ENDPOINT, "must be a URL such as `https://labdata.blob.core.usgovcloudapi.net`, without password"),
        ]
        | None
    ) = None
    """Address of the account's blobs; left out, `https://ACCOUNT.blob.core.windows.net`."""

    def location(self, namespace: str, secret: str) -> Location:
        """See `Place.location`."""
        return ("azureBlob", *address(self._url), self.container)

    @property
    def reached_at(self) -> str:
        """See `Place.reached_at`."""
        return address(self._url)[0]

    @property
    def domain(self) -> str:
        """See `Place.domain`."""
        # the addresses of all accounts of the cloud
        return AZURE if self.reached_at.endswith(f".{AZURE}") else self.reached_at

    @property
    def own_region(self) -> str:
        """See `Place.own_region`."""
        return ""

    @property
    def _url(self) -> str:
        return self.endpoint or f"https://{self.account}.{AZURE}"


class Gcs(Place):
    """A bucket of Google Cloud Storage."""

    CREDENTIALS = "Needed"
    ENDPOINTS: ClassVar = {"endpoint": "Url"}
    RULES: ClassVar = (unchangeable("spec.gcs", "bucket", required=True),)

    bucket: Annotated[
        str,
        Field(min_length=3, max_length=222, pattern=_GCS_BUCKET),
        Shape(_GCS_BUCKET, "must be a bucket's name such as `lab-data`: lower-case letters, digits, '-', '_' and '.'"),
    ]
    """The bucket; it must be there."""
    endpoint: (
        Annotated[
            str,
            Field(min_length=1, max_length=512, pattern=_ENDPOINT),
            Shape(_ENDPOINT, "must be a URL such as `https://storage.europe-west3.rep.googleapis.com`"),
        ]
        | None
    ) = None
    """Address of the API; left out, `https://storage.googleapis.com`."""

    def location(self, namespace: str, secret: str) -> Location:
        """See `Place.location`."""
        _, port, path = address(self._url)
        # the regions' own addresses lead to the same buckets
        return ("gcs", self.domain, port, path, self.bucket)

    @property
    def reached_at(self) -> str:
        """See `Place.reached_at`."""
        return address(self._url)[0]

    @property
    def domain(self) -> str:
        """See `Place.domain`."""
        return GOOGLE if self.reached_at.endswith(f".{GOOGLE}") else self.reached_at

    @property
    def own_region(self) -> str:
        """See `Place.own_region`."""
        return ""

    @property
    def _url(self) -> str:
        return self.endpoint or f"https://storage.{GOOGLE}"


class Sftp(Place):
    """A folder of an SFTP server."""

    CREDENTIALS = "Needed"
    ENDPOINTS: ClassVar = {"host": "Host"}
    RULES: ClassVar = (unchangeable("spec.sftp", "path", required=True),)

    host: HostName
    """Host name or IP address."""
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    """Port of sshd."""
    user: Annotated[
        str,
        Field(min_length=1, max_length=64, pattern=_LOGIN),
        Shape(_LOGIN, "must be a login name such as `lab-files`"),
    ]
    """Name to log in as."""
    host_key: HostKey
    """Public host key, such as `ssh-ed25519 AAAA…`: a server that shows another one isn't talked to."""
    path: Annotated[
        str,
        Field(min_length=1, max_length=512, pattern=_FOLDER),
        Shape(_FOLDER, "must be a folder such as `/srv/lab`: absolute, no '/' at the end, no hidden folders"),
    ]
    """The folder, as whoever logs in sees it; it must be there, and lie on one file system with all below it."""

    def location(self, namespace: str, secret: str) -> Location:
        """See `Place.location`."""
        return ("sftp", self.reached_at, str(self.port), self.path)

    @property
    def reached_at(self) -> str:
        """See `Place.reached_at`."""
        return self.host.lower()

    @property
    def domain(self) -> str:
        """See `Place.domain`."""
        return self.reached_at

    @property
    def own_region(self) -> str:
        """See `Place.own_region`."""
        return ""


class Webdav(Place):
    """A collection of a WebDAV server."""

    CREDENTIALS = "Needed"
    ENDPOINTS: ClassVar = {"endpoint": "Url"}

    endpoint: Annotated[
        str,
        Field(min_length=1, max_length=512, pattern=_COLLECTION),
        Shape(
            _COLLECTION,
            "must be a URL such as `https://dav.example.org/files/lab`, without user, password, query or fragment",
        ),
    ]
    """URL of the collection, such as `https://dav.example.org/files/lab`; it must be there."""

    def location(self, namespace: str, secret: str) -> Location:
        """See `Place.location`."""
        return ("webdav", *address(self.endpoint))

    @property
    def reached_at(self) -> str:
        """See `Place.reached_at`."""
        return address(self.endpoint)[0]

    @property
    def domain(self) -> str:
        """See `Place.domain`."""
        return self.reached_at

    @property
    def own_region(self) -> str:
        """See `Place.own_region`."""
        return ""


class Swift(Place):
    """A container of OpenStack Swift."""

    CREDENTIALS = "Needed"
    ENDPOINTS: ClassVar = {"authUrl": "Url"}
    RULES: ClassVar = (
        unchangeable("spec.swift", "container", required=True),
        Rule(
            cel="self.authUrl.matches('/v3/?$') || (!has(self.region) && !has(self.project) && !has(self.projectDomain)"
            " && !has(self.userDomain))",
            message="`region`, `project`, `projectDomain` and `userDomain` can be set only where `spec.swift.authUrl`"
            " is Keystone's, ending in /v3",
            holds=lambda s: (
                s.auth_url.rstrip("/").endswith("/v3")
                or (s.region, s.project, s.project_domain, s.user_domain) == (None, None, None, None)
            ),
            field_path=".authUrl",
        ),
    )

    auth_url: Annotated[
        str,
        Field(min_length=1, max_length=512, pattern=_AUTH_URL),
        Shape(
            _AUTH_URL,
            "must be the URL of a login, such as `https://keystone.example.org:5000/v3` of Keystone, or"
            " `https://swift.example.org/auth/v1.0` of Swift itself",
        ),
    ]
    """Where to log in, such as `https://keystone.example.org:5000/v3`, or `https://swift.example.org/auth/v1.0`."""
    container: Annotated[
        str,
        Field(min_length=1, max_length=255, pattern=_SWIFT_CONTAINER),
        Shape(_SWIFT_CONTAINER, "must be a container's name such as `lab-data`: letters, digits, '-', '_' and '.'"),
    ]
    """The container; it must be there."""
    region: (
        Annotated[
            str,
            Field(min_length=1, max_length=63, pattern=_SWIFT_REGION),
            Shape(_SWIFT_REGION, "must be a region of Keystone's catalogue, such as `RegionOne`"),
        ]
        | None
    ) = None
    """Region of Keystone's catalogue, such as `RegionOne`; may be left out where the object store has only one."""
    project: KeystoneName | None = None
    """Project of the user; left out with an application credential, which has its own."""
    project_domain: KeystoneName | None = None
    """Domain of the project; left out, `Default`."""
    user_domain: KeystoneName | None = None
    """Domain of the user; left out, `Default`."""

    def location(self, namespace: str, secret: str) -> Location:
        """See `Place.location`."""
        # where only the Secret tells the account, each Secret is taken for another one; markers tell if it isn't
        account = (self.project_domain or "", self.project) if self.project else ("", f"{namespace}/{secret}")
        return ("swift", *address(self.auth_url), self.own_region, *account, self.container)

    @property
    def reached_at(self) -> str:
        """See `Place.reached_at`."""
        return address(self.auth_url)[0]

    @property
    def domain(self) -> str:
        """See `Place.domain`."""
        return self.reached_at

    @property
    def own_region(self) -> str:
        """See `Place.own_region`."""
        return self.region or ""


class Plugin(Place):
    """A store that is plugged into the operator."""

    CREDENTIALS = "Allowed"
    ENDPOINTS: ClassVar = {"settings.endpoint": "Url"}
    RULES: ClassVar = (unchangeable("spec.plugin", "name", required=True),)

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
    """Name that the store is registered by, as an entry point of the group `cloudmesh.store`."""
    settings: Settings = Field(default_factory=dict)
    """What the store is told, in its own words; `endpoint` is the URL of its API: the Secret must list its host."""

    def location(self, namespace: str, secret: str) -> Location:
        """See `Place.location`."""
        return ("plugin", self.name, *(f"{name}={text}" for name, text in sorted(self.settings.items())))

    @property
    def reached_at(self) -> str:
        """See `Place.reached_at`."""
        return address(self.settings.get("endpoint", ""))[0]

    @property
    def domain(self) -> str:
        """See `Place.domain`."""
        return self.reached_at

    @property
    def own_region(self) -> str:
        """See `Place.own_region`."""
        return ""


class Local(Place):
    """A volume of this cluster."""

    RULES: ClassVar = (unchangeable("spec.local", "persistentVolumeClaimRef", required=True),)

    persistent_volume_claim_ref: LocalReference
    """The PersistentVolumeClaim; gateways mount it and write as user 65532."""

    def location(self, namespace: str, secret: str) -> Location:
        """See `Place.location`."""
        return ("local", namespace, self.persistent_volume_claim_ref.name)

    @property
    def reached_at(self) -> str:
        """See `Place.reached_at`."""
        return ""

    @property
    def domain(self) -> str:
        """See `Place.domain`."""
        return THIS_CLUSTER

    @property
    def own_region(self) -> str:
        """See `Place.own_region`."""
        return ""


def _is_aws(region: str) -> bool:
    parts = region.split("-")
    return len(parts) > 2 and 2 <= len(parts[0]) <= 4 and parts[-1].isdigit() and all(p.isalpha() for p in parts[:-1])


PLACES: Mapping[str, type[Place]] = {
    "azureBlob": AzureBlob,
    "gcs": Gcs,
    "local": Local,
    "plugin": Plugin,
    "s3": S3,
    "sftp": Sftp,
    "swift": Swift,
    "webdav": Webdav,
}
KINDS = tuple(PLACES)
"""Members of DataStore.spec that say which store it is; exactly one of them is set."""
_NEEDED = [kind for kind, place in PLACES.items() if place.CREDENTIALS == "Needed"]
_ALLOWED = [kind for kind, place in PLACES.items() if place.CREDENTIALS == "Allowed"]


class StoreLimits(Model):
    """What each directory's gateway uses the store for at most."""

    requests_per_second: Annotated[int, Field(ge=1, le=100000)] | None = None
    """Requests a second; left out, no limit."""
    bytes_per_second: Annotated[Quantity, positive("bytesPerSecond")] | None = None
    """Bytes a second, such as `100Mi`; left out, no limit."""


class DataStoreSpec(Model):
    """Which store, and how to use it; exactly one of its members `azureBlob` to `webdav`."""

    RULES: ClassVar = (
        exactly_one("spec", *KINDS),
        Rule(
            cel=" && ".join(f"has(self.{kind}) == has(oldSelf.{kind})" for kind in KINDS),
            message="`spec` can't be changed to another kind of store: make another DataStore",
            holds=lambda _: True,
        ),
        Rule(
            cel=f"{' || '.join(f'has(self.{k})' for k in _ALLOWED)}"
            f" || ({' || '.join(f'has(self.{k})' for k in _NEEDED)}) == has(self.credentials)",
            message=f"`spec.credentials` must be set for {listed(_NEEDED)}, may be for {listed(_ALLOWED)}, and"
            " can't be for others",
            holds=lambda s: (
                any(getattr(s, attribute(k)) is not None for k in _ALLOWED)
                or any(getattr(s, attribute(k)) is not None for k in _NEEDED) == (s.credentials is not None)
            ),
            field_path=".credentials",
        ),
        *IDENTITY_RULES,
    )

    azure_blob: AzureBlob | None = None
    """A container of Azure Blob Storage."""
    gcs: Gcs | None = None
    """A bucket of Google Cloud Storage."""
    local: Local | None = None
    """A volume of this cluster."""
    plugin: Plugin | None = None
    """A store that is plugged into the operator."""
    s3: S3 | None = None
    """A bucket of S3, or of a store that speaks S3."""
    sftp: Sftp | None = None
    """A folder of an SFTP server."""
    swift: Swift | None = None
    """A container of OpenStack Swift."""
    webdav: Webdav | None = None
    """A collection of a WebDAV server."""
    credentials: StoreCredentials | None = None
    """How the operator and the gateways prove who they are."""
    access: Literal["ReadWrite", "ReadOnly", "Drain"] = "ReadWrite"
    """ReadOnly: nothing is written or deleted; Drain: all copies are moved to other stores."""
    capacity: Annotated[Quantity, positive("capacity")] | None = None
    """Bytes that each directory may keep in it, such as `500Gi`; left out, as many as it takes."""
    limits: StoreLimits = StoreLimits()
    """What each directory's gateway uses the store for at most."""
    price_sheet_ref: LocalReference | None = None
    """A PriceSheet that wins over all other prices."""

    @property
    def kind(self) -> str:
        """The member that says which store it is."""
        return next(kind for kind in KINDS if getattr(self, attribute(kind)) is not None)

    @property
    def place(self) -> Place:
        """That member's value."""
        place: Place = getattr(self, attribute(self.kind))
        return place


class DataStore(Model):
    """One place that holds files; to delete it never touches an object in the place itself."""

    CRD: ClassVar = Definition(
        kind="DataStore",
        plural="datastores",
        short_names=("cmds",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the store can be used."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, in one word."),
            Column("Kind", ".status.kind", "Which store."),
            Column("Access", ".spec.access", "What it may be used for."),
            Column("Objects", ".status.objects", "Copies of files in it.", type="integer"),
            Column("Used", ".status.used", "Bytes of those copies."),
            Column("$/GiB-Month", ".status.price.storagePerGibMonth", "What keeping a GiB for a month costs."),
            Column("Latency", ".status.latencyMs", "Milliseconds of one small call.", type="integer", priority=1),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', "Why, in a sentence.", priority=1),
            Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", type="date"),
        ),
    )
    RULES: ClassVar = (OWN_NAME,)

    api_version: Literal["cloudmesh.org/v1alpha1"] = "cloudmesh.org/v1alpha1"
    """Version of the API."""
    kind: Literal["DataStore"] = "DataStore"
    """Kind of the object."""
    metadata: ObjectMeta
    """Name, namespace, labels and the like."""
    spec: DataStoreSpec
    """Which store, and how to use it."""
    status: DataStoreStatus = DataStoreStatus()
    """What the operator found."""
