"""Figures of a function's server in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts of one server process.

    Args:
        operations: names of the operations, so that each has a row from the start.
    """

    def __init__(self, operations: list[str]) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.seconds: dict[str, list[int]] = {name: [0] * (len(BUCKETS) + 1) for name in operations}
        self.total_seconds: dict[str, float] = dict.fromkeys(operations, 0.0)
        self.in_flight = 0
        self.import_seconds = 0.0
        self.ready = False

    def observe(self, operation: str, code: int, seconds: float) -> None:
        """Counts a finished request."""
        key = (operation, code)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.seconds[operation][bisect_left(BUCKETS, seconds)] += 1
        self.total_seconds[operation] += seconds

    def render(self) -> bytes:
        """All figures as text."""
        lines = [
            "# HELP cloudmesh_function_requests_total Requests by operation and status code.",
            "# TYPE cloudmesh_function_requests_total counter",
        ]
        for (operation, code), count in sorted(self.requests.items()):
            lines.append(f'cloudmesh_function_requests_total{{operation="{_label(operation)}",code="{code}"}} {count}')
        lines += [
            "# HELP cloudmesh_function_request_seconds Seconds from a request's arrival to its answer.",
            "# TYPE cloudmesh_function_request_seconds histogram",
        ]
        for operation, counts in sorted(self.seconds.items()):
            label, running = _label(operation), 0
            for bound, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
                running += count
                lines.append(f'cloudmesh_function_request_seconds_bucket{{operation="{label}",le="{bound}"}} {running}')
            lines.append(
                f'cloudmesh_function_request_seconds_sum{{operation="{label}"}} {self.total_seconds[operation]:.9g}'
            )
            lines.append(f'cloudmesh_function_request_seconds_count{{operation="{label}"}} {running}')
        for name, text, value in (
            ("in_flight", "Calls that run now.", f"{self.in_flight}"),
            ("import_seconds", "Seconds that importing the function's module took.", f"{self.import_seconds:.6f}"),
            ("ready", "Whether the function is ready.", f"{int(self.ready)}"),
        ):
            lines += [
                f"# HELP cloudmesh_function_{name} {text}",
                f"# TYPE cloudmesh_function_{name} gauge",
                f"cloudmesh_function_{name} {value}",
            ]
        return "\n".join([*lines, ""]).encode()


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
