"""Power Release: a Pod that outlives the VirtualMachine that it was made for."""

from __future__ import annotations

from cloudmesh.api.names import LABEL_MANAGED_BY
from cloudmesh.compute.providers.kubernetes.core import POD, PodCore
from cloudmesh.compute.providers.kubernetes.nodes import split_id
from cloudmesh.compute.providers.kubernetes.pods import ANNOTATION_MADE, ANNOTATION_TAGS, join_tags, split_tags
from cloudmesh.compute.tokens import PREFIX, TAG_UID
from cloudmesh.engine import NotFound


class Release(PodCore):
    """Without its owner a Pod isn't collected, and without our labels it isn't listed."""

    async def release_node(self, node_id: str) -> None:
        """Takes owner and tags off at once; the Pod goes on. One that is gone is fine."""
        try:
            meta = (await self.read(node_id))["metadata"]
            labels = meta.get("labels") or {}
            theirs = {key: value for key, value in join_tags(meta).items() if not key.startswith(PREFIX)}
            owners = [owner for owner in meta.get("ownerReferences") or () if owner.get("uid") != labels.get(TAG_UID)]
            patch = {
                "metadata": {
                    "uid": meta["uid"],
                    "ownerReferences": owners or None,
                    "labels": {key: None for key in labels if key.startswith(PREFIX) or key == LABEL_MANAGED_BY},
                    "annotations": {
                        ANNOTATION_MADE: None,
                        ANNOTATION_TAGS: split_tags(theirs)[1].get(ANNOTATION_TAGS),
                    },
                }
            }
            await self.kube.patch(POD, self.settings.namespace, split_id(node_id)[0], patch)
        except NotFound:
            return
