"""The corpora of the compute and data wings by kind, for tests of the models and of the API server."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.unit.api import corpus_accounts as accounts
from tests.unit.api import corpus_clusters as clusters
from tests.unit.api import corpus_directories as directories
from tests.unit.api.corpus import Bad, Spec

from cloudmesh.api.crds import KINDS
from cloudmesh.api.schema import Model


class Corpus(NamedTuple):
    """Specs of one kind: good ones, bad ones, and such with fields that don't exist."""

    valid: dict[str, Spec]
    invalid: dict[str, Bad]
    unknown: dict[str, tuple[Spec, str]]


CORPORA: dict[str, Corpus] = {
    "VirtualCluster": Corpus(clusters.CLUSTERS, clusters.BAD_CLUSTERS, clusters.UNKNOWN_CLUSTERS),
    "VirtualMachine": Corpus(clusters.MACHINES, clusters.BAD_MACHINES, clusters.UNKNOWN_MACHINES),
    "CloudAccount": Corpus(accounts.ACCOUNTS, accounts.BAD_ACCOUNTS, accounts.UNKNOWN_ACCOUNTS),
    "PlacementPolicy": Corpus(clusters.POLICIES, clusters.BAD_POLICIES, clusters.UNKNOWN_POLICIES),
    "PriceSheet": Corpus(accounts.SHEETS, accounts.BAD_SHEETS, accounts.UNKNOWN_SHEETS),
    "Budget": Corpus(accounts.BUDGETS, accounts.BAD_BUDGETS, accounts.UNKNOWN_BUDGETS),
    "ClusterJob": Corpus(accounts.JOBS, accounts.BAD_JOBS, accounts.UNKNOWN_JOBS),
    "DataStore": Corpus(directories.STORES, directories.BAD_STORES, directories.UNKNOWN_STORES),
    "VirtualDirectory": Corpus(directories.DIRECTORIES, directories.BAD_DIRECTORIES, directories.UNKNOWN_DIRECTORIES),
}
MODELS: dict[str, type[Model]] = {model.CRD.kind: model for model in KINDS}  # type: ignore[attr-defined]
CHANGES = {**clusters.CHANGES, **accounts.CHANGES, **directories.CHANGES}
"""Kind, spec before, spec after, message: updates that are refused."""
FINE_CHANGES = {**clusters.FINE_CHANGES, **accounts.FINE_CHANGES, **directories.FINE_CHANGES}
"""Kind, spec before, spec after: updates that are taken."""

VALID = [(kind, name) for kind, corpus in CORPORA.items() for name in corpus.valid]
INVALID = [(kind, name) for kind, corpus in CORPORA.items() for name in corpus.invalid]
UNKNOWN = [(kind, name) for kind, corpus in CORPORA.items() for name in corpus.unknown]


def made(kind: str, name: str, spec: Any, **type_: str) -> dict[str, Any]:
    """An object of that kind; no spec at all for None."""
    obj: dict[str, Any] = {"apiVersion": "cloudmesh.org/v1alpha1", "kind": kind, **type_, "metadata": {"name": name}}
    return obj if spec is None else {**obj, "spec": spec}
