"""A bed of its own is started, hurt, mended and ended; beside it another bed goes on, and nothing stays on the host."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.testbed import addons, artifacts, config, host
from tests.testbed.bed import OwnBed, Record
from tests.testbed.console import TestbedError
from tests.testbed.kubectl import TestCluster

pytestmark = [pytest.mark.kube]
WARM_START_SECONDS = 20
SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
COMPONENTS = [component.name for component in config.components(host.AddressPlan(0))]


@pytest.fixture(scope="module", autouse=True)
def other_bed(cluster: TestCluster) -> TestCluster:
    """The checkout's cluster, which must not notice any of this."""
    if cluster.info.kind != "own":
        pytest.skip("this machine uses another kind of cluster")
    return cluster


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBed]:
    # longer than the 108 bytes that a Unix socket's path may have
    state = tmp_path_factory.mktemp("bed") / ("a-long-path-" * 8) / "and, strange: name"
    state.mkdir(parents=True)
    own = OwnBed(state)
    try:
        yield own
    finally:
        own.down()


@dataclass(frozen=True)
class Host:
    """What a bed could change on the host, without what belongs to other beds."""

    mounts: frozenset[str]
    links: frozenset[str]
    routes: frozenset[str]
    tables: frozenset[str]
    cgroups: frozenset[str]
    networks: frozenset[str]
    sysctls: tuple[str, ...]

    @classmethod
    def now(cls, others: set[int]) -> Host:
        def ours(line: str) -> bool:
            return not any(re.search(rf"\bcm(bed{n}|.*-bed-{n})\b|cloudmesh-bed-{n}\b", line) for n in others)

        command, env = artifacts.packaged_command("nft")
        tables = subprocess.run(
            [*command, "list", "tables"], env=env, capture_output=True, text=True, timeout=30
        ).stdout
        routes = subprocess.run(
            ["ip", "route", "show", "table", "all"], capture_output=True, text=True, timeout=30
        ).stdout
        groups = [path for path, _, _ in os.walk(host.CGROUPS) if "/cloudmesh-bed-" in path]
        return cls(
            frozenset(line.split(" ", 1)[1] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
            frozenset(filter(ours, (path.name for path in Path("/sys/class/net").iterdir()))),
            frozenset(filter(ours, routes.splitlines())),
            frozenset(filter(ours, tables.splitlines())),
            frozenset(filter(ours, groups)),
            frozenset(path.name for path in Path("/run/netns").glob("*")),
            tuple(Path("/proc/sys", name).read_text().strip() for name in SYSCTLS),
        )


def processes_of(record: Record, networks: set[str]) -> list[str]:
    """Processes in the bed's cgroups or in one of its network namespaces."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            groups = (folder / "cgroup").read_text()
            network = str((folder / "ns/net").readlink())
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if re.search(rf"/{record.name}(/|$)", groups, re.MULTILINE) or network in networks:
            found.append(f"{folder.name} {command}")
    return found


def networks_of(record: Record) -> set[str]:
    """Network namespaces of the bed and of its Pods, but not the host's."""
    networks = set()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and re.search(
                rf"/{record.name}(/|$)", (folder / "cgroup").read_text(), re.MULTILINE
            ):
                networks.add(str((folder / "ns/net").readlink()))
        except OSError:
            continue
    return networks - {str(Path("/proc/self/ns/net").readlink())}


def api(bed: OwnBed) -> addons.Api:
    return addons.Api(up_record(bed).plan.node, bed.state / "pki")


def up_record(bed: OwnBed) -> Record:
    record = bed.record()
    assert record is not None and record.alive()
    return record


def note(bed: OwnBed, name: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    api(bed).call("POST", "/api/v1/namespaces/default/configmaps", body)


def noted(bed: OwnBed, name: str) -> bool:
    try:
        api(bed).call("GET", f"/api/v1/namespaces/default/configmaps/{name}")
    except addons.ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def run_pod(bed: OwnBed, name: str) -> None:
    """Start a Pod that only holds its namespaces, and wait until it runs."""
    container = {"name": "main", "image": artifacts.PAUSE, "imagePullPolicy": "Never"}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
    api(bed).call("POST", "/api/v1/namespaces/default/pods", body)
    deadline = time.monotonic() + 30
    while api(bed).call("GET", f"/api/v1/namespaces/default/pods/{name}")["status"].get("phase") != "Running":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def others(bed: OwnBed) -> set[int]:
    """Indexes of beds that run beside this one."""
    record = bed.record()
    mine = record.index if record else -1
    names = (path.name for path in Path("/sys/class/net").glob("cmbed*"))
    return {int(name[5:]) for name in names} - {mine}


def test_down_leaves_the_host_as_it_was(bed: OwnBed, other_bed: TestCluster) -> None:
    beside = others(bed)
    before = Host.now(beside)
    seconds = []
    while not seconds or (min(seconds) > WARM_START_SECONDS and len(seconds) < 3):  # the machine may be busy
        bed.down()
        began = time.monotonic()
        bed.up()
        seconds.append(time.monotonic() - began)
    assert min(seconds) <= WARM_START_SECONDS
    record = up_record(bed)
    run_pod(bed, "there-until-the-end")
    networks = networks_of(record)
    assert len(networks) >= 2, "of the bed and of its Pod"
    assert any("containerd-shim" in process for process in processes_of(record, networks))
    during = Host.now(beside)
    assert during.links - before.links == {record.plan.link}
    assert during.cgroups and during.routes != before.routes and during.tables != before.tables
    assert (during.mounts, during.sysctls) == (before.mounts, before.sysctls), "mounts and sysctls are the bed's own"
    bed.down()
    assert processes_of(record, networks) == []
    assert Host.now(beside) == before
    logs = ["log"] if len(seconds) == 1 else ["log", "log.previous"]
    assert sorted(path.name for path in bed.state.iterdir()) == logs
    assert json.loads(other_bed.kubectl("get", "--raw", "/api/v1/nodes/bed"))["status"]["conditions"]


def test_up_again_keeps_what_is_there(bed: OwnBed) -> None:
    bed.up()
    record = up_record(bed)
    note(bed, "kept")
    bed.up()
    assert up_record(bed) == record and noted(bed, "kept")


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_killed_component_comes_back(bed: OwnBed, component: str) -> None:
    bed.up()
    record, starts = up_record(bed), bed.components()[component]["starts"]
    bed.signal(component, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while bed.components()[component]["ready"] and bed.components()[component]["starts"] == starts:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    bed.up()
    assert up_record(bed) == record, "the bed itself wasn't started anew"
    assert bed.components()[component]["starts"] > starts
    note(bed, f"after-{component}")


def test_a_stopped_component_goes_on(bed: OwnBed) -> None:
    bed.up()
    record = up_record(bed)
    bed.signal("apiserver", signal.SIGSTOP)
    with pytest.raises(OSError, match="timed out"):
        addons.Api(record.plan.node, bed.state / "pki", timeout=1).call("GET", "/readyz")
    bed.up()
    assert up_record(bed) == record


def test_lost_network_is_mended(bed: OwnBed) -> None:
    bed.up()
    record = up_record(bed)
    subprocess.run(["ip", "route", "delete", record.plan.services], check=True, timeout=10)
    command, env = artifacts.packaged_command("nft")
    subprocess.run([*command, "delete", "table", "ip", record.plan.link], env=env, check=True, timeout=10)
    bed.up()
    assert up_record(bed) == record
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, timeout=10).stdout
    assert record.plan.services in routes


@pytest.mark.parametrize("which", ["outer", "init"])
def test_up_after_the_end_of_the_whole_bed(bed: OwnBed, which: str) -> None:
    bed.up()
    record = up_record(bed)
    process = record.outer if which == "outer" else record.init
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while record.alive():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(TestbedError, match="make up"):
        bed.enter(["true"])
    bed.up()
    assert up_record(bed) != record
    note(bed, "new")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.4, 1.5])
def test_interrupted_up_leaves_nothing_that_hinders(bed: OwnBed, number: signal.Signals, delay: float) -> None:
    bed.down()
    # a shell that starts the tests in the background has it ignored, and children inherit that
    listens = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    script = (
        listens
        + "import sys; from pathlib import Path; from tests.testbed.bed import OwnBed; print('go', flush=True); "
    )
    command = [sys.executable, "-c", script + "OwnBed(Path(sys.argv[1])).up()", str(bed.state)]
    beside = others(bed)
    before = Host.now(beside)
    with subprocess.Popen(command, cwd=artifacts.ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline() == b"go\n"
        time.sleep(delay)
        process.send_signal(number)
        process.wait(60)  # a machine that is busy elsewhere
    if delay == 1.5:  # once is enough for the longer half: the bed starts over what was left
        bed.up()
        note(bed, "whole")
    record = bed.record()
    bed.down()
    if record:
        assert processes_of(record, set()) == []
    assert Host.now(beside) == before


def test_wrong_component_is_told_with_the_right_ones(bed: OwnBed) -> None:
    bed.up()
    with pytest.raises(TestbedError, match=r"no component web: there are apiserver, containerd, .*scheduler"):
        bed.signal("web", signal.SIGKILL)


def test_file_that_is_no_image_is_refused(bed: OwnBed, tmp_path: Path) -> None:
    bed.up()
    wrong = tmp_path / "wrong.tar"
    wrong.write_text("no archive")
    with pytest.raises(TestbedError, match=r"wrong\.tar can't be imported"):
        bed.import_images([wrong])
    with pytest.raises(TestbedError, match=r"absent\.tar: No such file"):
        bed.import_images([tmp_path / "absent.tar"])


def test_a_host_that_drops_forwarded_packets_is_noticed() -> None:
    assert not any("cmbed" in what for what in host.forwarding_is_dropped_by())
    rules = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }\n}\n"
    script = (
        "import subprocess, sys; from tests.testbed import artifacts, host; "
        "command, env = artifacts.packaged_command('nft'); "
        "subprocess.run([*command, '-f', '-'], env=env, input=sys.argv[1], text=True, check=True); "
        "print(host.forwarding_is_dropped_by())"
    )
    result = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", script, rules],
        cwd=artifacts.ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert result.stdout.strip() == "['the chain FORWARD of nftables table ip filter']", result.stderr
