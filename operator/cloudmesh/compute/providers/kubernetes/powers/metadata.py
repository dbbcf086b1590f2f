"""Power Metadata: tags of a user's own, in an annotation of the Pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cloudmesh.compute.providers.kubernetes.core import POD, PodCore
from cloudmesh.compute.providers.kubernetes.nodes import split_id
from cloudmesh.compute.providers.kubernetes.pods import ANNOTATION_TAGS, join_tags, split_tags
from cloudmesh.compute.tokens import PREFIX
from cloudmesh.engine import InvalidRequest


class Metadata(PodCore):
    """Reads, changes and writes the tags of one Pod at one resourceVersion."""

    async def set_metadata(self, node_id: str, tags: Mapping[str, str]) -> None:
        """Sets or replaces tags.

        Raises:
            Conflict: The Pod is gone, or changed at this very moment.
            InvalidRequest: A tag is the operator's own.
        """
        await self._change(node_id, tags, ())

    async def delete_metadata(self, node_id: str, keys: Sequence[str]) -> None:
        """Removes tags; absent ones are fine."""
        await self._change(node_id, {}, keys)

    async def _change(self, node_id: str, tags: Mapping[str, str], without: Iterable[str]) -> None:
        gone = set(without)
        if ours := sorted(key for key in {*tags, *gone} if key.startswith(PREFIX)):
            raise InvalidRequest(f"the tags {', '.join(ours)} are the operator's own")
        meta = (await self.read(node_id))["metadata"]
        old = join_tags(meta)
        new = {key: value for key, value in {**old, **tags}.items() if key not in gone}
        if new == old:
            return
        _, annotations = split_tags(new)
        patch = {
            "metadata": {
                "resourceVersion": meta["resourceVersion"],
                "annotations": {ANNOTATION_TAGS: annotations.get(ANNOTATION_TAGS)},
            }
        }
        await self.kube.patch(POD, self.settings.namespace, split_id(node_id)[0], patch)
