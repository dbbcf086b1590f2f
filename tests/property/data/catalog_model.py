"""What a catalogue is, in plain dicts: slow, short and surely right."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloudmesh.data.errors import Changed, Exists, InvalidName, Missing
from cloudmesh.data.model import ROOT, TRASH
from cloudmesh.engine.errors import Conflict


@dataclass
class Node:
    parent: str
    name: str
    directory: bool
    size: int = 0
    version: int = 1
    tags: dict[str, str] = field(default_factory=dict)
    copies: dict[str, tuple[str, int, str, int]] = field(default_factory=dict)
    """By store: key, version, state, bytes."""
    due: bool = False


@dataclass
class Open:
    kind: str
    entry: str
    version: int
    targets: dict[str, str]
    directory: str = ""
    name: str = ""
    leased: bool = True
    """Its process lives."""


class Model:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {ROOT: Node("", "", True)}
        self.trash: dict[str, str] = {}
        self.intents: dict[str, Open] = {}

    # -- looking

    def child(self, parent: str, name: str) -> str | None:
        return next(
            (i for i, n in self.nodes.items() if n.parent == parent and n.name == name and parent != TRASH), None
        )

    def find(self, path: str) -> str | None:
        here: str | None = ROOT
        for part in path.split("/") if path else []:
            here = self.child(here, part) if here else None
        return here

    def below(self, entry: str) -> list[str]:
        found = [entry]
        for here in found:
            found += [i for i, n in self.nodes.items() if n.parent == here]
        return found[1:]

    def path(self, entry: str) -> str:
        parts = []
        while entry != ROOT:
            node = self.nodes[entry]
            if node.parent == TRASH:
                return ""
            parts.append(node.name)
            entry = node.parent
        return "/".join(reversed(parts))

    def live(self, entry: str) -> bool:
        return entry == ROOT or self.path(entry) != ""

    def walk(self) -> list[str]:
        return ["/".join(p) for p in sorted(self.path(i).split("/") for i in self.nodes if i != ROOT and self.live(i))]

    # -- changing

    def _free(self, parent: str, name: str) -> None:
        if self.child(parent, name):
            raise Exists
        if any(o.leased and o.directory == parent and o.name == name for o in self.intents.values()):
            raise Conflict

    def _directories(self, path: str) -> tuple[str, list[tuple[str, str]]]:
        """Id of the last, with those that have to be made as (path, id)."""
        here, made, prefix = ROOT, [], ""
        for part in path.split("/") if path else []:
            prefix = f"{prefix}/{part}" if prefix else part
            below = self.child(here, part)
            if below is None:
                self._free(here, part)
                below = f"made:{prefix}"
                made.append((prefix, below))
            elif not self.nodes[below].directory:
                raise InvalidName
            here = below
        return here, made

    def parent_of(self, path: str) -> tuple[str, str]:
        above, _, name = path.rpartition("/")
        found = self.find(above)
        if found is None:
            raise Missing
        if not self.nodes[found].directory:
            raise InvalidName
        return found, name

    def check_mkdir(self, path: str, parents: bool) -> None:
        there = self.find(path)
        if there is not None:
            if parents and self.nodes[there].directory:
                return
            raise Exists
        if parents:
            self._directories(path)
            return
        parent, name = self.parent_of(path)
        self._free(parent, name)

    def check_begin(self, intent: Open, path: str, if_version: int, keys: dict[str, str]) -> None:
        node = self.nodes.get(intent.entry)
        if node is None:
            if if_version > 0:
                raise Changed
            above, _, name = path.rpartition("/")
            parent, made = self._directories(above)
            if not made:
                if self.child(parent, name):
                    raise Changed
                self._free(parent, name)
        else:
            if if_version not in (-1, node.version):
                raise Changed
            if node.directory:
                raise InvalidName
        if any(o.leased and o.entry == intent.entry and o.kind == "Put" for o in self.intents.values()):
            raise Conflict
        for store, key in keys.items():
            for entry, other in self.nodes.items():
                if entry != intent.entry and other.copies.get(store, ("",))[0] == key:
                    raise Conflict
            if any(o.entry != intent.entry and o.targets.get(store) == key for o in self.intents.values()):
                raise Conflict

    def commit(self, intent_id: str, size: int, failed: set[str], due: bool) -> None:
        if intent_id not in self.intents:
            raise Missing
        intent = self.intents[intent_id]
        node = self.nodes.get(intent.entry)
        if node is not None and node.version >= intent.version:
            raise Missing
        if not intent.leased and any(o.leased and o.entry == intent.entry for o in self.intents.values()):
            raise Conflict
        if node is None and not intent.directory:
            raise Missing
        if node is None:
            node = self.nodes[intent.entry] = Node(intent.directory, intent.name, False)
        node.size, node.version = size, intent.version
        node.due = node.due or due or not self.live(intent.entry)
        for store, (key, version, state, held) in list(node.copies.items()):
            if (state == "Whole" and store not in intent.targets) or store in failed:
                node.copies[store] = (key, version, "Stale", held)
        for store, key in intent.targets.items():
            if store not in failed:
                node.copies[store] = (key, intent.version, "Whole", size)
            elif store not in node.copies:
                node.copies[store] = (key, 0, "Stale", 0)
        del self.intents[intent_id]

    def _woken(self, entry: str) -> None:
        for here in [entry, *self.below(entry)]:
            if not self.nodes[here].directory:
                self.nodes[here].due = True

    def move(self, source: str, target: str, overwrite: bool) -> None:
        entry = self.find(source)
        if entry is None:
            raise Missing
        if source == target:
            return
        if self.nodes[entry].directory and target.startswith(f"{source}/"):
            raise InvalidName
        parent, name = self.parent_of(target)
        there = self.child(parent, name)
        if there is not None:
            if not overwrite:
                raise Exists
            if self.below(there):
                raise Exists
        if there is None:
            self._free(parent, name)
        else:
            self._trash(there, target)
        self.nodes[entry].parent, self.nodes[entry].name = parent, name
        self._woken(entry)

    def delete(self, path: str, recursive: bool) -> None:
        entry = self.find(path)
        if entry is None:
            return
        if self.nodes[entry].directory and not recursive and self.below(entry):
            raise Exists
        self._trash(entry, path)

    def _trash(self, entry: str, path: str) -> None:
        self._woken(entry)
        self.trash[entry] = path
        self.nodes[entry].parent, self.nodes[entry].due = TRASH, True

    def check_restore(self, entry: str, path: str) -> str:
        if entry not in self.trash:
            raise Missing
        target = path or self.trash[entry]
        above, _, name = target.rpartition("/")
        parent, made = self._directories(above)
        if not made:
            self._free(parent, name)
        return target

    def restore(self, entry: str, parent: str, name: str) -> None:
        del self.trash[entry]
        self.nodes[entry].parent, self.nodes[entry].name = parent, name
        if self.nodes[entry].directory:
            self.nodes[entry].due = False
        self._woken(entry)

    # -- the end of things

    def used(self, entry: str) -> bool:
        return bool(self.nodes[entry].copies) or any(
            (o.entry == entry and o.kind != "Delete") or o.directory == entry for o in self.intents.values()
        )

    def drop(self, entry: str, store: str) -> None:
        node = self.nodes.get(entry)
        if node is None or node.copies.pop(store, None) is None:
            return
        if not self.live(entry) and not self.used(entry):
            self._end([entry])

    def purge(self, entry: str) -> None:
        if entry not in self.nodes or self.live(entry):
            return
        everything = [entry, *self.below(entry)]
        if any(self.used(e) or (e != entry and not self.nodes[e].directory) for e in everything):
            self.nodes[entry].due = True
            return
        self._end(everything)

    def _end(self, entries: list[str]) -> None:
        above = self.nodes[entries[0]].parent
        for entry in entries:
            del self.nodes[entry]
            self.trash.pop(entry, None)
        if above != TRASH and not self.below(above) and not self.used(above):
            self._end([above])

    def let_go(self) -> None:
        """What a process that has ended meant to write loses its name to whoever took it."""
        for o in self.intents.values():
            if o.leased or not o.directory:
                continue
            others = [p for p in self.intents.values() if p.leased and (p.directory, p.name) == (o.directory, o.name)]
            if others or self.child(o.directory, o.name):
                o.directory = ""

    # -- sums

    def sums(self) -> tuple[int, int, int]:
        live = [n for i, n in self.nodes.items() if i != ROOT and self.live(i)]
        files = [n for n in live if not n.directory]
        return len(files), len(live) - len(files), sum(n.size for n in files)

    def stores(self) -> dict[str, tuple[int, int]]:
        held: dict[str, tuple[int, int]] = {}
        for node in self.nodes.values():
            for store, (_, _, state, size) in node.copies.items():
                if state == "Whole":
                    number, total = held.get(store, (0, 0))
                    held[store] = (number + 1, total + size)
        return held
