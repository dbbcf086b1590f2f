"""CloudAccount: one cloud that machines come from, with its region, credentials and limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.cloudaccount_status import CloudAccountStatus
from cloudmesh.api.fields import (
    ATOMIC,
    SET,
    LocalReference,
    NodeSelector,
    ObjectMeta,
    Quantity,
    Toleration,
    Unique,
    by_key,
)
from cloudmesh.api.machines import (
    OWN_NAME,
    Arch,
    Gpu,
    PartName,
    PlaceName,
    TypeName,
    exactly_one,
    positive,
    unchangeable,
)
from cloudmesh.api.schema import Column, Definition, Model, Rule, Rules, Shape

_HOST_KEY = r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,3}$"
HostKey = Annotated[
    str,
    Field(min_length=1, max_length=2048, pattern=_HOST_KEY),
    Shape(_HOST_KEY, "must be a host key such as `ssh-ed25519 AAAA...`, as `ssh-keyscan` tells it without the name"),
]
_REGION = r"^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$"
UserName = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z_][-a-z0-9_.]*$")]
HostName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9:]([-A-Za-z0-9.:]*[A-Za-z0-9])?$")]
ROLE = r"^arn:aws[-a-z]*:iam::[0-9]{12}:role/[-A-Za-z0-9+=,.@_/]+$"
_IMAGE = r"^[A-Za-z0-9][-A-Za-z0-9_.]*$"
_SETTING = r"^[a-z][A-Za-z0-9]*$"


def _keys(field: str, pattern: str, example: str) -> Rules:
    return Rules(
        Rule(
            cel=f"self.all(k, k.size() <= 63 && k.matches('{pattern}'))",
            message=f"`{field}` must have names such as '{example}' as keys",
            holds=lambda keys: all(len(k) <= 63 and re.search(rf"\A{pattern[1:-1]}\Z", k) for k in keys),
        )
    )


Images = Annotated[
    dict[str, Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$")]],
    Field(max_length=64),
    _keys("images", _IMAGE, "ubuntu-24.04"),
]
Settings = Annotated[
    dict[str, Annotated[str, Field(max_length=1024)]],
    Field(max_length=32),
    _keys("settings", _SETTING, "bootSeconds"),
]


class Cloud(Model):
    """A member of CloudAccount.spec that says which cloud it is."""

    CREDENTIALS: ClassVar[Literal["Needed", "Allowed", "None"]] = "None"
    """Whether `spec.credentials` must be set, may be, or can't be."""
    ENDPOINTS: ClassVar[Mapping[str, Literal["Url", "Host"]]] = {}
    """Paths of the fields that say where to connect, such as `hosts[].address`: the Secret must list these hosts."""


class Aws(Cloud):
    """Machines of Amazon EC2."""

    CREDENTIALS = "Needed"
    ENDPOINTS: ClassVar = {"endpoint": "Url"}
    RULES: ClassVar = (
        unchangeable("spec.aws", "region", required=True),
        unchangeable("spec.aws", "endpoint"),
        Rule(
            cel="!has(self.zones) || self.zones.all(z, z.startsWith(self.region))",
            message="`spec.aws.zones` must be zones of `spec.aws.region`, such as 'us-east-1a' of 'us-east-1'",
            holds=lambda a: all(z.startswith(a.region) for z in a.zones),
            field_path=".zones",
        ),
    )

    region: Annotated[
        str,
        Field(min_length=1, max_length=32, pattern=_REGION),
        Shape(_REGION, "must be a region such as `us-east-1`"),
    ]
    """Region, such as `us-east-1`."""
    endpoint: (
        Annotated[str, Field(min_length=1, max_length=512, pattern=r"^https?://[A-Za-z0-9.:-]+(/[!-~]*)?$")] | None
    ) = None
    """Address of the API, for a cloud that speaks EC2; left out, the region's own."""
    zones: Annotated[list[PlaceName], Field(max_length=16, json_schema_extra=SET), Unique] = Field(default_factory=list)
    """Zones to use; left out, all of the region."""
    instance_types: Annotated[list[TypeName], Field(max_length=256, json_schema_extra=SET), Unique] = Field(
        default_factory=list
    )
    """Instance types to offer; left out, all of the region."""
    subnet_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=32, pattern=r"^subnet-[0-9a-f]{8,17}$")]],
        Field(max_length=16, json_schema_extra=SET),
        Unique,
    ] = Field(default_factory=list)
    """Subnets to use, at most one a zone; left out, the zone's default."""


class PodSize(Model):
    """One size of Pod machines."""

    name: PartName
    """Name of the size, used as machine type."""
    cpu: Annotated[Quantity, positive("cpu")]
    """CPU, in cores: `500m` is half a core."""
    memory: Annotated[Quantity, positive("memory")]
    """Memory, in bytes: `512Mi`."""


_SIZES = [
    PodSize(name="small", cpu="500m", memory="512Mi"),
    PodSize(name="medium", cpu="1", memory="2Gi"),
    PodSize(name="large", cpu="2", memory="4Gi"),
]


class Kubernetes(Cloud):
    """Pods with sshd in the namespace of the account, on this very cluster; needs no credentials."""

    EMPTY_MEANS: ClassVar[bool] = True

    sizes: Annotated[list[PodSize], Field(min_length=1, max_length=32, json_schema_extra=by_key("name")), Unique] = (
        Field(default=_SIZES)
    )
    """Sizes to offer."""
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that a node must have to run the Pods."""
    tolerations: Annotated[list[Toleration], Field(max_length=32, json_schema_extra=ATOMIC)] = Field(
        default_factory=list
    )
    """Taints that the Pods tolerate."""
    max_disk: Annotated[Quantity, positive("maxDisk")] = "1Ti"
    """Largest disk that a machine may ask for, in bytes: what no node has need not be tried."""


class SshHost(Model):
    """One machine of one's own, reached by SSH."""

    name: PartName
    """Name of the host, used as machine type."""
    address: HostName
    """Host name or IP address."""
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    """Port of sshd."""
    user: UserName
    """Name to log in as."""
    host_key: HostKey
    """Public host key, such as `ssh-ed25519 AAAA…`: a host that shows another one isn't talked to."""
    vcpu: Annotated[Quantity, positive("vcpu")]
    """CPUs of the host."""
    memory: Annotated[Quantity, positive("memory")]
    """Memory of the host, in bytes: `16Gi`."""
    arch: Arch = "amd64"
    """Architecture of the host."""
    gpu: Gpu | None = None
    """GPUs of the host; left out, none."""
    zone: PlaceName | None = None
    """Where the host stands: hosts of the same zone reach each other directly."""
    slots: Annotated[int, Field(ge=1, le=64)] = 1
    """How many VirtualMachines the host is lent to at a time; each gets an even share of CPUs and memory."""


class Ssh(Cloud):
    """Machines of one's own, each lent to one VirtualMachine at a time, or to as many as it has slots."""

    CREDENTIALS = "Needed"
    ENDPOINTS: ClassVar = {"hosts[].address": "Host"}

    hosts: Annotated[list[SshHost], Field(min_length=1, max_length=256, json_schema_extra=by_key("name")), Unique]
    """The machines."""


class Memory(Cloud):
    """Machines that exist in the operator's memory only, for trials and tests."""

    EMPTY_MEANS: ClassVar[bool] = True

    settings: Settings = Field(default_factory=dict)
    """How the simulated cloud behaves, such as `bootSeconds` or `capacity`."""


class Plugin(Cloud):
    """Machines of a provider that is plugged into the operator."""

    CREDENTIALS = "Allowed"
    ENDPOINTS: ClassVar = {"settings.endpoint": "Url"}
    RULES: ClassVar = (unchangeable("spec.plugin", "name", required=True),)

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
    """Name that the provider is registered by, as an entry point of the group `cloudmesh.compute`."""
    settings: Settings = Field(default_factory=dict)
    """What the provider is told, in its own words; `endpoint` is the URL of its API: the Secret must list its host."""


CLOUDS: Mapping[str, type[Cloud]] = {
    "aws": Aws,
    "kubernetes": Kubernetes,
    "memory": Memory,
    "plugin": Plugin,
    "ssh": Ssh,
}
KINDS = tuple(CLOUDS)
"""Members of CloudAccount.spec that say which cloud it is; exactly one of them is set."""


def _those(credentials: Literal["Needed", "Allowed", "None"]) -> list[str]:
    return [kind for kind, cloud in CLOUDS.items() if credentials == cloud.CREDENTIALS]


def _credentials_rule() -> Rule:
    needed, allowed = _those("Needed"), _those("Allowed")
    some, others = " || ".join(f"has(self.{k})" for k in needed), " || ".join(f"has(self.{k})" for k in allowed)
    must, may = " and ".join(f"`{k}`" for k in needed), " and ".join(f"`{k}`" for k in allowed)
    return Rule(
        cel=f"{others} || ({some}) == has(self.credentials)",
        message=f"`spec.credentials` must be set for {must}, may be for {may}, and can't be for others",
        holds=lambda a: (
            any(getattr(a, kind) is not None for kind in allowed)
            or any(getattr(a, kind) is not None for kind in needed) == (a.credentials is not None)
        ),
        field_path=".credentials",
    )


class WorkloadIdentity(Model):
    """The operator's own identity, in namespaces that the installation names for it."""

    role_arn: Annotated[
        str,
        Field(min_length=1, max_length=2048, pattern=ROLE),
        Shape(ROLE, "must be the ARN of a role, such as `arn:aws:iam::123456789012:role/cloudmesh`"),
    ]
    """The role to assume: it must trust the operator's service account."""


class Credentials(Model):
    """How the operator proves who it is: exactly one of `secretRef` and `workloadIdentity`."""

    RULES: ClassVar = (exactly_one("spec.credentials", "secretRef", "workloadIdentity"),)

    secret_ref: LocalReference | None = None
    """A Secret of type `cloudmesh.org/credentials`, or for ssh of type `kubernetes.io/ssh-auth`."""
    workload_identity: WorkloadIdentity | None = None
    """No Secret, but the operator's own identity; for aws only, without `endpoint`."""


class AccountLimits(Model):
    """What the account is used for at most."""

    machines: Annotated[int, Field(ge=0, le=100000)] | None = None
    """Machines at the same time; left out, as many as the cloud allows."""
    requests_per_second: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Calls of the cloud's API a second; left out, the provider's default: 20 for aws, 50 for kubernetes and ssh."""


class CloudAccountSpec(Model):
    """Which cloud, and how to use it; exactly one of `aws`, `kubernetes`, `memory`, `plugin` and `ssh`."""

    RULES: ClassVar = (
        exactly_one("spec", *KINDS),
        Rule(
            cel=" && ".join(f"has(self.{kind}) == has(oldSelf.{kind})" for kind in KINDS),
            message="`spec` can't be changed to another cloud: make another CloudAccount",
            holds=lambda _: True,
        ),
        _credentials_rule(),
        Rule(
            cel="!has(self.credentials) || !has(self.credentials.workloadIdentity) || has(self.aws)",
            message="`spec.credentials.workloadIdentity` can be set for `aws` only",
            holds=lambda a: a.credentials is None or a.credentials.workload_identity is None or a.aws is not None,
            field_path=".credentials",
        ),
    )

    aws: Aws | None = None
    """Machines of Amazon EC2."""
    kubernetes: Kubernetes | None = None
    """Pods with sshd in the namespace of the account, on this very cluster; needs no credentials."""
    memory: Memory | None = None
    """Machines that exist in the operator's memory only, for trials and tests."""
    plugin: Plugin | None = None
    """Machines of a provider that is plugged into the operator."""
    ssh: Ssh | None = None
    """Machines of one's own, each lent to one VirtualMachine at a time, or to as many as it has slots."""
    credentials: Credentials | None = None
    """How the operator proves who it is."""
    images: Images = Field(default_factory=dict)
    """Aliases of images and the cloud's own ids, such as `ubuntu-24.04: ami-0abc`; of aws, machines whose pool names no
    image get that of the alias `default`; of kubernetes, images of Pods, best named by digest."""
    limits: AccountLimits = AccountLimits()
    """What the account is used for at most."""
    price_sheet_ref: LocalReference | None = None
    """A PriceSheet that wins over all other prices."""

    @property
    def cloud(self) -> str:
        """The member that says which cloud it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)


class CloudAccount(Model):
    """One cloud that machines come from: which one, where, with what credentials and limits."""

    CRD: ClassVar = Definition(
        kind="CloudAccount",
        plural="cloudaccounts",
        short_names=("cmacc",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the account can be used."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, in one word."),
            Column("Kind", ".status.kind", "Which cloud."),
            Column("Region", ".status.region", "Region."),
            Column("Offers", ".status.offers", "Number of offers.", type="integer"),
            Column("$Age", ".status.pricesAsOf", "Age of the oldest price; empty if all were declared.", type="date"),
            Column("Running", ".status.running", "Machines that run.", type="integer"),
            Column("$/H", ".status.hourly", "What they cost an hour."),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', "Why, in a sentence.", priority=1),
            Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", type="date"),
        ),
    )
    RULES: ClassVar = (OWN_NAME,)

    api_version: Literal["cloudmesh.org/v1alpha1"] = "cloudmesh.org/v1alpha1"
    """Version of the API."""
    kind: Literal["CloudAccount"] = "CloudAccount"
    """Kind of the object."""
    metadata: ObjectMeta
    """Name, namespace, labels and the like."""
    spec: CloudAccountSpec
    """Which cloud, and how to use it."""
    status: CloudAccountStatus = CloudAccountStatus()
    """What the operator found."""
