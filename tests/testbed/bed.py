"""Our own cluster: a single-node Kubernetes in namespaces of its own, started, mended and ended from here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.testbed import addons, artifacts, config, host, pki, prerequisites
from tests.testbed.console import TestbedError, say, step

NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup")
START_SECONDS = 120
MEND_SECONDS = 60


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that can't be mistaken for a later one with the same number, not even after a reboot."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has this number now; raises OSError when there is none."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return cls(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())

    def alive(self) -> bool:
        """Whether it still runs (a zombie doesn't)."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            return state not in "ZX" and ProcessId.of(self.pid) == self
        except OSError:
            return False


@dataclass(slots=True)
class Record:
    """What a bed has on the host, written down before it is made, so that it can be removed after any interruption."""

    index: int
    name: str
    parts: artifacts.Parts
    cgroups: list[str] = field(default_factory=list)
    outer: ProcessId | None = None
    init: ProcessId | None = None

    @property
    def plan(self) -> host.AddressPlan:
        """The bed's addresses."""
        return host.AddressPlan(self.index)

    def alive(self) -> bool:
        """Whether the bed's PID 1 runs."""
        return self.init is not None and self.init.alive()

    def save(self, file: Path) -> None:
        """Write it; a reader sees the old or the new one, never a part."""
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(asdict(self), indent=1))
        beside.replace(file)

    @classmethod
    def load(cls, file: Path) -> Record | None:
        """Read it; None when there is none."""
        try:
            found: dict[str, Any] = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        # Written by another version of this code, it must still be enough to remove the bed.
        record = cls(found["index"], found["name"], artifacts.Parts("", "", ""), found["cgroups"])
        record.outer, record.init = (ProcessId(**found[n]) if found[n] else None for n in ("outer", "init"))
        if found.get("parts", {}).keys() == asdict(record.parts).keys():
            record.parts = artifacts.Parts(**found["parts"])
        return record


class OwnBed:
    """The bed of one checkout.

    Args:
        state: its folder, `.testbed` of the checkout.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self._file = state / "bed.json"

    def record(self) -> Record | None:
        """What is known of the bed; None when it was never started or was ended."""
        return Record.load(self._file)

    # --- up ----------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start the bed, or mend it when it is there; returns when Pods can run. Call it with the checkout's lock held.

        Raises:
            TestbedError: it can't be; the message says why.
        """
        prerequisites.check(self.state)
        record = self.record()
        if record and record.alive():
            if self._mend(record):
                return
            say(f"  the bed didn't answer within {MEND_SECONDS} s and is started anew")
        if record:
            self.down()
        self._start()

    def _mend(self, record: Record) -> bool:
        if artifacts.parts() != record.parts:
            say("  note: the bed that runs was built from other versions; `make down` and `make up` bring the new ones")
        for component in self.components():
            with contextlib.suppress(TestbedError):
                self.signal(component, signal.SIGCONT)
        if not host.link_exists(record.plan):
            return False
        with host.lock():
            assert record.init is not None
            host.connect(record.plan, record.init.pid)
        return self._wait(record, MEND_SECONDS)

    def _start(self) -> None:
        parts = artifacts.parts()
        began = time.monotonic()
        self._clear()
        for folder in ("log", "pki", "conf", "var", "run"):
            (self.state / folder).mkdir(parents=True)
        (self.state / "bin").symlink_to(Path(parts.kubernetes, "bin"))
        with host.lock():
            plan = host.free_plan(self.state)
            record = Record(plan.index, f"cloudmesh-bed-{plan.index}", parts)
            record.cgroups = [str(group) for group in host.make_cgroups(record.name)]
            record.save(self._file)
            self._configure(plan, parts)
            self._spawn(record)
            assert record.init is not None
            host.connect(plan, record.init.pid)
        host.warn_if_forwarding_is_dropped(plan)
        if not self._wait(record, START_SECONDS, began):
            raise TestbedError(
                f"the bed isn't usable after {START_SECONDS} s; its logs are in {self.state / 'log'}, "
                f"begin with supervisor.log"
            )

    def _configure(self, plan: host.AddressPlan, parts: artifacts.Parts) -> None:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        settings = {
            **asdict(parts),
            "node": plan.node,
            "host": plan.host,
            "bridge": plan.bridge,
            "image_bytes": memory * 2 // 5 if memory >= 12 * 2**30 else 0,
        }
        for name, content in config.files(plan, host.nameservers()).items():
            target = self.state / "conf" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        (self.state / "conf/settings.json").write_text(json.dumps(settings, indent=1))
        pki.write_all(self.state, plan.node, plan.kubernetes, config.NODE)

    def _spawn(self, record: Record) -> None:
        groups = [Path(group) for group in record.cgroups]
        command = [
            "unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
            sys.executable, "-m", "tests.testbed.supervisor", str(self.state),
        ]  # fmt: skip
        with (self.state / "log/supervisor.log").open("w") as output:
            outer = subprocess.Popen(
                command, cwd=artifacts.ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=lambda: host.enter_cgroups(groups),
                env={**os.environ, "PYTHONPATH": str(artifacts.ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
        outer.returncode = 0  # it outlives this process: nobody here waits for it
        record.outer = ProcessId.of(outer.pid)
        record.save(self._file)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and record.outer.alive():
            for child in _children(outer.pid):
                if Path(f"/proc/{child}/ns/net").readlink() != Path("/proc/self/ns/net").readlink():
                    record.init = ProcessId.of(child)
                    record.save(self._file)
                    return
            time.sleep(0.01)
        said = (self.state / "log/supervisor.log").read_text().strip()
        raise TestbedError(f"no namespaces for the bed: {said or 'unshare started no process'}")

    # --- readiness ---------------------------------------------------------------------------------------------------

    def _wait(self, record: Record, seconds: float, began: float | None = None) -> bool:
        """Wait until the bed is usable; tell the time since `began` for each thing. False when it isn't in time."""
        api = addons.Api(record.plan.node, self.state / "pki", timeout=5)
        began = time.monotonic() if began is None else began
        deadline = time.monotonic() + seconds
        checks = {
            "all components answer": self._components_ready,
            "node is Ready": lambda: _node_ready(api),
            "default ServiceAccount and StorageClass": lambda: _defaults(api),
            "DNS answers": lambda: _answers(f"http://{record.plan.node}:8181/ready"),
            "metrics API": lambda: _metrics_api(api),
        }
        for text, check in checks.items():
            while not _holds(check):
                if time.monotonic() > deadline or not record.alive():
                    say(f"  not reached: {text}")
                    return False
                time.sleep(0.1)
            say(f"  {time.monotonic() - began:5.1f} s  {text}")
        return True

    def _components_ready(self) -> bool:
        components = self.components()
        return bool(components) and all(facts["ready"] for facts in components.values())

    # --- down --------------------------------------------------------------------------------------------------------

    def down(self) -> None:
        """End the bed and remove all it has on the host; logs and dumps stay. Call it with the checkout's lock held.

        Raises:
            TestbedError: something is left; the message names it.
        """
        record = self.record()
        if record is None:
            return
        with step(f"bed ended: nothing is left on the host, its logs are in {self.state.name}/log"):
            _end_processes(record)
            with host.lock():
                # A killed start may have left a child on its way into the groups; it holds the lock until then.
                _end_processes(record)
                host.disconnect(record.plan)
            groups = [Path(group) for group in record.cgroups]
            host.remove_cgroups(groups)
            left = [str(group) for group in groups if group.exists()]
            if host.link_exists(record.plan):
                left.append(f"link {record.plan.link}")
            if left:
                raise TestbedError(f"left of the bed: {', '.join(left)}; call `make down` again")
            self._clear(keep_logs=True)
            self._file.unlink()

    def _clear(self, *, keep_logs: bool = False) -> None:
        for folder in ("pki", "conf", "var", "run"):
            shutil.rmtree(self.state / folder, ignore_errors=True)
        for name in ("kubeconfig", "bin"):
            (self.state / name).unlink(missing_ok=True)
        if not keep_logs and (self.state / "log").exists():
            shutil.rmtree(self.state / "log.previous", ignore_errors=True)
            (self.state / "log").rename(self.state / "log.previous")

    # --- inside ------------------------------------------------------------------------------------------------------

    def components(self) -> dict[str, dict[str, Any]]:
        """State of each component by name: `pid` inside of the bed (0: ended), `starts`, `ready`."""
        try:
            status: dict[str, dict[str, Any]] = json.loads((self.state / "run/status.json").read_text())
        except FileNotFoundError:
            return {}
        return status

    def enter(self, command: Sequence[str], *, only_network: bool = False) -> list[str]:
        """The argument list that runs a command in the bed: in all its namespaces, or only in its network.

        Raises:
            TestbedError: the bed isn't up.
        """
        record = self.record()
        if record is None or record.init is None or not record.alive():
            raise TestbedError("the test bed isn't up: start it with `make up`")
        kinds = ["-n"] if only_network else ["-m", "-n", "-p", "-u", "-i", "-C"]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        env = [] if only_network else ["env", f"PATH={config.BIN}:{path}"]
        return ["nsenter", "-t", str(record.init.pid), *kinds, "--", *env, *command]

    def signal(self, component: str, number: signal.Signals) -> None:
        """Send a signal to a component of the bed.

        Raises:
            TestbedError: there is no such component, or it doesn't run.
        """
        components = self.components()
        if component not in components:
            raise TestbedError(f"no component {component}: there are {', '.join(sorted(components)) or 'none'}")
        pid = components[component]["pid"]
        if not pid:
            raise TestbedError(f"{component} doesn't run at the moment")
        result = subprocess.run(self.enter(["kill", f"-{number.name[3:]}", str(pid)]), capture_output=True, text=True,
                                timeout=30, check=False)  # fmt: skip
        if result.returncode:
            raise TestbedError(f"{component}: {result.stderr.strip()}")

    def import_images(self, archives: Sequence[Path]) -> None:
        """Import OCI or Docker archives into the node.

        Raises:
            TestbedError: an archive is missing or no image archive.
        """
        for archive in archives:
            command = self.enter(["ctr", "--address", config.SOCKET, "-n", "k8s.io", "images", "import", "-"])
            try:
                with archive.open("rb") as content:
                    result = subprocess.run(
                        command, stdin=content, capture_output=True, text=True, timeout=600, check=False
                    )
            except OSError as error:
                raise TestbedError(f"{archive}: {error.strerror}") from None
            if result.returncode:
                raise TestbedError(f"{archive} can't be imported: {result.stderr.strip()}")


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(folder.name))
    return found


def _end_processes(record: Record, wait: float = 60) -> None:
    """Kill PID 1, with which the kernel ends the rest, and wait until the outer process has seen that."""
    for process in (record.init, record.outer):
        if process and process.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
                break
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        # Also those that an interrupted start left without a record: whatever is in the bed's own cgroups.
        left = {pid for group in record.cgroups for pid in _members(Path(group))}
        if not left and not any(process and process.alive() for process in (record.outer, record.init)):
            return
        for pid in left - {record.outer.pid if record.outer else 0}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    raise TestbedError(f"processes of the bed are still there after {wait:.0f} s; call `make down` again")


def _members(group: Path) -> set[int]:
    pids: set[int] = set()
    for listing in group.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            pids.update(int(line) for line in listing.read_text().split())
    return pids


# --- what is usable ------------------------------------------------------------------------------------------------


def _holds(check: Any) -> bool:
    try:
        return bool(check())
    except (addons.ApiError, OSError, KeyError, ValueError):
        return False


def _node_ready(api: addons.Api) -> bool:
    node = api.call("GET", f"/api/v1/nodes/{config.NODE}")
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


def _defaults(api: addons.Api) -> bool:
    api.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")
    api.call("GET", f"/apis/storage.k8s.io/v1/storageclasses/{addons.STORAGE_CLASS}")
    return True


def _metrics_api(api: addons.Api) -> bool:
    service = api.call("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io")
    return any(c["type"] == "Available" and c["status"] == "True" for c in service["status"].get("conditions", []))


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=2) as answer:
        return bool(answer.status == 200)
