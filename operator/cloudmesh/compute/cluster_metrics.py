"""Money and sizes of all clusters as metrics, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cloudmesh.compute.cluster_memory import Memory
from cloudmesh.engine import Key
from cloudmesh.policy.model import NANO


class ClusterMetrics(Collector):
    """Gauges of all clusters.

    Args:
        memories: What is known of them.
    """

    def __init__(self, memories: Mapping[Key, Memory]) -> None:
        self._memories = memories

    def describe(self) -> list[Metric]:
        """Nothing is asked for at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges as they are now."""
        labels = ["namespace", "cluster"]
        money = [*labels, "currency"]
        hourly = GaugeMetricFamily("cloudmesh_cluster_hourly_cost", "What a cluster costs per hour.", labels=money)
        accrued = GaugeMetricFamily("cloudmesh_cluster_accrued_cost", "What a cluster has cost.", labels=money)
        machines = GaugeMetricFamily("cloudmesh_cluster_machines", "Machines of a cluster.", labels=labels)
        ready = GaugeMetricFamily("cloudmesh_cluster_ready_replicas", "Replicas that are ready.", labels=labels)
        wanted = GaugeMetricFamily("cloudmesh_cluster_desired_replicas", "Replicas asked for.", labels=labels)
        for key, memory in list(self._memories.items()):
            names = [key.namespace, key.name]
            hourly.add_metric([*names, memory.currency], memory.hourly / NANO)
            accrued.add_metric([*names, memory.currency], memory.accrued / NANO)
            machines.add_metric(names, memory.machines)
            ready.add_metric(names, memory.ready)
            wanted.add_metric(names, memory.asked.replicas)
        yield from (hourly, accrued, machines, ready, wanted)
