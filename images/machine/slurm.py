#!/usr/bin/python3.11 -I
"""SLURM on a machine that has one unprivileged user: `slurm start|status|stop|forget` answer with a line of JSON each.

Its folder (`--dir`) holds `munge.key` and, for a controller of its own making, `slurm.conf`. A process of its own keeps
munged, slurmctld and slurmd up. Exit codes: 0 as asked, 64 usage, 66 no usable munge.key, 70 failed, 75 not up yet.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RUN = Path("/run/slurm")
MUNGE = Path("/run/munge")
SIZE = Path("/run/cloudmesh/size")
HOME = Path("/home/cm/.cloudmesh/slurm")
CTL_PORT, NODE_PORT = 6817, 6818
KEY_BYTES = (32, 1024)
UP, USAGE, NO_KEY, FAILED, LATER = 0, 64, 66, 70, 75
USABLE = {"IDLE", "MIXED", "ALLOCATED", "COMPLETING", "RESERVED"}
LOST_SECONDS = 15.0
"""How often a node asks whether its controller, which may have started anew, still knows it."""

CONFIG = """\
ClusterName=cloudmesh
SlurmctldHost={host}
SlurmUser=cm
SlurmdUser=cm
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldParameters=enable_configless
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0
TreeWidth=65533
MessageTimeout=10
SlurmdTimeout=60
KillWait=5
MinJobAge=3600
MaxJobCount=100000
MaxArraySize=10001
MaxNodeCount=1024
StateSaveLocation={run}/state
SlurmdSpoolDir={run}/spool
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd.pid
SlurmctldLogFile={run}/slurmctld.log
SlurmdLogFile={run}/slurmd.log
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# No cgroups are used, but slurmd ends where it can't tell which version is mounted, or may not write to version 2: told
# the version, it doesn't look. Nodes get this file from their controller.
CGROUP_CONFIG = "CgroupPlugin=cgroup/v1\n"


class Refused(Exception):
    """What was asked can't be done; carries the exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def locked(name: str, *, wait: bool = True) -> Iterator[bool]:
    """Holds a lock of this machine; False if another process holds it and `wait` is off."""
    with (RUN / name).open("a") as file:
        os.set_inheritable(file.fileno(), False)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def listens(host: str, port: int, seconds: float = 0.5) -> bool:
    """Whether something takes TCP connections there."""
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return True
    except OSError:
        return False


def is_open(port: int) -> bool:
    """Whether a process of this machine listens on a port; SLURM's daemons log a probe as an error."""
    end = f":{port:04X}"
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            rows = (line.split() for line in Path(file).read_text().splitlines()[1:])
            if any(row[1].endswith(end) and row[3] == "0A" for row in rows):
                return True
    return False


def munge_answers() -> bool:
    """Whether munged takes connections."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(MUNGE / "munge.socket.2"))
        except OSError:
            return False
        return True


def ask(*command: str, seconds: float = 8.0) -> str | None:
    """What a client command printed, None if it failed."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout if run.returncode == 0 else None


def wanted() -> dict[str, Any]:
    """What was asked for last, empty if nothing runs."""
    with locked("supervisor.lock", wait=False) as free:
        if free:
            return {}
    try:
        found: dict[str, Any] = json.loads((RUN / "wanted.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def nodes() -> dict[str, str]:
    """States of all nodes as the controller tells them; a `*` at the end is a node that doesn't answer it."""
    text = ask("/usr/bin/sinfo", "--noheader", "--Node", "--format=%N %T")
    if text is None:
        return {}
    return {name: state.upper() for name, _, state in (line.strip().partition(" ") for line in text.splitlines())}


def status() -> dict[str, Any]:
    """What runs on this machine, and what the controller says."""
    asked = wanted()
    role = asked.get("role", "")
    found = nodes() if role else {}
    name = socket.gethostname()
    state = found.get(name, "")
    ctl = is_open(CTL_PORT) if role in ("ctl", "both") else None
    node = is_open(NODE_PORT) if role in ("node", "both") else None
    munge = munge_answers()
    missing = [word for word, up in (("munged", munge), ("slurmctld", ctl), ("slurmd", node)) if up is False]
    if not role:
        message = "not started"
    elif missing:
        message = f"not up: {', '.join(missing)}"
        if node is False and not listens(asked["address"], CTL_PORT):
            message += f"; the controller {asked['ctl']} doesn't answer on port {CTL_PORT}"
    elif node and not state:
        message = "the controller doesn't list this node yet"
    elif node and state not in USABLE:
        message = f"the node is {state}"
    else:
        message = ""
    return {
        "role": role,
        "munge": munge,
        "slurmctld": ctl,
        "slurmd": node,
        "node": name,
        "state": state,
        "nodes": found,
        "ready": bool(role) and not message,
        "message": message,
    }


def tell(answer: dict[str, Any]) -> None:
    """The one line that a command answers with."""
    sys.stdout.write(json.dumps(answer) + "\n")


def size() -> tuple[int, int]:
    """Whole CPUs and MiB that the machine was given; those of the host where nobody told."""
    told = dict(line.partition("=")[::2] for line in SIZE.read_text().splitlines()) if SIZE.exists() else {}
    milli, mebibytes = told.get("milli_vcpu", ""), told.get("memory_mib", "")
    cpus = max(1, int(milli) // 1000) if milli.isdigit() else os.cpu_count() or 1
    if mebibytes.isdigit():
        return cpus, int(mebibytes)
    return cpus, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def start(options: argparse.Namespace) -> int:
    """Makes the machine what was asked, unless it is that already."""
    cpus, mebibytes = size()
    try:
        key = (options.dir / "munge.key").read_bytes()
    except OSError as error:
        raise Refused(NO_KEY, f"{options.dir}/munge.key: {error.strerror}") from None
    if not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        raise Refused(NO_KEY, f"{options.dir}/munge.key: {len(key)} bytes, not {KEY_BYTES[0]} to {KEY_BYTES[1]}")
    address = options.ctl_address or ("127.0.0.1" if options.role != "node" else options.ctl)
    host = f"{options.ctl}({options.ctl_address})" if options.ctl_address else options.ctl
    own = options.dir / "slurm.conf"
    text = own.read_text() if own.exists() else CONFIG.format(host=host, run=RUN)
    asked = {
        "role": options.role,
        "ctl": options.ctl,
        "address": address,
        "cpus": options.cpus or cpus,
        "memory": options.memory_mib or mebibytes,
        "key": hashlib.sha256(key).hexdigest(),
        "config": hashlib.sha256(text.encode()).hexdigest() if options.role != "node" else "",
    }
    with locked("command.lock"):
        if wanted() != asked:
            end()
            for folder in ("ctl", "state", "spool"):
                (RUN / folder).mkdir(mode=0o755, exist_ok=True)
            (MUNGE / "munge.key").unlink(missing_ok=True)
            (MUNGE / "munge.key").touch(mode=0o600)
            (MUNGE / "munge.key").write_bytes(key)
            (RUN / "ctl" / "slurm.conf").write_text(text)
            (RUN / "ctl" / "cgroup.conf").write_text(CGROUP_CONFIG)
            link_config()
            (RUN / "wanted.json").write_text(json.dumps(asked))
            launch()
    deadline = time.monotonic() + options.wait
    while not (found := status())["ready"] and time.monotonic() < deadline:
        time.sleep(0.3)
    tell(found)
    return UP if found["ready"] else LATER


def link_config() -> None:
    """Where clients look: without a file there they ask DNS for a controller, for long. slurmd puts its own there."""
    place = RUN / "conf"
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    place.symlink_to(RUN / "ctl")


def launch() -> None:
    """Starts the supervisor, detached from the login, and returns when it holds its lock."""
    with (RUN / "supervisor.log").open("a") as log:
        subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).resolve()), "supervise"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin", "LANG": "C.UTF-8", "HOME": str(Path.home())},
        )
    deadline = time.monotonic() + 10
    while not wanted():
        if time.monotonic() > deadline:
            raise Refused(FAILED, f"the supervisor didn't start; see {RUN}/supervisor.log")
        time.sleep(0.05)


def end() -> None:
    """Ends the supervisor and what it keeps up."""
    try:
        pid = int((RUN / "supervisor.pid").read_text())
    except (OSError, ValueError):
        return
    if not wanted():
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while wanted():
        if time.monotonic() > deadline:
            raise Refused(FAILED, "the supervisor doesn't end")
        time.sleep(0.05)


class Daemon:
    """One daemon in the foreground, started again when it ends, more slowly each time it ends at once."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = 0.0
        self._pause = 0.5

    def runs(self) -> bool:
        """Whether it was started and hasn't ended."""
        return self._process is not None and self._process.poll() is None

    def keep_up(self) -> bool:
        """Starts it if it doesn't run and its pause is over; whether it runs."""
        now = time.monotonic()
        if self._process is not None:
            if self._process.poll() is None:
                return True
            say(f"{self.name} ended with {self._process.returncode}")
            self._process = None
            self._pause = 0.5 if now - self._begun > 30 else min(self._pause * 2, 10.0)
        if now - self._begun < self._pause:
            return False
        with (RUN / f"{self.name}.out").open("w") as out:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/")
        self._begun = now
        say(f"{self.name} started")
        return True

    def end(self, seconds: float = 5.0) -> None:
        """Ends it, in the end by force."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def say(text: str) -> None:
    """A line of the supervisor's log."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def supervise() -> int:
    """Keeps the daemons up until it is told to end; whoever asks whether it runs holds its lock for a moment."""
    for _ in range(200):
        with locked("supervisor.lock", wait=False) as free:
            if free:
                keep_all_up()
                return UP
        time.sleep(0.05)
    say("another supervisor runs")
    return FAILED


def keep_all_up() -> None:
    """The supervisor's work, with its lock held."""
    (RUN / "supervisor.pid").write_text(str(os.getpid()))
    asked = json.loads((RUN / "wanted.json").read_text())
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    munged = Daemon("munged", munged_command())
    ctl = Daemon("slurmctld", ["/usr/sbin/slurmctld", "-D", "-f", str(RUN / "ctl" / "slurm.conf")])
    node = Daemon("slurmd", slurmd_command(asked))
    looked = time.monotonic()
    munge = False
    while not ended:
        # munged writes a line at each look
        munge = munged.keep_up() and (munge or munge_answers())
        if munge and asked["role"] != "node":
            ctl.keep_up()
        # A name that isn't there yet costs slurmd 20 s, and then it ends: it waits for the controller here.
        if munge and asked["role"] != "ctl" and (node.runs() or listens(asked["address"], CTL_PORT)):
            node.keep_up()
            if time.monotonic() - looked > LOST_SECONDS:
                looked = time.monotonic()
                if is_lost():
                    say("the controller doesn't know this node: slurmd starts anew")
                    node.end()
        time.sleep(0.2)
    for daemon in (node, ctl, munged):
        daemon.end()
    say("ended")


def is_lost() -> bool:
    """Whether a controller answers that doesn't know this node: it lost its state, and a node registers only once."""
    return socket.gethostname() not in nodes() and "is UP" in (ask("/usr/bin/scontrol", "ping") or "")


def munged_command() -> list[str]:
    """The command that runs munged, on its default socket: a slurmd without a configuration yet asks no other."""
    files = {"key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munged.seed"}
    return ["/usr/sbin/munged", "--foreground", *(f"--{name}={MUNGE / file}" for name, file in files.items())]


def slurmd_command(asked: dict[str, Any]) -> list[str]:
    """The command that runs slurmd as a node that its controller needs no configuration for."""
    config = f"CPUs={asked['cpus']} RealMemory={asked['memory']}"
    command = ["/usr/sbin/slurmd", "-D", "-Z", "-N", socket.gethostname()]
    return [*command, "--conf-server", f"{asked['address']}:{CTL_PORT}", "--conf", config]


def forget(options: argparse.Namespace) -> int:
    """Takes machines that are gone off the controller's list."""
    for name in options.nodes:
        ask("/usr/bin/scontrol", "update", f"nodename={name}", "state=down", "reason=gone")
        ask("/usr/bin/scontrol", "delete", f"nodename={name}")
    left = [name for name in options.nodes if name in nodes()]
    tell({"left": left})
    return LATER if left else UP


def host(text: str) -> str:
    """A host name or address that can stand in a configuration file."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no host name or address")
    return text


def read(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="slurm", description="Keep SLURM up on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help="make this machine a controller, a node, or both")
    starting.add_argument("--role", choices=("ctl", "node", "both"), required=True)
    starting.add_argument("--ctl", type=host, required=True, help="host name of the controller's machine")
    starting.add_argument("--ctl-address", type=host, help="its address, so that no name is looked up")
    starting.add_argument("--cpus", type=int, default=0, help="CPUs of the node (the machine's)")
    starting.add_argument("--memory-mib", type=int, default=0, help="memory of the node (the machine's)")
    starting.add_argument("--wait", type=float, default=30.0, help="seconds to wait until it is up")
    telling = commands.add_parser("status", help="tell what runs")
    ending = commands.add_parser("stop", help="end it")
    for command in (starting, telling, ending):
        command.add_argument("--dir", type=Path, default=HOME, help=f"folder of munge.key ({HOME})")
    forgetting = commands.add_parser("forget", help="take machines that are gone off the controller's list")
    forgetting.add_argument("nodes", nargs="+", type=host, metavar="NODE")
    commands.add_parser("supervise")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    try:
        options = read(arguments)
    except SystemExit as stop:
        return UP if stop.code in (0, None) else USAGE
    os.umask(0o022)
    try:
        match options.command:
            case "start":
                return start(options)
            case "stop":
                with locked("command.lock"):
                    end()
                tell(status())
                return UP
            case "status":
                tell(status())
                return UP
            case "forget":
                return forget(options)
            case _:
                return supervise()
    except (Refused, OSError) as error:
        tell({"ready": False, "message": str(error)})
        return error.code if isinstance(error, Refused) else FAILED


if __name__ == "__main__":
    sys.exit(main())
