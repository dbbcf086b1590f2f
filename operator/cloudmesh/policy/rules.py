"""Filters that a policy adds by name.

| filter | parameters | keeps |
|---|---|---|
| Account, Type, Region, Zone, Arch, GpuModel, Network | `in`: names and commas, `*` and `?` as in file names | those |
| NotAccount, NotType, NotRegion, NotZone, NotArch, NotGpuModel, NotNetwork | the same | all others |
| Purchase | `in`: `OnDemand`, `Spot` | those |
| MaxPrice | `hourly`: amount, `currency`: USD without | known prices up to it |
| MinVcpu, MaxVcpu | `count`: virtual CPUs | those |
| MinMemory, MaxMemory | `mib` | those |
| MaxStart | `seconds` | known times to Ready up to it |
| Confidence | `atLeast`: `static`, `fetched` or `declared` | prices trusted so far |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import numpy as np

from cloudmesh.policy.errors import PolicyError
from cloudmesh.policy.model import FilterRule
from cloudmesh.policy.money import read_nanos
from cloudmesh.policy.offers import CONFIDENCE, UNPRICED, Coded, Mask, OfferTable

_NAMED: Mapping[str, str] = {
    "Account": "account",
    "Type": "type",
    "Region": "region",
    "Zone": "zone",
    "Arch": "arch",
    "GpuModel": "gpu_model",
    "Network": "network",
}


def rule_mask(rule: FilterRule, table: OfferTable) -> Mask:
    """Rows that a policy's filter keeps.

    Raises:
        PolicyError: There is no such filter, or its parameters are wrong.
    """
    reader = _OTHERS.get(rule.name)
    name = rule.name.removeprefix("Not")
    if reader is not None:
        parameter, mask = reader
    elif name in _NAMED:
        parameter, mask = "in", _named(name, negated=name != rule.name)
    else:
        raise PolicyError(f"filter '{rule.name}' must be one of {', '.join(known_rules())}")
    allowed = {parameter, "currency"} if rule.name == "MaxPrice" else {parameter}
    if unknown := sorted(set(rule.parameters) - allowed):
        raise PolicyError(f"filter {rule.name} has no parameter '{unknown[0]}'")
    if parameter not in rule.parameters:
        raise PolicyError(f"filter {rule.name} must have the parameter '{parameter}'")
    try:
        return mask(table, rule.parameters)
    except ValueError as error:
        raise PolicyError(f"filter {rule.name}, parameter '{parameter}': {error}") from error


def known_rules() -> tuple[str, ...]:
    """Names of all filters that a policy can add."""
    return tuple(sorted({*_NAMED, *(f"Not{name}" for name in _NAMED), *_OTHERS}))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("it must name something")
    return names


def _named(name: str, *, negated: bool) -> Callable[[OfferTable, Mapping[str, str]], Mask]:
    def mask(table: OfferTable, parameters: Mapping[str, str]) -> Mask:
        column: Coded[str] = getattr(table, _NAMED[name])
        patterns = _names(parameters["in"])
        if name == "GpuModel":
            patterns = [pattern.lower() for pattern in patterns]
        return column.where(lambda value: any(fnmatchcase(value, p) for p in patterns) != negated)

    return mask


def _purchase(table: OfferTable, parameters: Mapping[str, str]) -> Mask:
    names = set(_names(parameters["in"]))
    if names - {"OnDemand", "Spot"}:
        raise ValueError("it must name OnDemand or Spot")
    allowed = np.array(["OnDemand" in names, "Spot" in names])
    mask: Mask = allowed[table.spot.astype(np.int8)]
    return mask


def _max_price(table: OfferTable, parameters: Mapping[str, str]) -> Mask:
    currency = parameters.get("currency", "USD")
    mask: Mask = (table.nanos != UNPRICED) & (table.nanos <= read_nanos(parameters["hourly"]))
    return mask & table.currency.where(lambda name: name == currency)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"'{text}' must be a whole number") from None


def _confidence(table: OfferTable, parameters: Mapping[str, str]) -> Mask:
    least = parameters["atLeast"]
    if least not in CONFIDENCE[1:]:
        raise ValueError(f"'{least}' must be one of {', '.join(CONFIDENCE[1:])}")
    mask: Mask = (table.confidence >= CONFIDENCE.index(least)) & (table.nanos != UNPRICED)
    return mask


_OTHERS: Mapping[str, tuple[str, Callable[[OfferTable, Mapping[str, str]], Mask]]] = {
    "Purchase": ("in", _purchase),
    "MaxPrice": ("hourly", _max_price),
    "MinVcpu": ("count", lambda table, given: table.milli_vcpu >= 1000 * _number(given["count"])),
    "MaxVcpu": ("count", lambda table, given: table.milli_vcpu <= 1000 * _number(given["count"])),
    "MinMemory": ("mib", lambda table, given: table.memory_mib >= _number(given["mib"])),
    "MaxMemory": ("mib", lambda table, given: table.memory_mib <= _number(given["mib"])),
    "MaxStart": (
        "seconds",
        lambda table, given: (table.start_seconds >= 0) & (table.start_seconds <= _number(given["seconds"])),
    ),
    "Confidence": ("atLeast", _confidence),
}
