"""Settings of an account of kind memory: strings by name, as `spec.memory.settings` has them."""

from __future__ import annotations

from collections.abc import Mapping

from cloudmesh.compute.providers.memory.cloud import Habits, MemoryCloud
from cloudmesh.compute.providers.memory.stock import Stock
from cloudmesh.engine.errors import InvalidRequest

SETTINGS: Mapping[str, tuple[str, str]] = {
    "cloud": ("", "accounts with the same value share one cloud; each has its own if empty"),
    "types": ("8", "machine types for sale"),
    "regions": ("2", "regions, each with all types"),
    "zones": ("2", "zones a region"),
    "spot": ("true", "whether types are sold as spot too"),
    "seed": ("1", "draws the prices; the same seed draws the same"),
    "capacity": ("", "machines of each type that fit in a zone, on demand and as spot; no limit if empty"),
    "key": ("", "the only API key that the cloud takes, any if empty; an account in a cluster has none: it is refused"),
    "powers": ("", "optional powers that the account has, with commas between; all if empty, `none` for none"),
    "nativeTokens": ("true", "whether the cloud itself makes one machine for one token"),
    "bootSeconds": ("2", "from the create call to Running"),
    "stopSeconds": ("1", "from a stop to Stopped"),
    "deleteSeconds": ("1", "from a delete to the end"),
    "endedSeconds": ("60", "how long listings show a machine that ended"),
    "listLagSeconds": ("0", "a new machine isn't in listings before"),
    "latencySeconds": ("0", "each call takes so long"),
    "pageSize": ("1000", "machines on a page of a listing"),
    "callsPerSecond": ("0", "more calls are refused; 0 for no limit"),
    "pollSeconds": ("2", "how often the account is listed while something changes"),
    "createSeconds": ("10", "a create without an answer is given up then"),
    "graceSeconds": ("", "a machine not listed is unknown, not absent, until it is so old; the lag if empty"),
}
"""Name, default, and what it says."""
HABITS = {
    "bootSeconds": "boot_seconds",
    "stopSeconds": "stop_seconds",
    "deleteSeconds": "delete_seconds",
    "endedSeconds": "ended_seconds",
    "listLagSeconds": "list_lag_seconds",
    "latencySeconds": "latency_seconds",
}
MOST_SECONDS = 86400.0
MOST_ROWS = 200_000
"""Offers of one cloud: they are kept in the operator's memory."""


def check_names(settings: Mapping[str, str]) -> None:
    """Refuses settings that there are none of.

    Raises:
        InvalidRequest: With their names.
    """
    if unknown := sorted(set(settings) - set(SETTINGS)):
        raise InvalidRequest(f"spec.memory.settings: unknown {', '.join(unknown)}; known: {', '.join(SETTINGS)}")


def seconds(settings: Mapping[str, str], name: str, default: float = 0.0) -> float:
    """A time.

    Raises:
        InvalidRequest: It isn't one, or is longer than a day.
    """
    text = settings.get(name) or SETTINGS[name][0]
    try:
        number = float(text) if text else default
    except ValueError:
        number = -1.0
    if not 0 <= number <= MOST_SECONDS:
        raise InvalidRequest(f"spec.memory.settings.{name}: {text!r} is not a number from 0 to {MOST_SECONDS:g}")
    return number


def whole(settings: Mapping[str, str], name: str, least: int, most: int) -> int:
    """A whole number.

    Raises:
        InvalidRequest: It isn't one, or out of range.
    """
    text = settings.get(name) or SETTINGS[name][0]
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
        raise InvalidRequest(f"spec.memory.settings.{name}: {text!r} is not a whole number from {least} to {most}")
    return int(text)


def yes(settings: Mapping[str, str], name: str) -> bool:
    """`true` or `false`.

    Raises:
        InvalidRequest: It is neither.
    """
    text = settings.get(name) or SETTINGS[name][0]
    if text not in ("true", "false"):
        raise InvalidRequest(f"spec.memory.settings.{name}: {text!r} is neither 'true' nor 'false'")
    return text == "true"


def make_cloud(name: str, settings: Mapping[str, str]) -> MemoryCloud:
    """A fresh cloud.

    Raises:
        InvalidRequest: A setting isn't what it should be.
    """
    types, regions = whole(settings, "types", 1, 10_000), whole(settings, "regions", 1, 1000)
    zones, spot = whole(settings, "zones", 1, 26), yes(settings, "spot")
    if (rows := types * regions * zones * (1 + spot)) > MOST_ROWS:
        raise InvalidRequest(f"spec.memory.settings: types, regions and zones make {rows} offers, over {MOST_ROWS}")
    stock = Stock(types=types, regions=regions, zones=zones, seed=whole(settings, "seed", 0, 10**9 - 1), spot=spot)
    habits = Habits(
        native_tokens=yes(settings, "nativeTokens"),
        page_size=whole(settings, "pageSize", 1, 100_000),
        calls_per_second=whole(settings, "callsPerSecond", 0, 100_000),
    )
    for setting, habit in HABITS.items():
        setattr(habits, habit, seconds(settings, setting))
    made = MemoryCloud(name, stock=stock, habits=habits, key=settings.get("key", ""))
    if settings.get("capacity"):
        made.set_free(whole(settings, "capacity", 0, 10**9 - 1))
    return made
