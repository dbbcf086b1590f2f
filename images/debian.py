"""The base image's files out of Debian packages, read straight from the archives: nothing is installed or unpacked."""

from __future__ import annotations

import hashlib
import io
import posixpath
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from cloudmesh.functions.image.layer import Directory, Entry, File, Symlink

PACKAGES = Path(__file__).with_name("base") / "packages.txt"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PYTHON = "usr/bin/python3.11"
USER = 65532

_DROPPED = re.compile(
    r"usr/share/(man|info|lintian|bash-completion|bug|gcc|gdb|pixmaps|applications|binfmts|initramfs-tools|base-files"
    r"|zoneinfo/(right|posix)|doc/(?!.*/copyright$)|locale|ca-certificates(?!/))"
    r"|usr/lib/(binfmt\.d|python3/|x86_64-linux-gnu/(gconv|audit|engines-3|libBrokenLocale|libpcprofile|libmemusage"
    r"|libc_malloc_debug|libthread_db|libnss_(hesiod|compat)|libnsl))"
    r"|usr/lib/python3\.11/(config-|test/|idlelib|lib2to3/tests|turtledemo|sitecustomize|_pydecimal_test|pydoc_data"
    r"|lib-dynload/(_curses|_dbm|_gdbm|readline|nis|_test|_xxtest|_ctypes_test|xx))"
    r"|usr/s?bin/(?!python3\.11$|busybox$)|etc/(default|dpkg|skel|update-motd\.d|python3\.11|profile\.d|ca-certificates"
    r"|bindresvport|gai\.conf|issue)|(boot|dev|home|media|mnt|opt|proc|root|run|srv|sys|usr/(games|include|src|local)"
    r"|var)/"
)
# fmt: off
_APPLETS = [
    "[", "awk", "base64", "basename", "cat", "chmod", "cp", "cut", "date", "dd", "df", "dirname", "du", "echo",
    "env", "expr", "false", "find", "free", "grep", "gunzip", "gzip", "head", "hostname", "id", "kill", "ln", "ls",
    "md5sum", "mkdir", "mktemp", "more", "mv", "nproc", "nslookup", "od", "printenv", "printf", "ps", "pwd",
    "readlink", "realpath", "rm", "rmdir", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "split", "stat", "tail",
    "tar", "tee", "test", "time", "timeout", "top", "touch", "tr", "true", "uname", "uniq", "uptime", "wc", "wget",
    "which", "whoami", "xargs", "yes", "zcat",
]
# fmt: on
_ETC = {
    "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\nnonroot:x:{USER}:{USER}:nonroot:/tmp:/bin/sh\n",
    "etc/group": f"root:x:0:\nnonroot:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nservices: files\n",
    "etc/hostname": "localhost\n",
    "etc/timezone": "Etc/UTC\n",
}


class RecipeError(Exception):
    """The images can't be made; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """One Debian package as the machine's lists name it."""

    file: str
    size: int
    sha256: str


def package_names(path: Path = PACKAGES) -> list[str]:
    """The packages that a list names."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return sorted(line for line in lines if line)


def _apt(*arguments: str, cwd: Path | None = None, seconds: int = 300) -> str:
    try:
        run = subprocess.run(
            ["apt-get", *arguments], cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
        )
    except FileNotFoundError as error:
        raise RecipeError(
            "the base image is made of Debian packages: apt-get is needed, or a machine with it"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise RecipeError(f"apt-get {arguments[0]} took over {seconds} s; is the package mirror reachable?") from error
    if run.returncode:
        raise RecipeError(f"apt-get {' '.join(arguments[:2])}: {run.stderr.strip()[-500:]}")
    return run.stdout


def resolve(names: Iterable[str]) -> list[Package]:
    """The versions of `names` that the machine's package lists offer; the lists are fetched when they are missing.

    Raises:
        RecipeError: a package isn't to be had.
    """
    wanted = sorted(names)
    try:
        text = _apt("download", "--print-uris", *wanted)
    except RecipeError:
        _apt("update")
        text = _apt("download", "--print-uris", *wanted)
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"'[^']+' (\S+) (\d+) SHA256:([0-9a-f]{64})", line)
        if match:
            found.append(Package(match[1], int(match[2]), match[3]))
    missing = set(wanted) - {package.file.partition("_")[0] for package in found}
    if missing:
        raise RecipeError(f"these Debian packages are not to be had here: {', '.join(sorted(missing))}")
    return sorted(found, key=lambda package: package.file)


def fetch(packages: Iterable[Package], cache: Path) -> dict[Package, Path]:
    """Bring `packages` into `cache`, each checked against its SHA-256.

    Raises:
        RecipeError: a download failed or differs.
    """
    cache.mkdir(parents=True, exist_ok=True)
    paths = {package: cache / f"{package.sha256}.deb" for package in packages}
    missing = [package for package, path in paths.items() if not path.exists()]
    if missing:
        folder = Path(tempfile.mkdtemp(dir=cache, prefix="incoming-"))
        folder.chmod(0o755)
        wanted = []
        for package in missing:
            name, version, _ = unquote(package.file).split("_")
            wanted.append(f"{name}={version}")
        _apt("-o", "APT::Sandbox::User=root", "download", "-q", *wanted, cwd=folder)
        for path in folder.iterdir():
            (folder / unquote(path.name)).exists() or path.rename(folder / unquote(path.name))
        for package in missing:
            path = folder / unquote(package.file)
            if hashlib.sha256(path.read_bytes()).hexdigest() != package.sha256:
                raise RecipeError(f"{package.file}: differs from the hash in the package lists; run apt-get update")
            path.replace(paths[package])
        shutil.rmtree(folder)
    return paths


def packages(names: Iterable[str], cache: Path) -> dict[Package, Path]:
    """Resolve and fetch, once more with new lists if the machine's name versions that the mirror has dropped.

    Raises:
        RecipeError: a package isn't to be had.
    """
    wanted = list(names)
    try:
        return fetch(resolve(wanted), cache)
    except RecipeError:
        _apt("update")
        return fetch(resolve(wanted), cache)


def _merged_usr(path: str) -> str:
    first = path.partition("/")[0]
    return f"usr/{path}" if first in ("bin", "sbin", "lib", "lib64") else path


def read_deb(path: Path, dropped: re.Pattern[str] = _DROPPED) -> list[Entry]:
    """The files and links of a package but those whose path begins as `dropped` says, under a merged /usr."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], capture_output=True, check=True, timeout=120).stdout
    entries: dict[str, Entry] = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            name = _merged_usr(posixpath.normpath(member.name).removeprefix("./").removeprefix("/"))
            if member.isdir() or dropped.match(name):
                continue
            if member.issym():
                entries[name] = Symlink(name, member.linkname)
            elif member.islnk():
                other = entries[_merged_usr(posixpath.normpath(member.linkname))]
                if isinstance(other, File):
                    entries[name] = File(name, other.size, other.read, other.executable)
            elif member.isreg():
                stream = archive.extractfile(member)
                data = stream.read() if stream else b""
                entries[name] = File.of(name, data, executable=bool(member.mode & 0o111))
    return list(entries.values())


def base_entries(debs: Iterable[Path]) -> dict[str, Entry]:
    """The tree of the base image, byte code not yet in it.

    Raises:
        RecipeError: a link points nowhere or a library that something needs isn't there.
    """
    tree: dict[str, Entry] = {}
    for deb in debs:
        tree.update((entry.path, entry) for entry in read_deb(deb))
    for name in ("bin", "sbin", "lib", "lib64"):
        tree[name] = Symlink(name, f"usr/{name}")
    tree["usr/lib64/ld-linux-x86-64.so.2"] = Symlink(
        "usr/lib64/ld-linux-x86-64.so.2", f"../../{LIBRARIES}/ld-linux-x86-64.so.2"
    )
    for applet in _APPLETS:
        tree[f"usr/bin/{applet}"] = Symlink(f"usr/bin/{applet}", "busybox")
    tree["etc/localtime"] = Symlink("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
    for name in ("python", "python3"):
        tree[f"usr/bin/{name}"] = Symlink(f"usr/bin/{name}", "python3.11")
    for path, text in _ETC.items():
        tree[path] = File.of(path, text.encode())
    _certificates(tree)
    for path, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("dev", 0o755), ("proc", 0o755), ("sys", 0o755)):
        tree[path] = Directory(path, mode)
    for path in ("run", "root", "home", "usr/sbin", "opt/cloudmesh"):
        tree[path] = Directory(path)
    check(tree)
    return tree


def _certificates(tree: dict[str, Entry]) -> None:
    """What Debian's update-ca-certificates would do: one bundle, where OpenSSL and Python look for it."""
    bundle = bytearray()
    for path in sorted(tree):
        entry = tree[path]
        if path.startswith("usr/share/ca-certificates/") and path.endswith(".crt") and isinstance(entry, File):
            bundle += entry.read().rstrip() + b"\n"
            del tree[path]
    tree["etc/ssl/certs/ca-certificates.crt"] = File.of("etc/ssl/certs/ca-certificates.crt", bytes(bundle))
    tree["usr/lib/ssl/cert.pem"] = Symlink("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt")
    tree["usr/lib/ssl/certs"] = Symlink("usr/lib/ssl/certs", "/etc/ssl/certs")


def _target(entry: Symlink) -> str:
    if entry.target.startswith("/"):
        return _merged_usr(entry.target.lstrip("/"))
    return posixpath.normpath(posixpath.join(posixpath.dirname(_merged_usr(entry.path)), entry.target))


def check(tree: Mapping[str, Entry], packages: str = "images/base/packages.txt") -> None:
    """Whether an image is whole.

    Args:
        tree: all of its files.
        packages: the list that says what is in it, for the message.

    Raises:
        RecipeError: a link points nowhere or a library that something needs isn't there.
    """
    folders = {posixpath.dirname(path) for path in tree}
    for path in list(folders):
        while path:
            folders.add(path)
            path = posixpath.dirname(path)
    for entry in tree.values():
        if isinstance(entry, Symlink) and entry.path not in ("bin", "sbin", "lib", "lib64"):
            target = _merged_usr(_target(entry))
            if target not in tree and target not in folders:
                raise RecipeError(f"{packages}: {entry.path} points to {target}, which isn't in it")
    libraries = {posixpath.basename(path) for path in tree if path.startswith((LIBRARIES, "usr/lib64"))}
    for path, entry in tree.items():
        if isinstance(entry, File):
            for name in needed_libraries(entry.read()):
                if name not in libraries:
                    raise RecipeError(f"{path} needs {name}; name its package in {packages}")


def needed_libraries(data: bytes) -> list[str]:
    """The shared libraries (DT_NEEDED) that a 64-bit little-endian ELF file asks for; empty for any other file."""
    if data[:6] != b"\x7fELF\x02\x01":
        return []

    def number(offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], "little")

    headers, entry_size, count = number(32, 8), number(54, 2), number(56, 2)
    segments = [
        (number(at, 4), number(at + 8, 8), number(at + 16, 8), number(at + 32, 8))
        for at in range(headers, headers + entry_size * count, entry_size)
    ]
    dynamic = next(((offset, size) for kind, offset, _, size in segments if kind == 2), None)
    if dynamic is None:
        return []
    tags = [(number(at, 8), number(at + 8, 8)) for at in range(dynamic[0], sum(dynamic), 16)]
    strings = next((value for tag, value in tags if tag == 5), 0)
    start = next(
        (
            strings - address + offset
            for kind, offset, address, size in segments
            if kind == 1 and address <= strings < address + size
        ),
        0,
    )
    return [data[start + value : data.index(b"\0", start + value)].decode() for tag, value in tags if tag == 1]


def materialize(tree: Mapping[str, Entry], folder: Path) -> None:
    """Put the parts of `tree` that its Python needs into `folder`."""
    for path, entry in tree.items():
        if not path.startswith((PYTHON, LIBRARIES, "usr/lib/python3.11/", "usr/lib64/", "usr/lib/locale/")):
            continue
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case File():
                place.write_bytes(entry.read())
                place.chmod(0o755 if entry.executable else 0o644)
            case Symlink() if not entry.target.startswith("/"):
                place.symlink_to(entry.target)
            case _:
                continue
    for loader in (folder / LIBRARIES).glob("ld-linux-*"):
        loader.chmod(0o755)


def python_command(folder: Path) -> list[str]:
    """The command that runs the Python of a materialized base on this machine, with the base's own libraries."""
    loader = folder / LIBRARIES / "ld-linux-x86-64.so.2"
    return [str(loader), "--library-path", str(folder / LIBRARIES), str(folder / PYTHON)]


def python_version(command: list[str]) -> str:
    """The full version of the Python that `command` starts.

    Raises:
        RecipeError: it doesn't run here.
    """
    program = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    run = subprocess.run([*command, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60, check=False)
    if run.returncode:
        raise RecipeError(f"the base image's Python doesn't run on this machine: {run.stderr.strip()[-300:]}")
    return run.stdout.strip()
