"""Power Console: what the first process of a Pod wrote."""

from __future__ import annotations

from cloudmesh.compute.providers.kubernetes.core import PodCore
from cloudmesh.compute.providers.kubernetes.pods import CONTAINER
from cloudmesh.engine import InvalidRequest

LINES = 1000


class Console(PodCore):
    """Reads the end of a Pod's log."""

    async def console_output(self, node_id: str) -> str:
        """The last lines, newest last; empty while the container hasn't started.

        Raises:
            NotFound: The Pod is gone.
        """
        pod = await self.read(node_id)
        try:
            return await self.kube.read_log(
                self.settings.namespace, pod["metadata"]["name"], container=CONTAINER, lines=LINES
            )
        except InvalidRequest as error:
            if "waiting to start" in str(error) or "is not available" in str(error):
                return ""
            raise
