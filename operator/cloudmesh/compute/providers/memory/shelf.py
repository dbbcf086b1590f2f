"""The memory cloud's machines, indexed so that a listing costs little however many there are."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence

from cloudmesh.compute.providers.memory.instance import Instance

Keys = tuple[str, ...]
Values = tuple[str | None, ...]


class _Bucket:
    """Machines with the same values of the same tags."""

    __slots__ = ("instances", "listed")

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.listed: tuple[Instance, ...] | None = None


class Shelf:
    """Machines by id, by create token, and by any set of tags that was asked for once."""

    def __init__(self) -> None:
        self._instances: dict[str, Instance] = {}
        self._tokens: dict[str, list[str]] = {}
        self._indexes: dict[Keys, dict[Values, _Bucket]] = {(): {(): _Bucket()}}
        self._frozen: tuple[Instance, ...] | None = None

    def __len__(self) -> int:
        return len(self._instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(list(self._instances.values()))

    def get(self, node_id: str) -> Instance | None:
        """A machine by its id."""
        return self._instances.get(node_id)

    def by_token(self, token: str) -> list[Instance]:
        """Machines of a token, oldest first."""
        return [self._instances[node_id] for node_id in self._tokens.get(token, ())]

    def put(self, instance: Instance) -> None:
        """Adds a machine, or its newer self."""
        old = self._instances.get(instance.id)
        self._instances[instance.id] = instance
        if old is None and instance.client_token:
            self._tokens.setdefault(instance.client_token, []).append(instance.id)
        for keys, buckets in self._indexes.items():
            values = _values(keys, instance.tags)
            if old is not None and old.tags != instance.tags and (was := _values(keys, old.tags)) != values:
                _drop(buckets, was, instance.id)
            _add(buckets, values, instance)

    def remove(self, instance: Instance) -> None:
        """Forgets a machine."""
        held = self._instances.pop(instance.id, None)
        if held is None:
            return
        if held.client_token:
            ids = self._tokens[held.client_token]
            ids.remove(held.id)
            if not ids:
                del self._tokens[held.client_token]
        for keys, buckets in self._indexes.items():
            _drop(buckets, _values(keys, held.tags), held.id)

    def listed(self, filters: Mapping[str, str]) -> tuple[Instance, ...]:
        """What a listing with these tags shows, sorted by id."""
        if self._frozen is not None:
            return tuple(i for i in self._frozen if all(i.tags.get(key) == value for key, value in filters.items()))
        keys = tuple(sorted(filters))
        buckets = self._indexes.get(keys)
        if buckets is None:
            buckets = self._indexes[keys] = {}
            for instance in self._instances.values():
                _add(buckets, _values(keys, instance.tags), instance)
        bucket = buckets.get(tuple(filters[key] for key in keys))
        if bucket is None:
            return ()
        if bucket.listed is None:
            shown = [instance for instance in bucket.instances.values() if instance.listed]
            bucket.listed = tuple(sorted(shown, key=_id))
        return bucket.listed

    @staticmethod
    def page(found: Sequence[Instance], mark: str, size: int) -> tuple[tuple[Instance, ...], str]:
        """The machines after a mark, and the next mark, empty when there are no more."""
        start = bisect.bisect_right(found, mark, key=_id) if mark else 0
        page = tuple(found[start : start + size])
        return page, page[-1].id if page and start + size < len(found) else ""

    def freeze(self) -> None:
        """Keeps this moment for listings."""
        self._frozen = self.listed({})

    def thaw(self) -> None:
        """Lets it go."""
        self._frozen = None


def _id(instance: Instance) -> str:
    return instance.id


def _values(keys: Keys, tags: Mapping[str, str]) -> Values:
    return tuple(tags.get(key) for key in keys)


def _add(buckets: dict[Values, _Bucket], values: Values, instance: Instance) -> None:
    bucket = buckets.get(values)
    if bucket is None:
        bucket = buckets[values] = _Bucket()
    bucket.instances[instance.id] = instance
    bucket.listed = None


def _drop(buckets: dict[Values, _Bucket], values: Values, node_id: str) -> None:
    bucket = buckets.get(values)
    if bucket is None:
        return
    bucket.instances.pop(node_id, None)
    bucket.listed = None
    if not bucket.instances and values:
        del buckets[values]
