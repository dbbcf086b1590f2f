"""The cases; importing this registers them."""

from cloudmesh.testing.stores.cases import broken, conditions, listing, powers, reading, writing

__all__ = ["broken", "conditions", "listing", "powers", "reading", "writing"]
