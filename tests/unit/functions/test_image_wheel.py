"""Wheels become layers without being unpacked; what is wrong with one is refused with its name."""

from __future__ import annotations

import csv
import io
import marshal
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.functions.wheels import record_line, wheel_bytes, write_wheel

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.bytecode import Interpreter
from cloudmesh.functions.image.layer import File
from cloudmesh.functions.image.wheel import Limits, Target, Wheel, merge

_SITE = "opt/cloudmesh/site"
_RUNNING = ".".join(str(part) for part in sys.version_info[:3])


def _entries(path: Path, compiler: Interpreter | None = None, limits: Limits | None = None) -> dict[str, File]:
    with Wheel.open(path, Target(), limits) as wheel:
        return {
            entry.path: File.of(entry.path, entry.read(), executable=entry.executable)
            for entry in wheel.entries(compiler)
        }


def _refused(tmp_path: Path, data: bytes, match: str, limits: Limits | None = None) -> None:
    path = write_wheel(tmp_path, data)
    with pytest.raises(InvalidRequest, match=match) as caught:
        _entries(path, limits=limits)
    assert "demo-1.0-py3-none-any.whl" in str(caught.value)


def test_modules_scripts_data_and_record(tmp_path: Path) -> None:
    data = wheel_bytes(
        files={
            "demo/__init__.py": b"X = 1\n",
            "demo-1.0.data/scripts/tool": b"#!python -s\nprint(1)\n",
            "demo-1.0.data/data/share/x.txt": b"x",
            "demo-1.0.data/headers/x.h": b"int x;",
            "demo-1.0.data/platlib/native.so": b"\x7fELF",
        },
        entry_points="[console_scripts]\nrun = demo:main [extra]\n",
    )
    files = _entries(write_wheel(tmp_path, data))
    assert files[f"{_SITE}/demo/__init__.py"].read() == b"X = 1\n"
    assert files[f"{_SITE}/share/x.txt"].read() == b"x"
    assert files[f"{_SITE}/include/demo/x.h"].read() == b"int x;"
    assert files[f"{_SITE}/native.so"].read() == b"\x7fELF"
    tool, run = files[f"{_SITE}/bin/tool"], files[f"{_SITE}/bin/run"]
    assert tool.read() == b"#!/usr/bin/python3.11\nprint(1)\n"
    assert tool.executable and run.executable
    assert run.read().startswith(b"#!/usr/bin/python3.11\n")
    rows = list(csv.reader(io.StringIO(files[f"{_SITE}/demo-1.0.dist-info/RECORD"].read().decode())))
    assert {row[0] for row in rows} == {path.removeprefix(f"{_SITE}/") for path in files}
    for name, digest, _ in rows:
        if digest:
            assert record_line(name, files[f"{_SITE}/{name}"].read()).split(",")[1] == digest


def test_import_names(tmp_path: Path) -> None:
    files = {"one.py": b"", "two/__init__.py": b"", "three.cpython-311-x86_64-linux-gnu.so": b"", "docs-x/a.py": b""}
    with Wheel.open(write_wheel(tmp_path, wheel_bytes(files=files))) as wheel:
        assert wheel.import_names() == {"one", "two", "three"}


def test_byte_code_needs_no_source_check_and_is_repeatable(tmp_path: Path) -> None:
    files = {"demo/__init__.py": b"X = {'a', 'b'}\n", "demo/broken.py": b"def (:\n", "demo/tests/test_x.py": b"X = 1\n"}
    path = write_wheel(tmp_path, wheel_bytes(files=files))
    first, second = (_entries(path, Interpreter(_RUNNING)) for _ in range(2))
    name = f"{_SITE}/demo/__pycache__/__init__.cpython-311.pyc"
    compiled = [path for path in first if path.endswith(".pyc")]
    assert compiled == [name]
    data = first[name].read()
    assert data == second[name].read()
    assert int.from_bytes(data[4:8], "little") == 0b01  # hash-based, unchecked (PEP 552)
    code = marshal.loads(data[16:])
    assert code.co_filename == f"/{_SITE}/demo/__init__.py"


def test_only_the_same_interpreter_compiles() -> None:
    assert Interpreter.running(_RUNNING) is not None
    assert Interpreter.running("3.11.999") is None


def test_members_outside_of_record_are_refused(tmp_path: Path) -> None:
    _refused(tmp_path, wheel_bytes(extra={"evil.py": b"import os"}), "'evil.py' is not in RECORD")


@pytest.mark.parametrize("name", ["/etc/cron.d/x", "../../x.py", "a/../../x.py", "a\\b.py"])
def test_paths_that_leave_the_layer_are_refused(tmp_path: Path, name: str) -> None:
    _refused(tmp_path, wheel_bytes(files={name: b"x"}), "not a plain relative path")


def test_data_that_leaves_its_scheme_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, wheel_bytes(files={"demo-1.0.data/nowhere/x": b"x"}), "no known scheme")


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO(wheel_bytes())
    with zipfile.ZipFile(out, "a") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    _refused(tmp_path, out.getvalue(), "a link or special file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicates_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO(wheel_bytes())
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("demo.py", b"VALUE = 2\n")
    _refused(tmp_path, out.getvalue(), "there twice")


def test_content_that_differs_from_its_hash_is_refused(tmp_path: Path) -> None:
    good = wheel_bytes(files={"demo.py": b"VALUE = 1\n"})
    record = zipfile.ZipFile(io.BytesIO(good)).read("demo-1.0.dist-info/RECORD")
    _refused(tmp_path, wheel_bytes(files={"demo.py": b"VALUE = 2\n"}, record=record), "differs from its hash")


def test_a_missing_or_weak_record_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, wheel_bytes(record=b""), "is not in RECORD with a hash")
    weak = b"demo.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,10\n"
    _refused(tmp_path, wheel_bytes(record=weak), "RECORD")


def test_what_record_lists_must_be_there(tmp_path: Path) -> None:
    good = zipfile.ZipFile(io.BytesIO(wheel_bytes())).read("demo-1.0.dist-info/RECORD")
    _refused(
        tmp_path, wheel_bytes(record=good + record_line("gone.py", b"").encode() + b"\n"), "'gone.py', which isn't"
    )


def test_a_local_header_with_another_name_is_refused(tmp_path: Path) -> None:
    data = bytearray(wheel_bytes())
    at = data.index(b"demo.py")  # the first is the local header, the directory comes last
    data[at : at + 7] = b"evil.py"
    _refused(tmp_path, bytes(data), "demo.py")


@pytest.mark.parametrize(
    "line", ["../../bin/sh = demo:main", "a/b = demo:main", "run = os; import os:main", "run = demo", "run = demo:a b"]
)
def test_entry_points_that_are_no_names_are_refused(tmp_path: Path, line: str) -> None:
    _refused(tmp_path, wheel_bytes(entry_points=f"[console_scripts]\n{line}\n"), r"entry_points\.txt")


def test_limits(tmp_path: Path) -> None:
    bomb = wheel_bytes(files={"demo.py": bytes(8 << 20)})
    _refused(tmp_path, bomb, "over the ratio of 200")
    _refused(tmp_path, bomb, "over the limit of 1000", Limits(file=1000))
    _refused(tmp_path, bomb, "unpacked, over the limit", Limits(total=1000))
    _refused(tmp_path, wheel_bytes(), "members, over the limit of 2", Limits(count=2))


def test_no_wheel_at_all(tmp_path: Path) -> None:
    _refused(tmp_path, b"", "not a zip")
    path = tmp_path / "noname.whl"
    path.write_bytes(wheel_bytes())
    with pytest.raises(InvalidRequest, match=r"noname\.whl"):
        _entries(path)
    other = tmp_path / "other-1.0-py3-none-any.whl"
    other.write_bytes(wheel_bytes())
    with pytest.raises(InvalidRequest, match="doesn't match wheel filename"):
        _entries(other)


def test_merge_refuses_two_contents_at_one_path() -> None:
    one, same, other = (File.of("a", data) for data in (b"1", b"1", b"2"))
    assert len(merge([[one], [same]])) == 1
    with pytest.raises(InvalidRequest, match="different content"):
        merge([[one], [other]])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_wheel_is_refused_or_whole(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever byte flips: either the files are exactly those of the wheel, or it is refused; nothing else happens."""
    whole = wheel_bytes(files={"demo.py": b"VALUE = 1\n" * 5}, entry_points="[console_scripts]\nrun = demo:main\n")
    expected = {p: f.read() for p, f in _entries(write_wheel(tmp_path / "whole", whole)).items()}
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = {p: f.read() for p, f in _entries(write_wheel(tmp_path, bytes(broken))).items()}
    except InvalidRequest:
        return
    record = f"{_SITE}/demo-1.0.dist-info/RECORD"
    assert {p: d for p, d in found.items() if p != record} == {p: d for p, d in expected.items() if p != record}
