"""The optional powers of Pod machines: one a module."""

from __future__ import annotations

from cloudmesh.compute.providers.kubernetes.powers.catalogue import Catalogue
from cloudmesh.compute.providers.kubernetes.powers.console import Console
from cloudmesh.compute.providers.kubernetes.powers.groundwork import Groundwork
from cloudmesh.compute.providers.kubernetes.powers.metadata import Metadata
from cloudmesh.compute.providers.kubernetes.powers.release import Release


class PodProvider(Groundwork, Metadata, Release, Console, Catalogue):
    """Pods with all that they can."""
