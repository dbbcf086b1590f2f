"""Sizes of all directories as metrics, read when they are asked for: what moves too often for a status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cloudmesh.data.config import Summary
from cloudmesh.engine import Key

COUNTERS: Final = {
    "verified": ("verified_copies", "Copies that were read and found whole."),
    "damaged": ("damaged_copies", "Copies whose bytes weren't those on record when they were read."),
    "repaired": ("repaired_copies", "Copies made in place of one that was lost, damaged or out of date."),
    "settled": ("settled_objects", "Objects that got the names that their files have by now."),
    "shifted": ("shifted_copies", "Copies that went to an emptier store."),
    "trash_removed": ("trash_removed_copies", "Copies of what was deleted or replaced that were removed in time."),
    "conflicts": ("conflicts", "Files made of what somebody else wrote over a copy."),
}
"""By member of `Counters`, name and help; they begin at 0 with each process of a gateway."""


class DirectoryMetrics(Collector):
    """Gauges of all directories.

    Args:
        summaries: What their gateways told last; a directory whose gateway is silent isn't in it.
    """

    def __init__(self, summaries: Mapping[Key, Summary]) -> None:
        self._summaries = summaries

    def describe(self) -> list[Metric]:
        """Nothing is asked for at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges as they are now."""
        labels = ["namespace", "directory"]
        files = GaugeMetricFamily("cloudmesh_directory_files", "Files in the tree.", labels=labels)
        size = GaugeMetricFamily("cloudmesh_directory_bytes", "Bytes of all files, each counted once.", labels=labels)
        pending = GaugeMetricFamily("cloudmesh_directory_pending_files", "Files with work waiting.", labels=labels)
        corrupted = GaugeMetricFamily("cloudmesh_directory_corrupted_copies", "Damaged copies.", labels=labels)
        each = [*labels, "store"]
        up = GaugeMetricFamily("cloudmesh_directory_store_up", "1 if a store answers and is believed.", labels=each)
        held = GaugeMetricFamily("cloudmesh_directory_store_bytes", "Bytes of copies in a store.", labels=each)
        cost = GaugeMetricFamily(
            "cloudmesh_directory_monthly_cost", "What keeping all copies costs a month.", labels=[*labels, "currency"]
        )
        dear = GaugeMetricFamily(
            "cloudmesh_directory_store_monthly_cost", "What keeping a store's copies costs a month.",
            labels=[*each, "currency"],
        )  # fmt: skip
        egress = GaugeMetricFamily(
            "cloudmesh_directory_store_egress_bytes", "Bytes read from a store since the month began.", labels=each
        )
        lacking = GaugeMetricFamily(
            "cloudmesh_directory_under_replicated_files", "Files with too few copies.", labels=labels
        )
        unreachable = GaugeMetricFamily(
            "cloudmesh_directory_unreachable_files", "Files that can't be read.", labels=labels
        )
        broken = GaugeMetricFamily(
            "cloudmesh_directory_beyond_repair_files", "Files without a whole copy, of which a damaged one is left.",
            labels=labels,
        )  # fmt: skip
        waiting = GaugeMetricFamily(
            "cloudmesh_directory_waiting_files", "Files whose new copies wait at the limit of cost.", labels=labels
        )
        counters = {
            member: CounterMetricFamily(f"cloudmesh_directory_{name}", words, labels=labels)
            for member, (name, words) in COUNTERS.items()
        }
        for key, summary in list(self._summaries.items()):
            names = [key.namespace, key.name]
            files.add_metric(names, summary.files)
            size.add_metric(names, summary.bytes)
            pending.add_metric(names, summary.pending)
            corrupted.add_metric(names, summary.corrupted)
            lacking.add_metric(names, summary.under_replicated)
            unreachable.add_metric(names, summary.unreachable)
            broken.add_metric(names, summary.beyond_repair)
            waiting.add_metric(names, summary.unaffordable)
            for member, counter in counters.items():
                counter.add_metric(names, getattr(summary.done, member))
            if summary.monthly_nanos is not None:
                cost.add_metric([*names, summary.currency], summary.monthly_nanos / 1e9)
            for store in summary.stores:
                up.add_metric([*names, store.name], store.state in ("Up", "Slow"))
                held.add_metric([*names, store.name], store.bytes)
                egress.add_metric([*names, store.name], store.egress_bytes)
                if store.monthly_nanos is not None:
                    dear.add_metric([*names, store.name, summary.currency], store.monthly_nanos / 1e9)
        yield from (files, size, pending, corrupted, lacking, unreachable, broken, waiting)
        yield from (cost, up, held, dear, egress)
        yield from counters.values()
