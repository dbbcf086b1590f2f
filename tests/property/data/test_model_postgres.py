"""Any history of operations and faults on a directory whose catalogue is in PostgreSQL. The long run is `make bench
NAME=vdir-model`."""

from __future__ import annotations

import functools

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.testbed.postgres import postgres

from cloudmesh.testing.directories.machine import Machine
from cloudmesh.testing.directories.postgres import PostgresWorld


def test_directory() -> None:
    with postgres("fsync=off", "full_page_writes=off") as server:

        class InPostgres(Machine):
            make_world = staticmethod(functools.partial(PostgresWorld, server.local))

        run_state_machine_as_test(
            InPostgres,
            settings=settings(
                max_examples=5, stateful_step_count=20, deadline=None, derandomize=True, database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
