"""The last listings of an account: what is there, what changed, and what is proven absent."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloudmesh.compute.ports import GONE, Complete, Listing, Node

NOT_LISTED = "not listed yet"


@dataclass(slots=True)
class _Round:
    """One Complete listing: when it was begun, and whose nodes it showed."""

    begun: float = float("-inf")
    seen: set[str] = field(default_factory=set)


class NodeBook:
    """Nodes of one account by token and by id.

    A Complete listing replaces all of it but what was learnt after the listing had begun; a Partial one only adds. A
    node is absent if two Complete listings in a row, both begun when it would have been visible for sure, don't show
    it. Times are seconds on the event loop's clock, so that wrong clocks and new leaders prove nothing.

    Args:
        grace_seconds: A node not listed is unknown, not absent, until it is so old.
    """

    def __init__(self, grace_seconds: float = 0.0) -> None:
        self.grace_seconds = grace_seconds
        self.complete = False
        """Whether the last listing was complete."""
        self.as_of = ""
        self.reason = NOT_LISTED
        """Why the last listing wasn't complete."""
        self._nodes: dict[str, Node] = {}
        self._fresh: dict[str, tuple[float, Node]] = {}
        self._extras: dict[str, tuple[Node, ...]] = {}
        self._last = _Round()
        self._before = _Round()

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def listed(self) -> bool:
        """Whether there was a Complete listing at all."""
        return self._last.begun > float("-inf")

    def nodes(self) -> list[Node]:
        """All nodes with a token."""
        return [*self._nodes.values(), *(node for token, (_, node) in self._fresh.items() if token not in self._nodes)]

    def get(self, token: str) -> Node | None:
        """The node of a token, as it was last seen."""
        if self._fresh and (fresh := self._fresh.get(token)) is not None:
            return fresh[1]
        return self._nodes.get(token)

    def extras(self, token: str) -> tuple[Node, ...]:
        """Living nodes that carry a token besides the one that `get` gives: there must be none."""
        return self._extras.get(token, ())

    def put(self, node: Node, moment: float) -> None:
        """Takes in what a create or a look-up told; it counts until a listing begun later shows the node."""
        self._fresh[node.token] = (moment, node)

    def drop(self, token: str) -> None:
        """Forgets a node that was seen gone."""
        self._nodes.pop(token, None)
        self._fresh.pop(token, None)
        self._extras.pop(token, None)

    def absent(self, token: str, since: float) -> bool:
        """Whether a node is proven not to be there.

        Args:
            token: Its create token.
            since: When it may last have come into being, on the loop's clock.
        """
        ripe = since + self.grace_seconds
        return (
            self._before.begun >= ripe
            and self._last.begun >= ripe
            and token not in self._last.seen
            and token not in self._before.seen
        )

    def missed(self, token: str) -> bool:
        """Whether the last Complete listing didn't show it; the next one may prove its absence."""
        return self.listed and token not in self._last.seen

    def take(self, listing: Listing, begun: float) -> set[str]:
        """Takes a listing in; gives the tokens of nodes that appeared, changed or weren't shown any more.

        Args:
            listing: Nodes of our scope only.
            begun: When the listing was begun.
        """
        shown, extras = _by_token(listing.nodes)
        self.as_of = listing.as_of
        old = self._nodes
        if isinstance(listing, Complete):
            self.complete, self.reason = True, ""
            self._nodes = shown
            self._extras = extras
            self._before, self._last = self._last, _Round(begun, set(shown))
            changed = {token for token in old if token not in shown}
        else:
            self.complete, self.reason = False, listing.reason
            self._nodes = {**old, **shown}
            self._extras.update(extras)
            self._last.seen.update(shown)
            changed = set()
        changed.update(token for token, node in shown.items() if not _same(old.get(token), node))
        changed.update(extras)
        self._settle_fresh(shown, begun, changed)
        return changed

    def _settle_fresh(self, shown: dict[str, Node], begun: float, changed: set[str]) -> None:
        for token, (moment, node) in list(self._fresh.items()):
            # listed by a later look, or for so long not that it can't be lag: the listings have the last word
            if begun >= moment and (token in shown or self.absent(token, moment)):
                del self._fresh[token]
                if token not in shown or not _same(node, shown[token]):
                    changed.add(token)


def _by_token(nodes: tuple[Node, ...]) -> tuple[dict[str, Node], dict[str, tuple[Node, ...]]]:
    """The node of each token, the oldest living one where there are several, and the other living ones."""
    shown: dict[str, Node] = {}
    doubles: dict[str, dict[str, Node]] = {}
    for node in nodes:
        token = node.token
        if not token:
            continue
        if token in shown:
            doubles.setdefault(token, {shown[token].id: shown[token]})[node.id] = node
        else:
            shown[token] = node
    extras = {}
    for token, found in doubles.items():
        first, *rest = sorted(found.values(), key=lambda node: (node.state in GONE, node.created_at, node.id))
        shown[token] = first
        if living := tuple(node for node in rest if node.state not in GONE):
            extras[token] = living
    return shown, extras


def _same(old: Node | None, new: Node) -> bool:
    if old is new:
        return True
    if old is None:
        return False
    if old.failure is None and new.failure is None:
        return old == new
    return old.state == new.state and str(old.failure) == str(new.failure) and old.id == new.id
