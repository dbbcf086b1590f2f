"""Run by the Python of SkyPilot's environment: reads a catalogue and requests on stdin, writes times and costs."""
# mypy: ignore-errors

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path


def write_catalogue(rows: list[list]) -> None:
    """The rows as the catalogue of a cloud that has regions and no spot."""
    from sky.catalog import common

    path = Path(common.get_catalog_path("do/vms.csv"))
    path.parent.mkdir(parents=True, exist_ok=True)
    head = ["InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "GpuInfo", "Price"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*head, "SpotPrice", "Region"])
        for name, region, vcpu, gib, nanos in rows:
            writer.writerow([name, "", "", float(vcpu), float(gib), "", nanos / 10**9, "", region])


def run() -> None:
    """Optimizes each request, after one to warm up."""
    given = json.load(sys.stdin)
    write_catalogue(given["rows"])
    import sky
    from sky import check, clouds
    from sky.optimizer import Optimizer

    check.get_cached_enabled_clouds_or_refresh = lambda *args, **kwargs: [clouds.DO()]
    found = []
    for vcpu, gib, count in [given["asked"][0], *given["asked"]]:
        with sky.Dag() as dag:
            task = sky.Task(run="true", num_nodes=count)
            task.set_resources(sky.Resources(cpus=f"{vcpu}+", memory=f"{gib}+"))
        began = time.perf_counter()
        Optimizer.optimize(dag, quiet=True)
        spent = (time.perf_counter() - began) * 1000
        found.append({"ms": spent, "hourly": task.best_resources.get_cost(3600) * count})
    sys.stdout.write("\n" + json.dumps(found[1:]) + "\n")


run()
