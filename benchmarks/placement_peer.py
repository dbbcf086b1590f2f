"""SkyPilot's optimizer beside ours, on one catalogue of 90,000 rows: 1,500 types in 60 regions, on demand.

Its wheel is installed into an environment of its own, never into the project's. It knows one pool a request, no free
capacity and no limits of accounts: the requests are such as both can answer, and both give the cheapest.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cloudmesh.policy.model import Alternative, Needs, Offer, PoolRequest, Price, Request
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.place import place

HOME = Path.home() / ".cache" / "cloudmesh" / "bench" / "skypilot"
DRIVER = Path(__file__).with_name("placement_peer_driver.py")
PEER = "SkyPilot's optimizer, the same 90,000 rows"
TYPES, REGIONS, ASKED = 1500, 60, 15


def skypilot_times(say: Callable[[str], None], figure: Callable[..., None]) -> None:
    """one_pool_p50: both on the same requests, in turns of all; says why if the peer can't run."""
    rows, asked = _catalogue()
    try:
        answers = _run_peer(rows, asked)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        details = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        say(f"peer not run: {details[-1] if details else type(error).__name__}")
        return
    table = OfferTable.from_offers(
        Offer("sky", name, region=region, milli_vcpu=vcpu * 1000, memory_mib=gib * 1024,
              price=Price(nanos, "USD", "generator", "2026-01-01T00:00:00Z", "fetched"))
        for name, region, vcpu, gib, nanos in rows
    )  # fmt: skip
    ours, dearer, cheaper = [], 0, 0
    for (vcpu, gib, count), theirs in zip(asked, answers, strict=True):
        needs = Needs(vcpu=(vcpu * 1000, None), memory_mib=(gib * 1024, None))
        request = Request((PoolRequest("p", count, (Alternative("any", needs),)),), ("sky",))
        began = time.perf_counter()
        placement = place(request, table)
        ours.append((time.perf_counter() - began) * 1000)
        mine = (placement.hourly_nanos or 0) / 10**9
        dearer += mine > theirs["hourly"] * 1.000001
        cheaper += mine < theirs["hourly"] * 0.999999
    middle, other = sorted(ours)[len(ours) // 2], sorted(a["ms"] for a in answers)[len(answers) // 2]
    say(f"beside SkyPilot: {len(asked)} requests, ours dearer in {dearer}, cheaper in {cheaper}")
    figure("one_pool_p50", middle, "ms", peer=PEER, peer_value=round(other, 3), ratio=round(other / middle, 2))


def _catalogue() -> tuple[list[tuple[str, str, int, int, int]], list[tuple[int, int, int]]]:
    chance = random.Random(3)
    rows = []
    for number in range(TYPES):
        vcpu = 2 ** (number % 7)
        gib = vcpu * (2, 4, 8)[number % 3]
        factor = chance.uniform(0.7, 1.4)
        for region in range(REGIONS):
            nanos = round((vcpu * 0.024 + gib * 0.003) * factor * chance.uniform(0.9, 1.3) * 10**6) * 1000
            rows.append((f"t{number}", f"r{region}", vcpu, gib, nanos))
    return rows, [
        (chance.choice([1, 2, 4, 8]), chance.choice([2, 8, 16, 32]), chance.randint(1, 50)) for _ in range(ASKED)
    ]


def _run_peer(rows: list[tuple[str, str, int, int, int]], asked: list[tuple[int, int, int]]) -> list[dict[str, float]]:
    python = HOME / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    if not (HOME / "installed").exists():
        HOME.parent.mkdir(parents=True, exist_ok=True)
        _call([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(HOME)])
        _call([str(uv), "pip", "install", "--quiet", "--python", str(python), "skypilot"])
        (HOME / "installed").touch()
    home = HOME / "home"
    home.mkdir(exist_ok=True)
    text = json.dumps({"rows": rows, "asked": asked})
    environment = {**os.environ, "HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = _call([str(python), str(DRIVER)], text, environment)
    found: list[dict[str, float]] = json.loads(done.splitlines()[-1])
    return found


def _call(command: list[str], text: str = "", environment: dict[str, str] | None = None) -> str:
    return subprocess.run(
        command, input=text, env=environment, capture_output=True, text=True, check=True, timeout=900
    ).stdout
