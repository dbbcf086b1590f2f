"""The pure parts of machines and accounts: failure memory, rate, the next step, endpoints, redaction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmesh.compute.account_status import Counted, settle
from cloudmesh.compute.endpoints import guard_by, hosts_of
from cloudmesh.compute.failures import MAX_ENTRIES, FailureMemory
from cloudmesh.compute.machine_plan import Known, decide
from cloudmesh.compute.machines import view
from cloudmesh.compute.ports import Node
from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.compute.rate import Bucket
from cloudmesh.compute.redact import Redactor
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine.endpoints import check_allowed
from cloudmesh.engine.errors import AuthFailed, CapacityUnavailable, InvalidRequest, QuotaExceeded, RateLimited
from cloudmesh.policy.blocks import offer_key
from cloudmesh.policy.model import Offer

NOW = "2026-11-23T05:00:00Z"
OFFER = Offer(account="aws", type="m5.large", region="eu", zone="eu-a", purchase="Spot", quota="standard")


def later(seconds: int) -> str:
    return to_time(to_seconds(NOW) + seconds)


# -- failure memory ------------------------------------------------------------------------------------------------


def test_capacity_waits_three_minutes_then_twice_as_long_up_to_an_hour() -> None:
    memory, moment, waits = FailureMemory(), 0, []
    for _ in range(7):
        assert memory.remember(OFFER, CapacityUnavailable("none"), later(moment))
        (block,) = memory.blocks(later(moment))
        assert block.key == "aws/m5.large/eu-a/Spot"
        waits.append(to_seconds(block.until) - to_seconds(later(moment)))
        moment += waits[-1]
        assert memory.blocks(later(moment)) == ()
    assert waits == [180, 360, 720, 1440, 2880, 3600, 3600]


def test_ten_machines_that_fail_at_once_are_one_failure() -> None:
    memory = FailureMemory()
    assert memory.remember(OFFER, CapacityUnavailable("none"), NOW)
    assert not any(memory.remember(OFFER, CapacityUnavailable("none"), later(n)) for n in range(10))
    assert memory.blocks(NOW)[0].until == later(180)


def test_quota_and_credentials_have_wider_scopes_and_rates_none() -> None:
    memory = FailureMemory()
    memory.remember(OFFER, QuotaExceeded("32 vCPU"), NOW)
    assert not memory.remember(OFFER, RateLimited("slow down", 3.0), NOW)
    memory.remember(OFFER, AuthFailed("no"), NOW)
    assert {(b.key, b.error) for b in memory.blocks(NOW)} == {
        ("aws/eu/standard", "QuotaExceeded"),
        ("aws", "AuthFailed"),
    }
    assert memory.blocks(later(899))[0].error == "QuotaExceeded"
    assert [b.error for b in memory.blocks(later(10**9))] == ["AuthFailed"]
    assert memory.accept()
    assert memory.blocked(OFFER, later(900)) is None


def test_what_worked_is_forgiven() -> None:
    memory = FailureMemory()
    memory.remember(OFFER, CapacityUnavailable("none"), NOW)
    assert memory.blocked(OFFER, NOW) is not None
    assert memory.forget(OFFER)
    assert memory.blocked(OFFER, NOW) is None
    assert not memory.forget(OFFER)


def test_memory_goes_through_the_status_and_stays_bounded() -> None:
    memory = FailureMemory()
    for number in range(MAX_ENTRIES + 40):
        offer = Offer(account="aws", type=f"t{number}")
        memory.remember(offer, CapacityUnavailable("x" * 5000), later(number))
    status = memory.to_status(NOW)
    assert len(status) == MAX_ENTRIES
    assert all(len(entry["message"]) <= 256 for entry in status)
    again = FailureMemory.from_status({"failures": [*status, {"key": 5}, {"until": "nonsense"}]})
    assert again.to_status(NOW) == status
    assert offer_key(Offer(account="aws", type="t0")) not in {b.key for b in again.blocks(NOW)}
    assert again.to_status(later(3 * 3600)) == []


# -- rate ----------------------------------------------------------------------------------------------------------


def test_turns_are_given_in_order_and_kept() -> None:
    bucket, now = Bucket(2.0, burst=3), 100.0
    assert [bucket.wait(n, now) for n in range(3)] == [0.0, 0.0, 0.0]
    waits = [bucket.wait(n, now) for n in range(3, 7)]
    assert waits == [0.5, 1.0, 1.5, 2.0]
    assert bucket.wait(3, now + 0.5) == 0.0
    assert bucket.wait(6, now + 0.5) == pytest.approx(1.5)


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 5))
def test_no_second_has_more_calls_than_rate_and_burst(steps: list[float], rate: int, burst: int) -> None:
    bucket, now, taken = Bucket(float(rate), burst), 50.0, []
    for number, step in enumerate(steps):
        now += step
        if bucket.wait(number, now) == 0.0:
            taken.append(now)
    for begin in taken:
        assert sum(begin <= t < begin + 1.0 for t in taken) <= rate + burst


def test_a_pause_holds_everybody() -> None:
    bucket = Bucket(None)
    bucket.pause(7.0, 10.0)
    assert bucket.wait("a", 10.0) == 7.0
    assert bucket.wait("b", 17.0) == 0.0
    bucket.pause(None, 20.0)
    first = bucket.wait("a", 20.0)
    bucket.pause(None, 30.0)
    assert bucket.wait("a", 30.0) > first
    bucket.went_well()
    bucket.pause(None, 99.0)
    assert bucket.wait("a", 99.0) == 1.0


# -- the next step -------------------------------------------------------------------------------------------------

STATES = ("Pending", "Running", "Stopping", "Stopped", "Suspended", "Deleting", "Deleted", "Failed")
KNOWN = st.builds(
    Known,
    node=st.none() | st.builds(lambda state: Node(id="i-1", token="t", state=state), st.sampled_from(STATES)),
    absent=st.booleans(),
    outcome=st.sampled_from(("clear", "unknown", "made")),
    failed=st.booleans(),
    deleting=st.booleans(),
    released=st.booleans(),
)


@given(KNOWN)
def test_the_step_is_safe(known: Known) -> None:
    step = decide(known)
    alive = known.node is not None and known.node.state != "Deleted"
    if step == "Stamp":
        assert known.outcome == "clear"
        assert not known.deleting
        assert not known.failed
        assert known.node is None
    if step == "End":
        assert known.deleting
        assert not alive or known.released
        assert known.released or known.node is not None or known.absent or known.outcome == "clear"
    if step in ("Delete", "CleanUp"):
        assert alive
        assert known.deleting or known.failed
    if step == "Lost":
        assert not alive
        assert known.absent or known.node is not None
    if known.deleting and alive and not known.released:
        assert step == "Delete"


# -- endpoints, secrets, status --------------------------------------------------------------------------------------


def test_hosts_are_those_of_endpoint_and_machines() -> None:
    assert hosts_of("aws", {"endpoint": "https://Cloud.example.org.:5000/v3"}) == ("cloud.example.org",)
    assert hosts_of("ssh", {"hosts": [{"address": "10.0.0.7"}, {"address": "B."}]}) == ("10.0.0.7", "b")
    assert hosts_of("ssh", {"hosts": [{"address": "2001:db8::7"}]}) == ("2001:db8::7",)
    assert hosts_of("memory", {}) == hosts_of("aws", {"region": "us-east-1"}) == ()


def test_hosts_of_a_plugin_are_in_its_settings() -> None:
    assert hosts_of("openstack", {"endpoint": "https://keystone/v3", "hosts": "5"}) == ("keystone",)
    for odd in ("https:///v3", "localhost:80", "keystone", "https://[::1"):
        assert hosts_of("openstack", {"endpoint": odd}) == ("",), "refused, as a host that nobody can check"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "localhost", "x.localhost", "169.254.169.254", "::1", "fe80::1%eth0", "0.0.0.0",
             "::ffff:169.254.169.254", "2852039166", "kubernetes.default.svc.cluster.local", ""],
)  # fmt: skip
def test_hosts_of_this_cluster_are_refused(host: str) -> None:
    with pytest.raises(InvalidRequest):
        guard_by(ComputeSettings()).check_hosts([host])


def test_private_endpoints_can_be_allowed_but_never_the_api_server() -> None:
    settings = ComputeSettings.from_environ(
        {"CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS": "true", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    )
    guard_by(settings).check_hosts(["127.0.0.1", "cloud.example.org"])
    for host in ("10.96.0.1", "kubernetes.default.svc"):
        with pytest.raises(InvalidRequest):
            guard_by(settings).check_hosts([host])


def test_the_secret_must_name_the_host() -> None:
    check_allowed(["a.example.org"], {"hosts": b"b.example.org\na.example.org\n"}, "s")
    check_allowed(["a.example.org", "b.example.org"], {"hosts": b"b.example.org,A.example.org, c"}, "s")
    for hosts in (b"", b"b.example.org", b"example.org", b"a.example.org.evil.org"):
        with pytest.raises(InvalidRequest, match=r"a\.example\.org"):
            check_allowed(["a.example.org"], {"hosts": hosts}, "s")


def test_secrets_are_taken_out_of_errors_and_of_what_lies_behind_them() -> None:
    redactor = Redactor([b"hunter2hunter2", b"line one is long\nline two is long", b"short"])
    error = AuthFailed("key hunter2hunter2 and line two is long, short")
    error.__cause__ = ValueError("hunter2hunter2")
    redactor.clean(error)
    assert str(error) == "key [redacted] and [redacted], short"
    assert error.__cause__ is None


def test_counters_are_written_seldom_and_text_at_once() -> None:
    counted = Counted()
    old: dict[str, object] = {}
    first, wait = settle({"conditions": [1], "offers": 5, "running": 0, "hourly": "0"}, old, counted, 0.0)
    assert (first["running"], wait) == (0, 0.0)
    second, wait = settle({"conditions": [2], "offers": 5, "running": 3, "hourly": "1"}, first, counted, 10.0)
    assert (second["conditions"], second["running"], second["hourly"]) == ([2], 0, "0")
    assert wait == 140.0
    third, _ = settle({"conditions": [2], "offers": 5, "running": 3, "hourly": "1"}, second, counted, 150.0)
    assert (third["running"], third["hourly"]) == (3, "1")
    fourth, wait = settle({"conditions": [2], "offers": 5, "running": 3, "hourly": "1.009"}, third, counted, 900.0)
    assert (fourth["hourly"], wait) == ("1", 0.0)


def test_a_view_reads_an_object_without_status() -> None:
    machine = view(
        {
            "metadata": {"name": "lab-w-0", "namespace": "ns", "uid": "u"},
            "spec": {"accountRef": {"name": "aws"}, "offer": {"type": "m5", "region": "eu"}, "pool": "w",
                     "clusterRef": {"name": "lab"}},
        }
    )  # fmt: skip
    assert machine.offer_id == "aws/m5/eu//OnDemand"
    assert machine.offer_id == Offer(account="aws", type="m5", region="eu").id
    assert (machine.cluster, machine.pool, machine.attempt) == ("lab", "w", 1)
    assert not (machine.ready or machine.failed or machine.deleting)
    assert machine.hourly_nanos is None
