"""Wheel to layer entries, straight from the zip: nothing is written to disk and nothing in the wheel runs."""

from __future__ import annotations

import base64
import configparser
import csv
import errno
import hashlib
import io
import posixpath
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from installer.exceptions import InstallerError
from installer.records import RecordEntry, parse_record_file
from installer.scripts import Script
from installer.sources import WheelFile
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.layer import File, check_path

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")
_SCRIPT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_OBJECT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_SHEBANG = re.compile(rb"^#!pythonw?[^\n]*")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one wheel may hold: bytes unpacked in all and a file, number of files, ratio of unpacked to packed."""

    total: int = 2 << 30
    file: int = 1 << 30
    count: int = 50_000
    ratio: int = 200


@dataclass(frozen=True, slots=True)
class Target:
    """Where a wheel's parts go inside the image: plain relative paths; scripts start `python`."""

    site: str = "opt/cloudmesh/site"
    scripts: str = "opt/cloudmesh/site/bin"
    python: str = "/usr/bin/python3.11"

    def scheme(self, name: str, distribution: str) -> str | None:
        """The folder for one of the schemes of a `.data` directory, None if there is no such scheme."""
        return {
            "purelib": self.site,
            "platlib": self.site,
            "data": self.site,
            "scripts": self.scripts,
            "headers": f"{self.site}/include/{distribution}",
        }.get(name)


class Compiler(Protocol):
    """Makes byte code for many files at once: path in the image -> source, to path of the .pyc -> content."""

    @property
    def identity(self) -> str:
        """Names the interpreter, since another one makes other bytes."""

    def compile(self, sources: Mapping[str, bytes]) -> dict[str, bytes]:
        """Compile; a source that doesn't compile is left out."""


@dataclass(frozen=True, slots=True)
class _Member:
    info: zipfile.ZipInfo
    path: str
    record: RecordEntry
    executable: bool
    script: bool


class Wheel:
    """An opened wheel whose directory has been checked: every path, hash entry, size and count.

    The contents are checked against their RECORD hashes as they are read.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str, target: Target, limits: Limits) -> None:
        self._zip = archive
        self._name = name
        self._target = target
        try:
            self._source = WheelFile(archive)
            self._dist_info = self._source.dist_info_dir
        except (InstallerError, ValueError) as error:
            raise self._bad(str(error)) from error
        self._distribution = self._source.distribution
        files = self._check_directory(limits)
        self._members = self._place(files, self._read_record(files))

    @classmethod
    @contextmanager
    def open(cls, path: Path, target: Target | None = None, limits: Limits | None = None) -> Iterator[Wheel]:
        """Open the wheel at `path`; its file name must be the wheel's.

        Raises:
            InvalidRequest: it is no wheel, or one that must not be used; the message names wheel and member.
        """
        try:
            parse_wheel_filename(path.name)
            archive = zipfile.ZipFile(path)
        except (InvalidWheelFilename, *_DAMAGED) as error:
            raise InvalidRequest(f"wheel {path.name}: {error}") from error
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise InvalidRequest(f"wheel {path.name}: damaged") from error
            raise
        with archive:
            yield cls(archive, path.name, target or Target(), limits or Limits())

    def _bad(self, text: str) -> InvalidRequest:
        return InvalidRequest(f"wheel {self._name}: {text}")

    def _check_directory(self, limits: Limits) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > limits.count:
            raise self._bad(f"{len(infos)} members, over the limit of {limits.count}")
        files: dict[str, zipfile.ZipInfo] = {}
        total = packed = 0
        for info in infos:
            name = info.orig_filename
            plain = name.removesuffix("/")
            try:
                check_path(plain)
            except InvalidRequest as error:
                raise self._bad(f"member {name!r}: {error}") from error
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise self._bad(f"member {name!r}: a link or special file")
            if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self._bad(f"member {name!r}: encrypted or packed with an unknown method")
            if name.endswith("/"):
                continue
            if name in files:
                raise self._bad(f"member {name!r}: there twice")
            if info.file_size > limits.file:
                raise self._bad(f"member {name!r}: {info.file_size} bytes, over the limit of {limits.file}")
            files[name] = info
            total += info.file_size
            packed += info.compress_size
        if total > limits.total:
            raise self._bad(f"{total} bytes unpacked, over the limit of {limits.total}")
        if total > (1 << 20) and total > packed * limits.ratio:
            raise self._bad(f"unpacks to {total} bytes out of {packed}, over the ratio of {limits.ratio}")
        return files

    def _read_record(self, files: Mapping[str, zipfile.ZipInfo]) -> dict[str, RecordEntry]:
        name = f"{self._dist_info}/RECORD"
        if name not in files:
            raise self._bad("it has no RECORD")
        records: dict[str, RecordEntry] = {}
        try:
            for elements in parse_record_file(self._text(files[name]).splitlines()):
                entry = RecordEntry.from_elements(*elements)
                if records.get(entry.path, entry) != entry:
                    raise self._bad(f"RECORD lists {entry.path!r} twice")
                records[entry.path] = entry
        except (InstallerError, csv.Error, ValueError) as error:
            raise self._bad(f"RECORD: {error}") from error
        exempt = {name, *(f"{self._dist_info}/{signature}" for signature in _SIGNATURES)}
        for path in files:
            if path in exempt:
                continue
            record = records.get(path)
            if record is None or record.hash_ is None:
                raise self._bad(f"member {path!r} is not in RECORD with a hash")
            if record.hash_.name not in ("sha256", "sha384", "sha512"):
                raise self._bad(f"member {path!r} is in RECORD with the weak hash {record.hash_.name}")
        missing = sorted(records.keys() - files.keys())
        if missing:
            raise self._bad(f"RECORD lists {missing[0]!r}, which isn't there")
        return {path: records[path] for path in files if path not in exempt}

    def _place(self, files: Mapping[str, zipfile.ZipInfo], records: Mapping[str, RecordEntry]) -> dict[str, _Member]:
        placed: dict[str, _Member] = {}
        data_dir = self._dist_info.removesuffix(".dist-info") + ".data"
        for name, record in records.items():
            info = files[name]
            first, _, rest = name.partition("/")
            path, script = f"{self._target.site}/{name}", False
            if first == data_dir:
                scheme, _, rest = rest.partition("/")
                folder = self._target.scheme(scheme, self._distribution)
                if folder is None or not rest:
                    raise self._bad(f"member {name!r}: no known scheme")
                path, script = f"{folder}/{rest}", scheme == "scripts"
            if path in placed:
                raise self._bad(f"member {name!r}: goes where {placed[path].info.filename!r} goes")
            mode = info.external_attr >> 16
            placed[path] = _Member(info, path, record, script or bool(stat.S_ISREG(mode) and mode & 0o111), script)
        return placed

    def _text(self, info: zipfile.ZipInfo) -> str:
        try:
            return self._raw(info).decode()
        except UnicodeDecodeError as error:
            raise self._bad(f"member {info.filename!r}: not UTF-8") from error

    def _raw(self, info: zipfile.ZipInfo) -> bytes:
        try:
            with self._zip.open(info) as stream:  # refuses a local header whose name differs
                data = stream.read(info.file_size + 1)
        except _DAMAGED as error:
            raise self._bad(f"member {info.filename!r}: {error}") from error
        except OSError as error:
            if error.errno == errno.EINVAL:  # an offset before the beginning
                raise self._bad(f"member {info.filename!r}: damaged") from error
            raise
        if len(data) != info.file_size:
            raise self._bad(f"member {info.filename!r}: not {info.file_size} bytes as its directory entry says")
        return data

    def _content(self, member: _Member) -> bytes:
        data = self._raw(member.info)
        if not member.record.validate_stream(io.BytesIO(data)):
            raise self._bad(f"member {member.info.filename!r}: differs from its hash in RECORD")
        if member.script:
            data = _SHEBANG.sub(b"#!" + self._target.python.encode(), data, count=1)
        return data

    def _console_scripts(self) -> Iterator[tuple[str, bytes]]:
        name = f"{self._dist_info}/entry_points.txt"
        member = self._members.get(f"{self._target.site}/{name}")
        if member is None:
            return
        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=True)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        try:
            parser.read_string(self._content(member).decode())
        except (configparser.Error, UnicodeDecodeError) as error:
            raise self._bad(f"entry_points.txt: {error}") from error
        for section in ("console_scripts", "gui_scripts"):
            if not parser.has_section(section):
                continue
            for script, value in parser.items(section):
                reference = value.partition("[")[0].strip()
                module, _, attribute = (part.strip() for part in reference.partition(":"))
                if not _SCRIPT_NAME.fullmatch(script) or not _OBJECT.fullmatch(module):
                    raise self._bad(f"entry_points.txt: {script!r} = {value!r} is no valid entry point")
                if not _OBJECT.fullmatch(attribute):
                    raise self._bad(f"entry_points.txt: {script!r} = {value!r} names no object")
                launcher = Script(script, module, attribute, "console").generate(self._target.python, "posix")[1]
                yield f"{self._target.scripts}/{script}", launcher

    def import_names(self) -> set[str]:
        """The top-level names that the wheel lets one import."""
        prefix = f"{self._target.site}/"
        names = set()
        for path in self._members:
            first, slash, _ = path.removeprefix(prefix).partition("/")
            if not path.startswith(prefix):
                continue
            if not slash:
                first = first.partition(".")[0] if first.endswith((".py", ".so", ".pyd")) else ""
            if first.isidentifier():
                names.add(first)
        return names - {"bin", "include", "share", "etc"}

    def entries(self, compiler: Compiler | None = None) -> list[File]:
        """The files of the layer: contents, console scripts, INSTALLER, a new RECORD and, if asked, byte code.

        Args:
            compiler: makes the .pyc files; None leaves them out.

        Raises:
            InvalidRequest: a member is damaged or differs from its hash, an entry point is malformed.
        """
        site = self._target.site
        files = {
            path: File(path, member.info.file_size, partial(self._content, member), member.executable)
            for path, member in self._members.items()
            if not member.script
        }
        hashes = {path: self._members[path].record for path in files}
        generated: dict[str, tuple[bytes, bool]] = {
            path: (self._content(member), True) for path, member in self._members.items() if member.script
        }
        for path, launcher in self._console_scripts():
            generated.setdefault(path, (launcher, True))
        generated[f"{site}/{self._dist_info}/INSTALLER"] = (b"cloudmesh\n", False)
        for path, (data, executable) in generated.items():
            if path in files and not path.endswith("/INSTALLER"):
                raise self._bad(f"its script {path!r} is a file of it too")
            files[path] = File.of(path, data, executable=executable)
            hashes.pop(path, None)
        record = self._new_record(hashes, {path: data for path, (data, _) in generated.items()})
        path = f"{site}/{self._dist_info}/RECORD"
        files[path] = File.of(path, record)
        if compiler is not None:
            sources = {path: file.read() for path, file in sorted(files.items()) if _compiled(path, site)}
            for path, data in compiler.compile(sources).items():
                files.setdefault(path, File.of(path, data))
        return list(files.values())

    def _new_record(self, kept: Mapping[str, RecordEntry], generated: Mapping[str, bytes]) -> bytes:
        site = self._target.site
        rows = []
        for path, entry in kept.items():
            _, digest, size = entry.to_row()
            rows.append((posixpath.relpath(path, site), digest, size))
        for path, data in generated.items():
            rows.append((posixpath.relpath(path, site), _record_hash(data), str(len(data))))
        rows.append((f"{self._dist_info}/RECORD", "", ""))
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(sorted(rows))
        return out.getvalue().encode()


def _record_hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _compiled(path: str, site: str) -> bool:
    """Modules get byte code, tests that a library carries don't: they are many and nothing imports them."""
    if not path.endswith(".py"):
        return False
    folders = path.removeprefix(f"{site}/").split("/")[:-1]
    return not ({"tests", "test", "testing_data"} & set(folders)) and (not folders or folders[0] != "bin")


def merge(parts: Iterable[Iterable[File]]) -> list[File]:
    """One layer out of several wheels.

    Raises:
        InvalidRequest: two wheels have different files at one path.
    """
    files: dict[str, File] = {}
    for part in parts:
        for file in part:
            other = files.get(file.path)
            if other is not None and other.read() != file.read():
                raise InvalidRequest(f"path {file.path!r}: two wheels have it, with different content")
            files[file.path] = file
    return list(files.values())
