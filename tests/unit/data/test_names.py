"""Paths and keys: what is refused, what a store's own limits do, and that a name is its own key wherever it can be."""

from __future__ import annotations

import pytest

from cloudmesh.data.errors import InvalidName
from cloudmesh.data.names import clean_path, key_of, path_of
from cloudmesh.data.stores.ports import StoreInfo

PLAIN = StoreInfo("plain", "Full", max_key=1024, max_part=255)
PICKY = StoreInfo("picky", "Full", refuses="\n\t:é", max_key=60, max_part=20)


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("", ""),
        ("/", ""),
        ("a", "a"),
        ("/a/b.csv", "a/b.csv"),
        ("a/b/", "a/b"),
        ("a/.b/c..d", "a/.b/c..d"),
        ("...", "..."),
        (" a / b ", " a / b "),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("\u00e9", "\u00e9"),
        ("nl\nx", "nl\nx"),
        ("a\\b", "a\\b"),
        ("😀/%2F", "😀/%2F"),
    ],
)
def test_clean(path: str, clean: str) -> None:
    assert clean_path(path) == clean
    assert clean_path(clean) == clean


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a//b", "empty part"),
        ("//a", "empty part"),
        ("a//", "empty part"),
        ("//", "empty part"),
        ("a/./b", "part '.'"),
        ("../b", "part '..'"),
        ("a/..", "part '..'"),
        ("a\0b", "NUL"),
        ("a\ud800b", "surrogate"),
        ("x" * 1025, "1025 bytes"),
        ("é" * 513, "1026 bytes"),
        ("/".join(["x" * 1000] * 5), "bytes"),
    ],
)
def test_refused(path: str, words: str) -> None:
    with pytest.raises(InvalidName, match=words):
        clean_path(path)


def test_a_name_is_its_own_key_where_the_store_can_hold_it() -> None:
    for path in ("a/b.csv", "100%", "a%20b", "%0A", "a\nb", "x%250A"):
        assert key_of("lab/", path, PLAIN) == "lab/" + path
        assert path_of("lab/", "lab/" + path, PLAIN) == path


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a b", "a b"),
        ("a\nb", "a%0Ab"),
        ("%0A", "%250A"),
        ("%250A", "%25250A"),
        ("%0a", "%0a"),
        ("a%20b", "a%20b"),
        ("100%", "100%"),
        ("%25", "%25"),
        ("%%0A", "%%250A"),
        ("%25%0A", "%25%250A"),
        ("d:/é", "d%3A/%C3%A9"),
        ("%C3%A9", "%25C3%A9"),
        ("%C3", "%C3"),
    ],
)
def test_codes(path: str, key: str) -> None:
    assert key_of("", path, PICKY) == key
    assert path_of("", key, PICKY) == path


def test_too_long_for_a_store() -> None:
    assert key_of("", "x" * 20, PICKY) == "x" * 20
    with pytest.raises(InvalidName, match="21 bytes"):
        key_of("", "x" * 21, PICKY)
    with pytest.raises(InvalidName, match="21 bytes"):
        key_of("", "\n" * 7, PICKY)
    with pytest.raises(InvalidName, match="61 bytes"):
        key_of("p/", "/".join(["x" * 19] * 2 + ["x" * 19]), PICKY)


def test_another_prefix_is_no_path() -> None:
    with pytest.raises(InvalidName, match="below"):
        path_of("lab/", "labor/x", PLAIN)


def test_a_store_that_refuses_the_sign_itself_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="another way"):
        key_of("", "x", StoreInfo("odd", "Full", refuses="%"))


def test_what_a_part_can_not_end_with_is_written_as_a_code_there_only() -> None:
    info = StoreInfo("dots", "Full", refuses="\n", refuses_last=".")
    for path, key in (
        ("a.b/c.d", "a.b/c.d"), ("a./b..", "a%2E/b.%2E"), ("...", "..%2E"), ("a%2Eb", "a%2Eb"), ("a%2E", "a%252E"),
        ("a.\n", "a.%0A"),
    ):  # fmt: skip
        assert key_of("lab/", path, info) == f"lab/{key}" and path_of("lab/", f"lab/{key}", info) == path
