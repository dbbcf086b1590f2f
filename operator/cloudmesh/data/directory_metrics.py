"""Sizes of all directories as metrics, read when they are asked for: what moves too often for a status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cloudmesh.data.config import Summary
from cloudmesh.engine import Key


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
        for key, summary in list(self._summaries.items()):
            names = [key.namespace, key.name]
            files.add_metric(names, summary.files)
            size.add_metric(names, summary.bytes)
            pending.add_metric(names, summary.pending)
            corrupted.add_metric(names, summary.corrupted)
            for store in summary.stores:
                up.add_metric([*names, store.name], store.state in ("Up", "Slow"))
                held.add_metric([*names, store.name], store.bytes)
        yield from (files, size, pending, corrupted, up, held)
