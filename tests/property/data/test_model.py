"""Any history of operations and faults on a directory: nothing is lost, corrupt or unknown, and the catalogue can be
lost too. The long run is `make bench NAME=vdir-model`."""

from hypothesis import HealthCheck, settings

from cloudmesh.testing.directories.machine import Machine


class Small(Machine):
    """The machine with a tally for each run."""


TestDirectory = Small.TestCase
TestDirectory.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
