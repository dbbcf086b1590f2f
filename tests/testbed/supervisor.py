"""PID 1 of the bed: sets up its mounts and its network, starts the components, and starts again what ends.

Runs with the standard library alone and imports everything before it changes what the file system looks like.
When it ends, the kernel ends all processes of the bed, and with them goes every mount and the network.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.testbed import addons

BED = Path("/run/bed")
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED, MS_NOSUID, MS_NODEV = 0x1000, 0x4000, 1 << 18, 1 << 20, 2, 4
BACKOFF = (0.2, 5.0)  # seconds before a restart: first, most; a component that ran for a minute starts anew
# The kubelet would set these on the host, for they have no namespace: it gets files that hold its values already.
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_libc = ctypes.CDLL(None, use_errno=True)


def log(text: str) -> None:
    """Write a line with the time to the supervisor's log."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Call mount(2); raises OSError with the target's name."""
    result = _libc.mount(source.encode(), str(target).encode(), kind.encode(), flags, data.encode() or None)
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def set_up_mounts(state: Path, settings: dict[str, Any]) -> None:
    """Give the bed its own /usr, /var, /run, /sys and the folder /run/bed; the host sees none of it."""
    sources = {"state": state} | {part: Path(settings[part]) for part in ("packages", "kubernetes", "registry")}
    # Opened before anything is covered: the checkout or the cache may lie in a folder that is about to be.
    handles = {name: os.open(path, os.O_PATH | os.O_DIRECTORY) for name, path in sources.items()}
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("none", "/", flags=MS_REC | MS_SHARED)  # a peer group of the bed's own: the kubelet needs shared mounts
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for temporary in (Path("/run/lock"), Path("/run/tmp")):
        temporary.mkdir()
        temporary.chmod(0o1777)
    for name, handle in handles.items():
        folder = BED / name
        folder.mkdir(parents=True)
        mount(f"/proc/self/fd/{handle}", folder, flags=MS_BIND)
        os.close(handle)
    packages = BED / "packages/root/usr"
    mount("overlay", "/usr", "overlay", data=f"lowerdir={packages}:/usr")
    own = BED / "state/var"
    for name in ("lib/kubelet", "lib/containerd", "lib/cni", "log", "tmp", "pv", "etcd"):
        (own / name).mkdir(parents=True, exist_ok=True)
    (own / "tmp").chmod(0o1777)
    (own / "etcd").chmod(0o700)
    if not (own / "run").is_symlink():
        (own / "run").symlink_to("/run")
    mount(str(own), "/var", flags=MS_BIND)
    if settings["image_bytes"]:
        # Nothing to write back while it runs or to delete at the end.
        mount("tmpfs", "/var/lib/containerd", "tmpfs", 0, f"size={settings['image_bytes']}")
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount(str(BED / "state/conf/resolv.conf"), "/etc/resolv.conf", flags=MS_BIND)
    _mount_cgroups()
    folder = BED / "sysctl"
    folder.mkdir()
    for name, value in SYSCTLS.items():
        held = folder / name.replace("/", ".")
        held.write_text(value + "\n")
        mount(str(held), f"/proc/sys/{name}", flags=MS_BIND)


def _mount_cgroups() -> None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    hierarchies = [line.split(":", 2)[1] for line in lines if line.split(":", 2)[1]]
    mount("sysfs", "/sys", "sysfs")
    if not hierarchies:
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
        root = Path("/sys/fs/cgroup")
        (root / "init").mkdir()
        (root / "init/cgroup.procs").write_text("1\n")  # only a group without processes hands controllers down
        wanted = (root / "cgroup.controllers").read_text().split()
        (root / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in wanted))
        return
    mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755")
    for hierarchy in hierarchies:
        target = Path("/sys/fs/cgroup", hierarchy.removeprefix("name="))
        target.mkdir()
        mount("cgroup", target, "cgroup", data=f"none,{hierarchy}" if hierarchy.startswith("name=") else hierarchy)


def set_up_network(settings: dict[str, Any], wait: float = 60) -> None:
    """Bring up the link, once `up` has made it, and the Pods' bridge (CoreDNS listens on its address)."""
    deadline = time.monotonic() + wait
    while not Path("/sys/class/net/eth0").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no link from the host within {wait:.0f} s")
        time.sleep(0.01)
    commands = (
        "link set lo up",
        f"address add {settings['node']}/30 dev eth0",
        "link set eth0 up",
        f"route add default via {settings['host']}",
        "link add cni0 type bridge",
        f"address add {settings['bridge']}/24 dev cni0",
        "link set cni0 up",
    )
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, timeout=30)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if bridged.exists():
        bridged.write_text("1\n")


@dataclass(slots=True)
class Process:
    """A child of PID 1; `ended` is set with its status once it has been reaped."""

    pid: int
    ended: threading.Event
    status: int = 0


class Reaper:
    """Starts children and reaps them, together with the orphans of the whole bed that the kernel gives to PID 1."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[int, Process] = {}

    def start(self, command: list[str], output: Path, env: dict[str, str]) -> Process:
        """Start a command with its output appended to a file; raises OSError when it can't be."""
        path = next((Path(d, command[0]) for d in env["PATH"].split(":") if Path(d, command[0]).exists()), None)
        if path is None:
            raise FileNotFoundError(f"{command[0]} is in no folder of {env['PATH']}")
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        with self._lock:  # so that a child can't be reaped before it is known
            pid = os.posix_spawn(path, command, env, file_actions=actions, setsid=True, setsigmask=[])
            process = self._children[pid] = Process(pid, threading.Event())
        return process

    def reap(self) -> None:
        """Collect every child that has ended, without waiting."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            with self._lock:
                process = self._children.pop(pid, None)
            if process:
                process.status = os.waitstatus_to_exitcode(status)
                process.ended.set()


class Supervisor:
    """One thread for each component: wait for what it needs, start it, watch it, start it again."""

    def __init__(self, components: list[dict[str, Any]], logs: Path, status_file: Path) -> None:
        self._components = components
        self._logs = logs
        self._status_file = status_file
        self._reaper = Reaper()
        self._ready = {component["name"]: threading.Event() for component in components}
        self._status: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._env = {
            "PATH": f"{BED}/kubernetes/bin:{BED}/registry:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/run/tmp",
            "TMPDIR": "/run/tmp",
            "OTEL_TRACES_EXPORTER": "none",
        }
        tls = ssl.create_default_context(cafile=str(BED / "state/pki/ca.crt"))
        no_proxy = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(no_proxy, urllib.request.HTTPSHandler(context=tls))

    def run(self) -> None:
        """Supervise until SIGTERM."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
        for component in self._components:
            threading.Thread(target=self._forever, args=(component,), daemon=True).start()
        while True:
            received = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, 1)
            if received and received.si_signo == signal.SIGTERM:
                return
            self._reaper.reap()

    def _forever(self, component: dict[str, Any]) -> None:
        name, delay, starts = component["name"], BACKOFF[0], 0
        for needed in component["after"]:
            self._ready[needed].wait()
        while True:
            began = time.monotonic()
            try:
                env = {**self._env, **component["environment"]}
                process = self._reaper.start(component["command"], self._logs / f"{name}.log", env)
            except OSError as error:
                log(f"{name} can't be started: {error}")
            else:
                starts += 1
                self._tell(name, pid=process.pid, starts=starts, ready=False)
                if self._until_ready(component, process):
                    self._tell(name, pid=process.pid, starts=starts, ready=True)
                    log(f"{name} is ready after {time.monotonic() - began:.2f} s (process {process.pid})")
                    self._afterwards(component)
                    self._ready[name].set()
                process.ended.wait()
                log(f"{name} ended with status {process.status}")
                self._tell(name, pid=0, starts=starts, ready=False)
            if time.monotonic() - began > 60:
                delay = BACKOFF[0]
            time.sleep(delay)
            delay = min(delay * 2, BACKOFF[1])

    def _afterwards(self, component: dict[str, Any]) -> None:
        if component["then"]:
            process = self._reaper.start(component["then"], self._logs / f"{component['name']}.log", self._env)
            if not process.ended.wait(60) or process.status:
                log(f"{component['name']}: {' '.join(component['then'])} failed: see its log")

    def _tell(self, name: str, **facts: Any) -> None:
        with self._lock:
            self._status[name] = facts
            beside = self._status_file.with_suffix(".new")
            beside.write_text(json.dumps(self._status))
            beside.replace(self._status_file)

    def _until_ready(self, component: dict[str, Any], process: Process) -> bool:
        kind, _, rest = component["ready"].partition(":")
        checks: dict[str, Callable[[], bool]] = {
            "": lambda: True,
            "unix": lambda: _connects(socket.AF_UNIX, rest),
            "tcp": lambda: _connects(socket.AF_INET, (rest.split(":")[0], int(rest.split(":")[1]))),
        }
        check = checks.get(kind, lambda: self._answers(component["ready"]))
        while not process.ended.is_set():
            if check():
                return True
            process.ended.wait(0.05)
        return False

    def _answers(self, url: str) -> bool:
        try:
            with self._opener.open(url, timeout=1) as answer:
                return bool(answer.status == 200)
        except (OSError, ValueError):  # also what the TLS and HTTP layers raise
            return False


def _connects(family: socket.AddressFamily, address: Any) -> bool:
    with socket.socket(family) as client:
        client.settimeout(1)
        try:
            client.connect(address)
        except OSError:
            return False
        return True


def main(state: Path) -> None:
    """Run the bed whose folder is `state`."""
    settings = json.loads((state / "conf/settings.json").read_text())
    os.chdir("/")
    os.umask(0o022)
    set_up_mounts(state, settings)
    inside = BED / "state"
    socket.sethostname("bed")
    set_up_network(settings)
    log("mounts and network are there")
    components = json.loads((inside / "conf/components.json").read_text())
    addons.start(settings["node"], inside / "pki", Path("/var/pv"), log)
    Supervisor(components, inside / "log", inside / "run/status.json").run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
