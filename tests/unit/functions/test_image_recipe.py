"""The recipe's pure parts: ELF headers, package lists, locks, the machine's index settings."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from images import compose, debian, install, wheels

from cloudmesh.functions.image.oci import Platform
from cloudmesh.functions.lock import Target

_LOCK = """other==1.0 \\
    --hash=sha256:{a}
uv==0.13.9 \\
    --hash=sha256:{b} \\
    --hash=sha256:{c}
zlast==2 ; sys_platform == 'linux' \\
    --hash=sha256:{d}
""".format(**{name: name * 64 for name in "abcd"})


def test_needed_libraries_of_a_real_library() -> None:
    import zstandard.backend_c as extension

    assert any(name.startswith("libc.so") for name in debian.needed_libraries(Path(extension.__file__).read_bytes()))
    assert debian.needed_libraries(b"#!/bin/sh\n") == []
    assert debian.needed_libraries(b"") == []


def test_package_lists_hold_names_only(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("# words\nzlib1g\n\nbase-files  # more\n")
    assert debian.package_names(tmp_path / "p.txt") == ["base-files", "zlib1g"]
    assert "python3.11-minimal" in debian.package_names()


def test_hashes_of_a_lock(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text(_LOCK)
    found = wheels._hashes(tmp_path / "requirements.lock")
    assert found["uv"] == {"b" * 64, "c" * 64}
    assert found["zlast"] == {"d" * 64}
    assert install._locked(_LOCK, "uv") == ("0.13.9", {"b" * 64, "c" * 64})
    with pytest.raises(SystemExit, match="nothing"):
        install._locked(_LOCK, "nothing")


def test_the_best_wheel_with_an_allowed_hash_is_chosen() -> None:
    tags = Target("3.11", (2, 36), Platform("linux", "amd64")).tags()
    offers = [
        ("https://host/x-1-py3-none-any.whl", "a" * 64),
        ("https://host/x-1-cp311-cp311-manylinux_2_28_x86_64.whl", "b" * 64),
        ("https://host/x-1-cp311-cp311-manylinux_2_39_x86_64.whl", "c" * 64),
    ]
    assert wheels._choose("x", offers, tags, {"a" * 64, "b" * 64, "c" * 64})[1] == "b" * 64
    assert wheels._choose("x", offers, tags, {"a" * 64})[1] == "a" * 64
    with pytest.raises(debian.RecipeError, match="x: the index has no wheel"):
        wheels._choose("x", offers, tags, {"c" * 64})


def test_pips_settings_become_uvs(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://mirror.example/simple\ncert = /etc/ca.crt\n")
    found = wheels.index_environment({"PIP_CONFIG_FILE": str(config)})
    assert found["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert found["SSL_CERT_FILE"]
    both = {"PIP_INDEX_URL": "https://pip.example/simple", "UV_DEFAULT_INDEX": "https://uv.example/simple"}
    assert wheels.index_environment(both)["UV_DEFAULT_INDEX"] == "https://uv.example/simple"


def test_uv_is_checked_against_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("uv-0.13.9.data/scripts/uv", "#!/bin/sh\n")
    data = out.getvalue()
    page = b'<a href="../../f/uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl#sha256=x">uv</a>'
    asked = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return page if url.endswith("/uv/") else data

    monkeypatch.setattr(install, "_fetch", fetch)
    lock = _LOCK.replace("b" * 64, hashlib.sha256(data).hexdigest())
    program = install.fetch_uv(lock, "https://host.example/simple/", tmp_path)
    assert program.read_text() == "#!/bin/sh\n"
    assert asked[1] == "https://host.example/f/uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    with pytest.raises(SystemExit, match="differs from its hashes"):
        install.fetch_uv(_LOCK, "https://host.example/simple", tmp_path)


def test_old_package_lists_are_renewed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def apt(*arguments: str, cwd: Path | None = None, seconds: int = 300) -> str:
        calls.append(arguments[0])
        if arguments[0] == "update":
            return ""
        if "--print-uris" in arguments:
            version = 2 if "update" in calls else 1
            digest = hashlib.sha256(b"deb").hexdigest()
            return f"'http://mirror.example/x_{version}_all.deb' x_{version}_all.deb 3 SHA256:{digest}\n"
        if "x=1" in arguments:
            raise debian.RecipeError("404")
        assert cwd is not None
        (cwd / "x_2_all.deb").write_bytes(b"deb")
        return ""

    monkeypatch.setattr(debian, "_apt", apt)
    (path,) = debian.packages(["x"], tmp_path).values()
    assert path.read_bytes() == b"deb"
    assert calls.count("update") == 1
    (tmp_path / "again").mkdir()
    assert list(debian.packages(["x"], tmp_path).values()) == [path]


def test_a_deb_is_read_into_a_merged_usr(tmp_path: Path) -> None:
    """A package as dpkg-deb lays it out, made by hand: an ar archive of three members."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in (("./lib/x86_64-linux-gnu/libx.so.1.0", b"lib"), ("./usr/share/man/x.1", b"man")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("./lib/x86_64-linux-gnu/libx.so.1")
        link.type, link.linkname = tarfile.SYMTYPE, "libx.so.1.0"
        archive.addfile(link)
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w:xz") as archive:
        text = b"Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
        info = tarfile.TarInfo("./control")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    deb = b"!<arch>\n"
    members = (("debian-binary", b"2.0\n"), ("control.tar.xz", control.getvalue()), ("data.tar.xz", data.getvalue()))
    for name, content in members:
        deb += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        deb += b"\n" * (len(content) % 2)
    path = tmp_path / "x.deb"
    path.write_bytes(deb)
    assert sorted(entry.path for entry in debian.read_deb(path)) == [
        "usr/lib/x86_64-linux-gnu/libx.so.1",
        "usr/lib/x86_64-linux-gnu/libx.so.1.0",
    ]


def test_our_packages_come_without_caches_and_with_metadata() -> None:
    files = compose.package_files("cloudmesh_function", "opt/x")
    assert any(file.path == "opt/x/cloudmesh_function/__init__.py" for file in files)
    assert not any("__pycache__" in file.path or file.path.endswith(".pyc") for file in files)
    metadata = compose.metadata_files("opt/x", "9.9")[0]
    assert metadata.path == "opt/x/cloudmesh_operator-9.9.dist-info/METADATA"
    assert b"Name: cloudmesh-operator\nVersion: 9.9\n" in metadata.read()
