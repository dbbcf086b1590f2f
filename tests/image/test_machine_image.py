"""The machine image: what is in it runs as an unprivileged user, and nothing in it is a secret that machines share."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import machines
from images.__main__ import _values
from images.compose import Recipe, default_cache

from cloudmesh.functions.image.layer import decompress
from cloudmesh.functions.image.layout import Image

PROGRAMS = (
    "awk --version", "bash --version", "bzip2 --help", "cmp --version", "curl --version", "find --version",
    "flock --version", "git --version", "grep --version", "gzip --version", "hostname", "less --version",
    "lscpu --version", "ls --version", "make --version", "munge --version", "munged --version", "patch --version",
    "pgrep --version", "python --version", "python3 --version", "rsync --version", "sed --version", "slurmctld -V",
    "slurmd -V", "ssh -V", "tar --version", "unzip -v", "vi --version", "xargs --version", "xz --version",
)  # fmt: skip
NEED_MORE = ("ps", "sacct", "salloc", "sbatch", "scancel", "scontrol", "sftp", "sinfo", "squeue", "srun", "top")
"""Programs that do nothing without /proc, a controller or a server."""


@pytest.fixture(scope="module")
def image() -> Image:
    return Recipe(default_cache()).machine


def unpack(image: Image, folder: Path) -> Path:
    folder.mkdir()
    for layer in image.layers:
        data = decompress(layer.blob.read(), 1 << 30)
        subprocess.run(["tar", "-x", "-C", folder, "--numeric-owner", "-p"], input=data, check=True)
    return folder


@pytest.fixture(scope="module")
def root(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's files; a whole container needs a kubelet, what programs need to start doesn't."""
    folder = unpack(image, tmp_path_factory.mktemp("machine") / "root")
    for name, minor in (("null", 3), ("urandom", 9)):
        os.mknod(folder / "dev" / name, stat.S_IFCHR, os.makedev(1, minor))
        (folder / "dev" / name).chmod(0o666)
    yield folder
    shutil.rmtree(folder)


def run(root: Path, command: str, *, check: bool = True) -> str:
    done = subprocess.run(
        [
            shutil.which("chroot") or "/usr/sbin/chroot",
            f"--userspec={machines.UID}:{machines.UID}",
            root, "/bin/bash", "-c", command,
        ],
        env={"PATH": "/usr/sbin:/usr/bin", "LANG": "C.UTF-8", "HOME": "/home/cm"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def test_what_people_expect_after_a_login_runs(root: Path) -> None:
    script = "".join(f"{command} >/dev/null 2>&1 || echo {command.split()[0]}\n" for command in PROGRAMS)
    script += "".join(f"test -x /usr/bin/{name} || echo {name}\n" for name in NEED_MORE)
    assert run(root, script) == ""
    assert run(root, "id -un; echo ~; getent passwd cm") == (
        "cm\n/home/cm\ncm:x:2000:2000:Cloudmesh:/home/cm:/bin/bash"
    )
    assert run(root, "readlink -f /bin/sh") == "/usr/bin/bash"
    assert run(root, "printf 'b\\na\\n' | sort | xargs") == "a b"


def test_no_key_is_in_it_and_nothing_is_setuid(image: Image, tmp_path: Path) -> None:
    root = unpack(image, tmp_path / "root")  # in the shared one, programs have run
    assert not list(root.rglob("ssh_host_*")) and not list(root.rglob("munge.key"))
    private = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{40}")
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                continue
            assert not found.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH), path
            if found.st_size < 1 << 20:
                assert not private.search(path.read_bytes()), path
    assert (root / "etc/machine-id").exists() is False
    shutil.rmtree(root)


def test_folders_of_the_user_are_its_own(root: Path) -> None:
    for name in machines.OWN_FOLDERS:
        found = (root / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (2000, 2000, 0o755), name
    assert run(root, "touch /usr/bin/x 2>/dev/null || echo no") == "no"


def test_its_size_and_its_command(image: Image) -> None:
    assert sum(layer.descriptor.size for layer in image.layers) < 60_000_000
    assert image.run.entrypoint == ["/opt/cloudmesh/machine/start"]
    assert image.run.user == "2000:2000"


def test_sshd_takes_its_configuration(root: Path) -> None:
    keys = root / "etc/cloudmesh/ssh"
    keys.mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / "ssh_host_ed25519_key"], check=True)
    (keys / "ssh_host_ed25519_key").chmod(0o440)
    shutil.chown(keys / "ssh_host_ed25519_key", 0, 2000)
    said = run(root, "/usr/sbin/sshd -T -f /opt/cloudmesh/machine/sshd_config").splitlines()
    for line in (
        "port 2222",
        "passwordauthentication no",
        "usepam no",
        "allowusers cm",
        "subsystem sftp internal-sftp",
    ):
        assert line in said
    assert "permitrootlogin no" in said and "kbdinteractiveauthentication no" in said


def test_the_start_script_is_sound(root: Path) -> None:
    run(root, "bash -n /opt/cloudmesh/machine/start")
    for path in ("etc/cloudmesh/ssh/authorized_keys", "run/cloudmesh/authorized_keys"):
        (root / path).unlink(missing_ok=True)
    done = run(root, "/opt/cloudmesh/machine/start 2>&1; echo $?", check=False)
    assert done.splitlines()[-2:] == ["start: /etc/cloudmesh/ssh/authorized_keys can't be read", "1"]


def slurm(root: Path, arguments: str) -> tuple[int, dict[str, object]]:
    said = run(root, f"/opt/cloudmesh/machine/slurm {arguments} 2>/dev/null; echo $?", check=False).splitlines()
    return int(said[-1]), json.loads(said[-2]) if len(said) > 1 else {}


def test_the_slurm_command_refuses_what_it_cannot_do(root: Path) -> None:
    folder = root / "home/cm/.cloudmesh/slurm"
    folder.mkdir(parents=True)
    shutil.chown(folder, 2000, 2000)
    code, said = slurm(root, "start --role both --ctl a")
    assert code == 66 and "munge.key" in str(said["message"])
    (folder / "munge.key").write_bytes(b"short")
    assert slurm(root, "start --role both --ctl a")[0] == 66
    for wrong in ("start --role both", "start --role king --ctl a", "start --role both --ctl 'a b'", "", "dance"):
        assert slurm(root, wrong)[0] == 64
    assert slurm(root, "start --role both --ctl $'a\\nPluginDir=/tmp'")[0] == 64
    code, said = slurm(root, "status")
    assert (code, said["role"], said["ready"], said["message"]) == (0, "", False, "not started")
    assert slurm(root, "stop")[0] == 0


# Namespaces as a Pod has them: own network, processes and mounts, one uid without any capability, no cgroups to write.
_NAMESPACES = """
set -e
mount --make-rprivate /
mount -t proc proc $ROOT/proc
mkdir -p $ROOT/sys && mount -t sysfs sysfs $ROOT/sys
if [ $CGROUPS = v2 ]; then
    mount -t cgroup2 none $ROOT/sys/fs/cgroup && mount -o remount,ro,bind $ROOT/sys/fs/cgroup
fi
mkdir -p $ROOT/dev/shm && mount -t tmpfs tmpfs $ROOT/dev/shm
ip link set lo up && ip link add d0 type veth peer name d1 && ip addr add 192.0.2.1/24 dev d0
ip link set d0 up && ip link set d1 up
hostname m && echo "192.0.2.1 m" >$ROOT/etc/hosts
exec chroot $ROOT /usr/bin/setpriv --reuid 2000 --regid 2000 --clear-groups --no-new-privs --bounding-set=-all \\
    env -i PATH=/usr/sbin:/usr/bin HOME=/home/cm bash -c "$PROGRAM"
"""
_PROGRAM = """
mkdir -p ~/.cloudmesh/slurm && head -c 64 /dev/urandom >~/.cloudmesh/slurm/munge.key
slurm=/opt/cloudmesh/machine/slurm
start="$slurm start --role both --ctl m --ctl-address 192.0.2.1 --wait 30"
$start || tail -n 5 /run/slurm/*.out
timeout 20 srun hostname
(for _ in 1 2 3 4 5; do $slurm status >/dev/null & $start & done; wait) | sort -u | wc -l
grep -c 'slurmd started' /run/slurm/supervisor.log
kill -9 $(pgrep -x slurmd)
for _ in $(seq 100); do sleep 0.1; pgrep -x slurmd >/dev/null && break; done
timeout 20 srun hostname
head -c 64 /dev/urandom >~/.cloudmesh/slurm/munge.key
$start
timeout 20 srun hostname
$slurm stop
sleep 0.5
pgrep -x 'munged|slurmd|slurmctld' || echo nothing runs
"""


@pytest.mark.parametrize("cgroups", ["v2", "none"])
def test_slurm_needs_no_cgroups_comes_back_and_takes_a_new_key(root: Path, cgroups: str) -> None:
    for name in ("run/slurm", "run/munge", "home/cm/.cloudmesh"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True, exist_ok=True)
        shutil.chown(root / name, 2000, 2000)
    environment = {**os.environ, "ROOT": str(root), "CGROUPS": cgroups, "PROGRAM": _PROGRAM}
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "bash", "-c", _NAMESPACES],
        env=environment, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 9, done.stdout + done.stderr
    ready = json.loads(lines[0])
    assert ready["ready"] and ready["nodes"] == {"m": "IDLE"}, lines[0]
    assert lines[1:5] == ["m", "1", "1", "m"]  # ten calls side by side change nothing; what is killed comes back
    assert json.loads(lines[5])["ready"] and lines[6] == "m"
    assert json.loads(lines[7])["role"] == "" and lines[8] == "nothing runs"


def test_chart_values_name_the_images() -> None:
    text = _values({"operator": "cloudmesh.local/operator:1-a", "machine": "cloudmesh.local/machine:1-b"})
    assert text.splitlines()[1:] == [
        "image:", "  operator:", "    repository: cloudmesh.local/operator", "    tag: 1-a",
        "machine:", "  image:", "    repository: cloudmesh.local/machine", "    tag: 1-b",
    ]  # fmt: skip
