"""Parts that the kinds of the compute wing share: money, machines, offers, logins, names."""

from __future__ import annotations

import ipaddress
import re
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from cloudmesh.api import currencies
from cloudmesh.api.fields import ATOMIC, SET, LabelValue, Quantity, Text, Timestamp, Unique, Word
from cloudmesh.api.names import OBJECT_NAME_MAX_LENGTH
from cloudmesh.api.quantity import parse_quantity
from cloudmesh.api.schema import Model, Rule, Rules, Shape

MONEY_PATTERN: Final = r"^[0-9]{1,12}(\.[0-9]{1,9})?$"
_MAX_MONEY: Final = 10**12 - 1
PERCENT_PATTERN: Final = r"^(([0-9]|[1-9][0-9]|100)%|[0-9]{1,5})$"


def positive(field: str) -> Rules:
    """The annotation that a quantity or an amount of money is more than 0.

    Args:
        field: What the message calls it.
    """
    return Rules(
        Rule(
            cel="!isQuantity(string(self)) || quantity(string(self)).isGreaterThan(quantity('0'))",
            message=f"`{field}` must be more than 0",
            holds=lambda text: parse_quantity(text) > 0,
        )
    )


def _as_text(value: Any) -> Any:
    """YAML reads `amount: 500` as a number; a boolean is no number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


Money = Annotated[
    str,
    Field(max_length=22, pattern=MONEY_PATTERN),
    BeforeValidator(_as_text),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": _MAX_MONEY,
            "maxLength": 22,
            "pattern": MONEY_PATTERN,
        }
    ),
    Shape(MONEY_PATTERN, "must be an amount such as `12.50`, with at most nine places", or_number=True),
]
"""An amount of a currency as decimal text with at most nine places; a whole number is taken too and kept as text."""

Charge = Annotated[str, Field(max_length=22, pattern=MONEY_PATTERN)]
"""An amount of a currency in a status."""

Currency = Annotated[
    str,
    Field(min_length=3, max_length=3, pattern=currencies.PATTERN),
    Shape(currencies.PATTERN, "must be a currency of ISO 4217 in three capital letters, such as `USD`"),
]
"""ISO 4217 code."""

CountOrPercent = Annotated[
    str,
    Field(max_length=5, pattern=PERCENT_PATTERN),
    BeforeValidator(_as_text),
    WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "minimum": 0, "maximum": 99999, "maxLength": 5, "pattern": PERCENT_PATTERN}
    ),
]
"""A number of machines, or a share such as `40%`."""

_DAY: Final = (
    r"20[0-9]{2}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|02-(0[1-9]|1[0-9]|2[0-8]))|20([02468][048]|[13579][26])-02-29"
)
UtcTime = Annotated[
    str,
    Field(max_length=20, pattern=rf"^({_DAY})T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"),
]
"""A time in UTC that users write; such times compare as text."""

PlaceName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*$")]
"""A region or zone, by the cloud's own name."""
TypeName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.+/ ]*$")]
"""A machine type, by the cloud's own name."""
ImageName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*$")]
"""An alias of an image, such as `ubuntu-24.04`."""
PoolName = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
PartName = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z]([-a-z0-9.]*[a-z0-9])?$")]
ProviderID = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$")]
"""A cloud's own id of a machine."""
Arch = Literal["amd64", "arm64"]
Purchase = Literal["OnDemand", "Spot"]
Confidence = Literal["declared", "fetched", "static", "unknown"]
"""How far a price can be trusted: of one's own, of the cloud's list, of the packaged catalogue, not at all."""

_PUBLIC_KEY = (
    r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com"
    r"|sk-ecdsa-sha2-nistp256@openssh\.com) [A-Za-z0-9+/]+={0,3}( [ -~]{0,255})?$"
)
SshPublicKey = Annotated[
    str,
    Field(min_length=1, max_length=8192, pattern=_PUBLIC_KEY),
    Shape(_PUBLIC_KEY, "must be a public key such as `ssh-ed25519 AAAA... ada`, as in a file that ends in `.pub`"),
]
"""A public key as in authorized_keys, without options."""


def _is_cidr(text: str) -> bool:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    return mapped is None


SourceRange = Annotated[
    str,
    Field(min_length=3, max_length=43, pattern=r"^[0-9A-Fa-f.:]{2,39}/(0|[1-9][0-9]{0,2})$"),
    Rules(
        Rule(
            cel="isCIDR(self)",
            message="an entry of `sourceRanges` must be a network such as '10.0.0.0/8' or 'fd00::/8'",
            holds=_is_cidr,
        )
    ),
]

OWN_NAME: Final = Rule(
    cel=(
        f"self.metadata.name.size() <= {OBJECT_NAME_MAX_LENGTH}"
        " && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    ),
    message=(
        f"`metadata.name` must be at most {OBJECT_NAME_MAX_LENGTH} lower-case letters, digits and '-',"
        " beginning with a letter and ending with a letter or digit"
    ),
    holds=lambda o: (
        len(o.metadata.name) <= OBJECT_NAME_MAX_LENGTH
        and re.search(r"\A[a-z]([-a-z0-9]*[a-z0-9])?\Z", o.metadata.name) is not None
    ),
)
"""The rule for names of objects that users write."""


def exactly_one(path: str, *members: str) -> Rule:
    """The rule that exactly one of the members is there.

    Args:
        path: What the message calls the struct, such as `spec.bootstrap`.
        members: Names of the members as users write them.
    """
    listed = ", ".join(f"`{m}`" for m in members[:-1]) + f" and `{members[-1]}`"
    attributes = [re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), member) for member in members]
    return Rule(
        cel=f"[{', '.join(f'has(self.{m})' for m in members)}].filter(there, there).size() == 1",
        message=f"`{path}` must have exactly one of {listed}",
        holds=lambda struct: sum(getattr(struct, a) is not None for a in attributes) == 1,
    )


def unchangeable(path: str, member: str, *, required: bool = False) -> Rule:
    """The rule that an update leaves a member as it is; only the API server sees the old object.

    Args:
        path: What the message calls the struct, such as `spec`.
        member: Name of the member as users write it.
        required: Whether the member is always there, by `required` or by a default.
    """
    same = f"self.{member} == oldSelf.{member}"
    return Rule(
        cel=same if required else f"has(self.{member}) == has(oldSelf.{member}) && (!has(self.{member}) || {same})",
        message=f"`{path}.{member}` can't be changed",
        holds=lambda _: True,
    )


class Amount(Model):
    """An amount of money."""

    amount: Money
    """The amount, such as `12.50`."""
    currency: Currency = "USD"
    """Currency, as an ISO 4217 code."""


class Range(Model):
    """The least and the most of something."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.min) || has(self.max)",
            message="at least one of `min` and `max` must be set",
            holds=lambda r: r.min is not None or r.max is not None,
        ),
        Rule(
            cel=(
                "!has(self.min) || !has(self.max) || !isQuantity(string(self.min)) || !isQuantity(string(self.max))"
                " || quantity(string(self.min)).compareTo(quantity(string(self.max))) <= 0"
            ),
            message="`min` must not be more than `max`",
            holds=lambda r: r.min is None or r.max is None or parse_quantity(r.min) <= parse_quantity(r.max),
            field_path=".min",
        ),
    )

    min: Quantity | None = None
    """The least."""
    max: Annotated[Quantity, positive("max")] | None = None
    """The most; left out, there is no limit."""

    def bounds(self) -> tuple[Fraction, Fraction | None]:
        """The least and the most as exact numbers; None for no limit."""
        least = parse_quantity(self.min) if self.min is not None else Fraction(0)
        return least, parse_quantity(self.max) if self.max is not None else None


class Gpu(Model):
    """GPUs of a machine."""

    model: LabelValue | None = None
    """Model, such as `A100`, compared without case; left out, any."""
    count: Annotated[int, Field(ge=1, le=64)] = 1
    """How many, at least."""


class Disk(Model):
    """The disk of a machine."""

    size: Annotated[Quantity, positive("size")]
    """Size, such as `100Gi`."""


class MachineRequirements(Model):
    """What a machine must have; either an exact type or what it must have at least and at most."""

    RULES: ClassVar = (
        Rule(
            cel="!has(self.type) || (!has(self.vcpu) && !has(self.memory) && !has(self.gpu))",
            message="`machine.type` must not be used together with `vcpu`, `memory` or `gpu`: the type has its own",
            holds=lambda m: m.type is None or (m.vcpu is None and m.memory is None and m.gpu is None),
            field_path=".type",
        ),
    )

    type: TypeName | None = None
    """The cloud's own name of the machine type, such as `m5.xlarge`; left out, any type that fits."""
    vcpu: Range | None = None
    """Virtual CPUs; fractions such as `500m` make sense for Pods only."""
    memory: Range | None = None
    """Memory, in bytes, such as `16Gi`."""
    arch: Annotated[list[Arch], Field(max_length=2, json_schema_extra=SET), Unique] = Field(default_factory=list)
    """Architectures that will do; left out, all."""
    gpu: Gpu | None = None
    """GPUs; left out, machines without."""
    disk: Disk | None = None
    """Disk; left out, the one that comes with the type."""


class OfferReference(Model):
    """Which offer of an account a machine is made of."""

    type: TypeName
    """The cloud's own name of the machine type."""
    region: PlaceName | None = None
    """Region; left out where the cloud or the account has but one."""
    zone: PlaceName | None = None
    """Zone; left out, the cloud chooses."""
    purchase: Purchase = "OnDemand"
    """How it is paid: OnDemand at the full price, Spot cheaper and taken away at any time."""


class Image(Model):
    """The image of machines."""

    name: ImageName
    """Alias of the image, such as `ubuntu-24.04`; `spec.images` of the CloudAccount maps it to the cloud's own id."""


Keys = Annotated[list[SshPublicKey], Field(max_length=64, json_schema_extra=ATOMIC)]
SourceRanges = Annotated[list[SourceRange], Field(max_length=64, json_schema_extra=ATOMIC)]


class HourlyPrice(Model):
    """What one hour of a machine costs."""

    amount: Charge
    """The amount."""
    currency: Currency
    """Currency, as an ISO 4217 code."""
    source: Word
    """Where the price comes from, such as `PriceSheet/campus` or `catalogue`."""
    as_of: Timestamp
    """How old the source is."""
    confidence: Confidence
    """How far the price can be trusted."""


class Drift(Model):
    """One way in which a machine differs from what was asked for."""

    field: Word
    """What differs, such as `type`, `image` or `tags`."""
    expected: Text
    """What was asked for."""
    found: Text
    """What is there."""
