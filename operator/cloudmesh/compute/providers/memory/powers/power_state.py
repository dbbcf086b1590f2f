"""Powers StartStop and Suspend."""

from __future__ import annotations

from cloudmesh.compute.providers.memory.provider import MemoryProvider


class StartStop(MemoryProvider):
    """Stops a machine so that only its disk is paid, and starts it again."""

    async def stop_node(self, node_id: str) -> None:
        """Asks for a stop."""
        await self.call("StopInstance", lambda: self.cloud.change_power(node_id, ("Pending", "Running"), "Stopping"))

    async def start_node(self, node_id: str) -> None:
        """Asks for a start; one that runs or is about to is fine."""
        await self.call("StartInstance", lambda: self.cloud.start(node_id))


class Suspend(MemoryProvider):
    """Keeps a machine's memory while it sleeps."""

    async def suspend_node(self, node_id: str) -> None:
        """Asks for it."""
        await self.call("SuspendInstance", lambda: self.cloud.change_power(node_id, ("Running",), "Suspended"))

    async def resume_node(self, node_id: str) -> None:
        """Wakes it."""
        await self.call("ResumeInstance", lambda: self.cloud.change_power(node_id, ("Suspended",), "Running"))
