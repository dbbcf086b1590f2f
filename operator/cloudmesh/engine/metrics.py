"""Prometheus metrics of the engine; each engine has a registry of its own, so two can live in one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

RECONCILE_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)
CALL_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)


class Metrics:
    """What the engine counts; wings may register more with `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue_depth = Gauge(
            "cloudmesh_queue_depth", "Keys that wait for a worker.", ["kind"], registry=self.registry
        )
        self.queue_age = Gauge(
            "cloudmesh_queue_age_seconds", "Age of the key that has waited longest.", registry=self.registry
        )
        self.in_flight = Gauge("cloudmesh_reconciles_in_flight", "Keys being handled now.", registry=self.registry)
        self.reconcile_seconds = Histogram(
            "cloudmesh_reconcile_seconds",
            "How long a reconcile took.",
            ["kind", "result"],
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.errors = Counter(
            "cloudmesh_reconcile_errors_total",
            "Reconciles that failed, by reason.",
            ["kind", "reason"],
            registry=self.registry,
        )
        self.stopped = Gauge(
            "cloudmesh_reconcile_stopped",
            "Objects that wait for a change by their user after an error that a retry can't mend.",
            ["kind"],
            registry=self.registry,
        )
        self.api_calls = Counter(
            "cloudmesh_api_calls_total",
            "Calls of the Kubernetes API.",
            ["kind", "verb", "code"],
            registry=self.registry,
        )
        self.api_seconds = Histogram(
            "cloudmesh_api_call_seconds",
            "Seconds until the head of the API server's answer.",
            ["verb"],
            buckets=CALL_BUCKETS,
            registry=self.registry,
        )
        self.status_writes = Counter(
            "cloudmesh_status_writes_total",
            "Writes of status by result: written or skipped as equal.",
            ["kind", "result"],
            registry=self.registry,
        )
        self.watch_restarts = Counter(
            "cloudmesh_watch_restarts_total",
            "Watches begun again, by reason.",
            ["kind", "reason"],
            registry=self.registry,
        )
        self.watch_events = Counter(
            "cloudmesh_watch_events_total", "Events that watches brought.", ["kind"], registry=self.registry
        )
        self.cached = Gauge("cloudmesh_cached_objects", "Objects in the cache.", ["kind"], registry=self.registry)
        self.events = Counter(
            "cloudmesh_events_total",
            "Kubernetes Events by result: written, counted into an older one, or dropped.",
            ["result"],
            registry=self.registry,
        )
        self.leader = Gauge("cloudmesh_leader", "1 while this process holds the lease.", registry=self.registry)
        self.lease_transitions = Counter(
            "cloudmesh_lease_acquired_total", "Times this process took the lease.", registry=self.registry
        )

    def api_call(self, kind: str, verb: str, code: str, seconds: float) -> None:
        """Counts one call; `code` is the HTTP status or `error`."""
        self.api_calls.labels(kind, verb, code).inc()
        if verb != "watch":
            self.api_seconds.labels(verb).observe(seconds)

    def register(self, collector: Collector) -> None:
        """Adds a collector of a wing."""
        self.registry.register(collector)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)
