"""Wheels made by tests: small, whole, and broken in a given way."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path


def record_line(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"{path},sha256={digest},{len(data)}"


def wheel_bytes(
    name: str = "demo",
    version: str = "1.0",
    files: Mapping[str, bytes] | None = None,
    *,
    requires: tuple[str, ...] = (),
    entry_points: str = "",
    extra: Mapping[str, bytes] | None = None,
    record: bytes | None = None,
    tag: str = "py3-none-any",
) -> bytes:
    """A wheel.

    Args:
        files: what it holds, listed in RECORD; one module by default.
        requires: requirements in its metadata.
        entry_points: text of entry_points.txt.
        extra: further members that RECORD doesn't list.
        record: RECORD in place of the right one.
    """
    info = f"{name}-{version}.dist-info"
    content = dict(files if files is not None else {f"{name}.py": b"VALUE = 1\n"})
    lines = "".join(f"Requires-Dist: {item}\n" for item in requires)
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}".encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    if entry_points:
        content[f"{info}/entry_points.txt"] = entry_points.encode()
    rows = [record_line(path, data) for path, data in content.items()] + [f"{info}/RECORD,,"]
    content[f"{info}/RECORD"] = record if record is not None else ("\n".join(rows) + "\n").encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in [*content.items(), *(extra or {}).items()]:
            member = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
            member.external_attr = 0o100644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return out.getvalue()


def write_wheel(folder: Path, data: bytes, name: str = "demo", version: str = "1.0", tag: str = "py3-none-any") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    path.write_bytes(data)
    return path
