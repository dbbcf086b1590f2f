"""What an account of this kind offers: sizes of Pods, their prices, where they may run. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cloudmesh.api.quantity import parse_quantity
from cloudmesh.compute.providers.registry import Context
from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.policy.model import NANO, Offer, Price

DEFAULT_IMAGE = "debian-12"
"""Alias of the installation's own machine image, in every account of this kind."""
DEFAULT_SIZES: tuple[Mapping[str, str], ...] = (
    {"name": "small", "cpu": "500m", "memory": "512Mi"},
    {"name": "medium", "cpu": "1", "memory": "2Gi"},
    {"name": "large", "cpu": "2", "memory": "4Gi"},
)
NETWORK = "pods"
MAX_DISK_GIB = 1024
UNSCHEDULABLE_SECONDS = 20
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Size:
    """A machine type: thousandths of a CPU and MiB of memory, both what a Pod may use at most."""

    name: str
    milli_vcpu: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Settings:
    """An account, read and checked.

    Args:
        namespace: Where its Pods live.
        account: Its name.
        machine_image: Image of the alias `debian-12`.
        images: Other aliases and their images.
        sizes: Machine types by name.
        node_selector: Labels of nodes that may run the Pods.
        tolerations: Taints that they tolerate, as in a Pod.
        prices: Price of each size; None where the installation names none.
        unschedulable_seconds: How long the scheduler may look for a node before the machine counts as failed.
        max_disk_gib: Largest disk of a machine, in GiB.
        cluster_domain: Domain of the cluster's Services.
    """

    namespace: str
    account: str
    machine_image: str
    images: Mapping[str, str]
    sizes: Mapping[str, Size]
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    prices: Mapping[str, Price | None]
    unschedulable_seconds: int = UNSCHEDULABLE_SECONDS
    max_disk_gib: int = MAX_DISK_GIB
    cluster_domain: str = "cluster.local"

    def offers(self) -> list[Offer]:
        """One offer a size. How many still fit isn't known: that would take rights on all nodes."""
        return [
            Offer(
                account=self.account,
                type=size.name,
                milli_vcpu=size.milli_vcpu,
                memory_mib=size.memory_mib,
                price=self.prices[size.name],
                images=frozenset({"", DEFAULT_IMAGE, *self.images}),
                network=NETWORK,
            )
            for size in self.sizes.values()
        ]

    def image(self, asked: str) -> str:
        """The image of an alias, or of an id that the account maps an alias to.

        Raises:
            InvalidRequest: The account doesn't name it.
        """
        if asked in self.images:
            return self.images[asked]
        if asked in ("", DEFAULT_IMAGE, self.machine_image):
            return self.machine_image
        if asked in self.images.values():
            return asked
        known = ", ".join(sorted({DEFAULT_IMAGE, *self.images}))
        raise InvalidRequest(f"image {asked!r} isn't one of the account: spec.images of the CloudAccount has {known}")


def read_settings(context: Context, now: str) -> Settings:
    """Reads an account.

    Args:
        context: Spec, images and the installation's defaults.
        now: RFC 3339 time from which the installation's prices hold.

    Raises:
        InvalidRequest: The message names the field.
    """
    spec, defaults = context.spec, context.defaults
    sizes: dict[str, Size] = {}
    for index, told in enumerate(spec.get("sizes") or DEFAULT_SIZES):
        size = _size(f"spec.kubernetes.sizes[{index}]", told)
        if size.name in sizes:
            raise InvalidRequest(f"spec.kubernetes.sizes[{index}].name: {size.name!r} is there twice")
        sizes[size.name] = size
    selector = spec.get("nodeSelector") or {}
    if not isinstance(selector, Mapping) or not all(isinstance(value, str) for value in selector.values()):
        raise InvalidRequest("spec.kubernetes.nodeSelector must be labels and their values")
    tolerations = spec.get("tolerations") or ()
    if not isinstance(tolerations, list | tuple) or not all(isinstance(each, Mapping) for each in tolerations):
        raise InvalidRequest("spec.kubernetes.tolerations must be a list of tolerations")
    seconds = defaults.get("unschedulableSeconds", str(UNSCHEDULABLE_SECONDS))
    if not seconds.isdigit():
        raise InvalidRequest(f"unschedulableSeconds must be a whole number of seconds, not {seconds!r}")
    return Settings(
        namespace=context.namespace,
        account=context.name,
        machine_image=defaults.get("machineImage", ""),
        images=dict(context.images),
        sizes=sizes,
        node_selector=dict(selector),
        tolerations=tuple(dict(each) for each in tolerations),
        prices={name: _price(size, defaults, now) for name, size in sizes.items()},
        unschedulable_seconds=int(seconds),
        max_disk_gib=_whole("spec.kubernetes.maxDisk", spec["maxDisk"], Fraction(1 << 30), "GiB, such as '500Gi'")
        if "maxDisk" in spec
        else MAX_DISK_GIB,
        cluster_domain=defaults.get("clusterDomain", "cluster.local"),
    )


def _size(path: str, told: Any) -> Size:
    if not isinstance(told, Mapping):
        raise InvalidRequest(f"{path} must have name, cpu and memory")
    name = told.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(f"{path}.name must be a name such as 'small'")
    milli = _whole(f"{path}.cpu", told.get("cpu"), Fraction(1, 1000), "thousandths of a CPU, such as '500m'")
    mebibytes = _whole(f"{path}.memory", told.get("memory"), Fraction(1 << 20), "MiB, such as '512Mi'")
    return Size(name, milli, mebibytes)


def _whole(path: str, told: Any, unit: Fraction, words: str) -> int:
    """A quantity in whole units, rounded down: an offer never promises more than there is."""
    try:
        found = math.floor(parse_quantity(told if isinstance(told, int) else str(told)) / unit)
    except ValueError:
        found = 0
    if found < 1:
        raise InvalidRequest(f"{path} must be a positive quantity of {words}")
    return found


def _price(size: Size, defaults: Mapping[str, str], now: str) -> Price | None:
    per_vcpu, per_gib = defaults.get("hourlyPerVcpu"), defaults.get("hourlyPerGiB")
    if per_vcpu is None or per_gib is None:
        return None  # unknown is never free
    hourly = _money("hourlyPerVcpu", per_vcpu) * size.milli_vcpu / 1000
    hourly += _money("hourlyPerGiB", per_gib) * size.memory_mib / 1024
    return Price(math.ceil(hourly * NANO), defaults.get("currency", "USD"), "installation", now, "declared")


def _money(name: str, text: str) -> Fraction:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        raise InvalidRequest(f"{name} must be a decimal number such as '0.01', not {text!r}")
    return Fraction(text)
