"""Every path has one key and every key one path, whatever a store refuses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudmesh.data.names import clean_path, key_of, path_of
from cloudmesh.data.stores.ports import StoreInfo

CONTROLS = "".join(map(chr, (*range(1, 32), 127)))
# what no part may have, and what none may end with
REFUSES = st.tuples(
    st.sampled_from(["", "\n", CONTROLS, CONTROLS + '\\:*?"<>|', "é😀", "xyz~ "]), st.sampled_from(["", ".", ". é"])
)
# much of what is special, so that codes of codes come up
SPECIAL = [*"%250ABCD3aéxy\n:/.~ 😀e\u0301", "%25", "%0A", "%C3%A9", "%3A", "%2E"]
TEXT = st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=20).map("".join)


def store(refuses: tuple[str, str]) -> StoreInfo:
    return StoreInfo("any", "Full", refuses=refuses[0], refuses_last=refuses[1], max_key=1 << 20, max_part=1 << 20)


@given(REFUSES, TEXT)
def test_path_key_path(refuses: tuple[str, str], path: str) -> None:
    key = key_of("lab/", path, store(refuses))
    assert not set(key[4:]) & set(refuses[0])
    assert not any(part and part[-1] in refuses[1] for part in key[4:].split("/"))
    assert path_of("lab/", key, store(refuses)) == path


@given(REFUSES, TEXT)
def test_key_path_key(refuses: tuple[str, str], key: str) -> None:
    if not set(key) & set(refuses[0]) and not any(part and part[-1] in refuses[1] for part in key.split("/")):
        assert key_of("", path_of("", key, store(refuses)), store(refuses)) == key


@given(REFUSES, TEXT, TEXT)
def test_two_paths_never_share_a_key(refuses: tuple[str, str], one: str, other: str) -> None:
    same = key_of("", one, store(refuses)) == key_of("", other, store(refuses))
    assert same == (one == other)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_clean_twice_is_clean_once(text: str) -> None:
    path = "/".join(part for part in text.split("/") if part not in ("", ".", ".."))
    clean = clean_path(path)
    assert clean_path(clean) == clean
    assert clean_path(f"/{clean}/" if clean else "/") == clean
