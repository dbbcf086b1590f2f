"""Makes the packaged catalogue: `python -m cloudmesh.compute.prices.build`, to be run where the package index answers.

Prices come from apache-libcloud's `pricing.json`, shapes from moto's table of instance types, names of regions from
botocore; the last two are read from the development environment. None of them is needed at run time.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from cloudmesh.compute.prices.catalogue import FILE, Shape
from cloudmesh.compute.prices.moments import to_time
from cloudmesh.compute.prices.money import from_list

LIBCLOUD = "3.9.1"
TABLE = "ec2_linux"
KIND = "aws"
ARCHES = {"x86_64": "amd64", "arm64": "arm64"}


def main(arguments: list[str] | None = None) -> int:
    """Writes the file and says what is in it."""
    parser = argparse.ArgumentParser(prog="python -m cloudmesh.compute.prices.build", description=__doc__)
    parser.add_argument("--pricing", type=Path, help="pricing.json of apache-libcloud; fetched if left out")
    parser.add_argument("--output", "-o", type=Path, default=Path(__file__).parent / FILE)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        pricing = options.pricing or _fetch(Path(folder))
        content = build(
            json.loads(pricing.read_text(), parse_float=Decimal),
            _shapes(
                json.loads(gzip.decompress((_package("moto") / "ec2/resources/instance_types.json.gz").read_bytes()))
            ),
            _regions(json.loads((_package("botocore") / "data/endpoints.json").read_text())),
        )
    options.output.write_bytes(pack(content))
    json.dump(content["header"], sys.stdout, indent=2)
    return 0


def build(pricing: Mapping[str, Any], shapes: Mapping[str, Shape], regions: frozenset[str]) -> dict[str, Any]:
    """The content of the file; what has no price, no shape or lies in no region is dropped and counted.

    Args:
        pricing: The price list, its numbers as Decimal.
        shapes: What each machine type has.
        regions: Names of regions; the list holds local zones too, which can't be asked for as regions.
    """
    dropped: Counter[str] = Counter(noPrice=0, noShape=0, noRegion=0)
    types, used = [], sorted({r for row in pricing["compute"][TABLE].values() for r in row if r in regions})
    index = {region: number for number, region in enumerate(used)}
    for type_, row in sorted(pricing["compute"][TABLE].items()):
        pairs = []
        for region, value in sorted(row.items()):
            nanos = from_list(value if isinstance(value, Decimal) else str(value))
            if nanos is None:
                dropped["noPrice"] += 1
            elif region not in index:
                dropped["noRegion"] += 1
            elif type_ not in shapes:
                dropped["noShape"] += 1
            else:
                pairs.append([index[region], nanos])
        if pairs:
            shape = shapes[type_]
            plain = [shape.milli_vcpu, shape.memory_mib, shape.arch, shape.gpu_model, shape.gpu_count]
            types.append({"type": type_, "shape": plain, "prices": {"OnDemand": pairs}})
    header = {
        "source": f"catalogue (apache-libcloud {LIBCLOUD})",
        "asOf": to_time(pricing["updated"]),
        "currency": "USD",
        "confidence": "static",
        "rows": sum(len(row["prices"]["OnDemand"]) for row in types),
        "types": len(types),
        "regions": len(used),
        "dropped": dict(dropped),
    }
    return {"header": header, "kinds": {KIND: {"regions": used, "types": types}}}


def pack(content: Mapping[str, Any]) -> bytes:
    """The file: the same content gives the same bytes."""
    return gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 9, mtime=0)


def _shapes(table: Mapping[str, Any]) -> dict[str, Shape]:
    """Types that Linux runs on; those with a share of a GPU have no count of whole ones and are left out."""
    found = {}
    for name, row in table.items():
        arch = next((ARCHES[a] for a in row["ProcessorInfo"]["SupportedArchitectures"] if a in ARCHES), "")
        gpus = (row.get("GpuInfo") or {}).get("Gpus") or []
        count = sum(gpu["Count"] for gpu in gpus)
        if not arch or (gpus and not count):
            continue
        found[name] = Shape(
            milli_vcpu=row["VCpuInfo"]["DefaultVCpus"] * 1000,
            memory_mib=row["MemoryInfo"]["SizeInMiB"],
            arch=arch,
            gpu_model=gpus[0]["Name"] if gpus else "",
            gpu_count=count,
        )
    return found


def _regions(endpoints: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(region for partition in endpoints["partitions"] for region in partition["regions"])


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{name} isn't installed: run this in the development environment")
    return Path(found.submodule_search_locations[0])


def _fetch(folder: Path) -> Path:
    wanted = f"apache-libcloud=={LIBCLOUD}"
    subprocess.run(["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), wanted], check=True)
    return folder / "libcloud" / "data" / "pricing.json"


if __name__ == "__main__":
    sys.exit(main())
