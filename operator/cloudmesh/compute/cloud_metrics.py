"""Metrics of the clouds' side: calls, machines, orphans."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from cloudmesh.engine import Metrics

CALL_BUCKETS = (0.005, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0)


class CloudMetrics:
    """What the compute wing counts of its clouds.

    Args:
        metrics: The engine's, whose registry they go into.
    """

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self.calls = Counter(
            "cloudmesh_cloud_calls_total",
            "Calls of clouds by result: ok or the reason of the error.",
            ["provider", "operation", "result"],
            registry=registry,
        )
        self.seconds = Histogram(
            "cloudmesh_cloud_call_seconds",
            "How long calls of clouds took.",
            ["provider", "operation"],
            buckets=CALL_BUCKETS,
            registry=registry,
        )
        self.unloaded = Counter(
            "cloudmesh_provider_load_failures_total",
            "Times that the code of a provider, built in or plugged in, couldn't be loaded.",
            ["provider"],
            registry=registry,
        )
        self.nodes = Gauge(
            "cloudmesh_cloud_nodes",
            "Machines that an account's last listing showed.",
            ["namespace", "account"],
            registry=registry,
        )
        self.hourly = Gauge(
            "cloudmesh_account_hourly_cost",
            "What the running machines of an account cost per hour.",
            ["namespace", "account", "currency"],
            registry=registry,
        )
        self.orphans = Counter(
            "cloudmesh_orphans_collected_total",
            "Machines without a VirtualMachine that were deleted.",
            ["namespace", "account"],
            registry=registry,
        )
