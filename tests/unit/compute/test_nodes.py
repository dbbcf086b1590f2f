"""What listings prove, what they don't, and what is told of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudmesh.compute.nodes import NodeBook
from cloudmesh.compute.ports import Complete, Node, Partial
from cloudmesh.engine.errors import CapacityUnavailable


def node(token: str, state: str = "Running", id_: str = "", **more: object) -> Node:
    return Node(id=id_ or f"i-{token}", token=token, state=state, **more)  # type: ignore[arg-type]


def complete(*nodes: Node) -> Complete:
    return Complete(nodes, "2026-01-01T00:00:00Z")


def partial(*nodes: Node) -> Partial:
    return Partial(nodes, "2026-01-01T00:00:00Z", "a zone didn't answer")


def test_one_listing_never_proves_absence() -> None:
    book = NodeBook(grace_seconds=10)
    book.take(complete(), 100.0)
    assert not book.absent("a", 0.0)
    book.take(complete(), 101.0)
    assert book.absent("a", 0.0)


def test_listings_within_the_grace_prove_nothing() -> None:
    book = NodeBook(grace_seconds=10)
    book.take(complete(), 109.0)
    book.take(complete(), 111.0)
    assert not book.absent("a", 100.0)
    book.take(complete(), 113.0)
    assert book.absent("a", 100.0)


def test_partial_listings_prove_presence_but_never_absence() -> None:
    book = NodeBook()
    for moment in range(5):
        book.take(partial(), float(moment))
    assert not book.absent("a", -9.0)
    book.take(complete(), 5.0)
    book.take(complete(), 6.0)
    assert book.absent("a", 0.0)
    book.take(partial(node("a")), 7.0)
    assert not book.absent("a", 0.0)
    assert book.get("a") is not None
    assert not book.complete


def test_a_complete_listing_replaces_all_but_what_is_newer() -> None:
    book = NodeBook()
    book.take(complete(node("a"), node("b")), 1.0)
    book.put(node("c", "Pending"), 3.0)
    assert book.take(complete(node("b")), 2.0) == {"a"}
    assert book.get("a") is None
    assert book.get("c") == node("c", "Pending")
    # the next two, begun after it was made, don't show it: it was a ghost
    book.take(complete(node("b")), 4.0)
    assert book.get("c") is not None
    assert book.take(complete(node("b")), 5.0) == {"c"}
    assert book.get("c") is None


def test_a_change_that_a_newer_answer_hid_is_told() -> None:
    book = NodeBook()
    # the look-up was answered after this listing had begun, and says less than it
    book.put(node("a", "Pending"), 2.0)
    book.take(complete(node("a", "Running")), 1.0)
    assert book.get("a") == node("a", "Pending")
    assert book.take(complete(node("a", "Running")), 3.0) == {"a"}
    assert book.get("a") == node("a", "Running")
    assert book.take(complete(node("a", "Running")), 4.0) == set()


def test_two_machines_of_one_token_are_told_apart() -> None:
    book = NodeBook()
    first, second = node("a", id_="i-1", created_at="1"), node("a", id_="i-2", created_at="2")
    ended = node("a", "Deleted", id_="i-0", created_at="0")
    assert book.take(complete(second, ended, first), 1.0) == {"a"}
    assert book.get("a") == first
    assert [n.id for n in book.extras("a")] == ["i-2"]
    book.take(complete(first, ended), 2.0)
    assert book.extras("a") == ()


def test_failures_are_compared_by_their_words() -> None:
    book = NodeBook()
    failed = [node("a", "Failed", failure=CapacityUnavailable("no room")) for _ in range(2)]
    assert book.take(complete(failed[0]), 1.0) == {"a"}
    assert book.take(complete(failed[1]), 2.0) == set()


@given(
    st.lists(
        st.tuples(st.booleans(), st.frozensets(st.sampled_from("abc")), st.floats(0.1, 5.0)), min_size=1, max_size=12
    ),
    st.floats(0.0, 6.0),
)
def test_absence_needs_two_complete_listings_that_dont_show_it(
    rounds: list[tuple[bool, frozenset[str], float]], grace: float
) -> None:
    book, moment, history = NodeBook(grace), 0.0, []
    for whole, tokens, step in rounds:
        moment += step
        nodes = [node(token) for token in sorted(tokens)]
        book.take(complete(*nodes) if whole else partial(*nodes), moment)
        history.append((whole, tokens, moment))
    for token in "abc":
        if not book.absent(token, 0.0):
            continue
        last = [entry for entry in history if entry[0]][-2:]
        assert len(last) == 2
        assert all(token not in tokens and begun >= grace for _, tokens, begun in last)
        assert all(token not in tokens for _, tokens, begun in history if begun >= last[0][2])
