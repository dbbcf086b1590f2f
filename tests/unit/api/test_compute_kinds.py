"""What the models of the compute and data wings accept, refuse and fill in; tests/kube asks the API server the same."""

from __future__ import annotations

import copy
import json
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError
from tests.unit.api.kinds import CORPORA, INVALID, MODELS, UNKNOWN, VALID, made
from tests.unit.api.test_functionservice import written_path

from cloudmesh.api.cloudaccount import CloudAccount
from cloudmesh.api.crds import KINDS, make_crd
from cloudmesh.api.datastore import PLACES, DataStore
from cloudmesh.api.lint import MAX_BYTES, lint_crd
from cloudmesh.api.machines import Range
from cloudmesh.api.names import API_VERSION, PLURALS
from cloudmesh.api.virtualcluster import Pool, VirtualCluster
from cloudmesh.api.virtualcluster_status import Cost, VirtualClusterStatus
from cloudmesh.api.virtualdirectory import VirtualDirectory
from cloudmesh.api.virtualmachine import VirtualMachine
from cloudmesh.policy.model import Mode
from cloudmesh.policy.rules import known_rules
from cloudmesh.policy.scores import known_scores

EXAMPLES = Path(__file__).resolve().parents[3] / "manifests/examples"


@pytest.mark.parametrize(("kind", "name"), VALID)
def test_accepts_what_is_right(kind: str, name: str) -> None:
    spec = CORPORA[kind].valid[name]
    before = copy.deepcopy(spec)
    read = MODELS[kind].model_validate(made(kind, "a", spec), extra="forbid")
    assert spec == before
    assert MODELS[kind].model_validate(read.to_dict()) == read  # nothing is lost, empty members of unions neither


@pytest.mark.parametrize(("kind", "name"), INVALID)
def test_refuses_what_is_wrong(kind: str, name: str) -> None:
    bad = CORPORA[kind].invalid[name]
    with pytest.raises(ValidationError) as caught:
        MODELS[kind].model_validate(made(kind, "a", bad.spec), extra="forbid")
    assert bad.message in str(caught.value)
    if not bad.message:
        # The server names an item of a set that is there twice; the model names the set.
        assert any(path.startswith(bad.field.removesuffix("[1]")) for path in written_path(caught.value))


def test_there_are_many_and_none_twice() -> None:
    texts = [json.dumps([kind, CORPORA[kind].invalid[name].spec], sort_keys=True) for kind, name in INVALID]
    assert len(texts) == len(set(texts)) >= 300


@pytest.mark.parametrize(("kind", "name"), UNKNOWN)
def test_two_readers(kind: str, name: str) -> None:
    spec, field = CORPORA[kind].unknown[name]
    with pytest.raises(ValidationError) as caught:
        MODELS[kind].model_validate(made(kind, "a", spec), extra="forbid")
    assert field in written_path(caught.value)
    if "{}" not in str(spec):
        read = MODELS[kind].model_validate(made(kind, "a", spec))
        assert repr(field.rpartition(".")[2]) not in str(read.to_dict()["spec"])


@pytest.mark.parametrize("model", KINDS, ids=lambda model: model.__name__)
def test_conventions(model: Any) -> None:
    crd = make_crd(model)
    assert lint_crd(crd) == []
    assert len(json.dumps(crd)) < MAX_BYTES
    assert PLURALS[model.CRD.kind] == model.CRD.plural
    assert model.__name__ == model.CRD.kind


@pytest.mark.parametrize(
    ("kind", "short", "columns"),
    [
        ("VirtualCluster", "vc", "READY REASON DESIRED READY-N CLOUDS $/H ACCRUED AGE"),
        ("VirtualMachine", "cmvm", "READY REASON CLUSTER ACCOUNT TYPE STATE HOST $/H AGE"),
        ("CloudAccount", "cmacc", "READY REASON KIND REGION OFFERS $AGE RUNNING $/H AGE"),
        ("PlacementPolicy", "cmpol", "READY REASON MODE AGE"),
        ("PriceSheet", "cmprice", "READY REASON CURRENCY ITEMS AGE"),
        ("Budget", "cmbud", "READY REASON WITHIN AMOUNT CURRENCY SPENT RESERVED REMAINING AGE"),
        ("ClusterJob", "cmjob", "READY REASON CLUSTER RUNS RUNNING DONE FAILED AGE"),
        ("DataStore", "cmds", "READY REASON KIND ACCESS OBJECTS USED $/GIB-MONTH AGE"),
        ("VirtualDirectory", "vdir", "READY REASON FILES SIZE PENDING $/MONTH URL AGE"),
    ],
)
def test_columns(kind: str, short: str, columns: str) -> None:
    crd = make_crd(MODELS[kind])
    shown = crd["spec"]["versions"][0]["additionalPrinterColumns"]
    assert " ".join(c["name"].upper() for c in shown if not c.get("priority")) == columns
    assert crd["spec"]["names"]["shortNames"] == [short]


def test_scale_is_the_cluster_s() -> None:
    subresources = {k: make_crd(m)["spec"]["versions"][0]["subresources"] for k, m in MODELS.items()}
    assert {k for k, s in subresources.items() if "scale" in s} == {"FunctionService", "VirtualCluster"}
    assert subresources["VirtualCluster"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


@pytest.mark.parametrize("kind", CORPORA)
def test_names(kind: str) -> None:
    longest = 63 if kind == "VirtualMachine" else 48
    if kind == "VirtualCluster":
        longest = 45  # the default pool is called `workers`, and both have 52 together
    spec = next(iter(CORPORA[kind].valid.values()))
    for name in ("a", "a-0", "n" * longest):
        MODELS[kind].model_validate(made(kind, name, spec))
    for name in ("1a", "a.b", "A", "a-", "", "a\n", "n" * (longest + 1)):
        with pytest.raises(ValidationError) as caught:
            MODELS[kind].model_validate(made(kind, name, spec))
        assert "`metadata.name`" in str(caught.value)


def test_cluster_and_pool_share_52_characters() -> None:
    spec = {"pools": [{"name": "p" * 12}]}
    VirtualCluster.model_validate(made("VirtualCluster", "n" * 40, spec))
    with pytest.raises(ValidationError) as caught:
        VirtualCluster.model_validate(made("VirtualCluster", "n" * 41, spec))
    assert "at most 52 characters together" in str(caught.value)


def test_defaults_of_a_cluster() -> None:
    read = VirtualCluster.model_validate(made("VirtualCluster", "a", {}))
    assert read.to_dict()["spec"] == {
        "replicas": 1,
        "lifecycle": {"state": "Running"},
        "deletionPolicy": "Delete",
        "apply": {"mode": "Auto"},
        "access": {"outputs": ["SSHConfigSecret"]},
        "pools": [
            {
                "name": "workers",
                "purchase": {"baseOnDemand": 0, "aboveBase": "OnDemand"},
                "where": {"spread": "None", "colocate": "None"},
                "alternatives": [{"name": "any", "countsAs": 1}],
                "health": {
                    "startupTimeoutSeconds": 600,
                    "unhealthyAfterSeconds": 120,
                    "remediation": "Replace",
                    "maxUnhealthy": "40%",
                },
                "strategy": {"maxSurge": 1, "maxUnavailable": 0},
            }
        ],
    }


@pytest.mark.parametrize(
    ("spec", "bootstrap", "same_network"),
    [
        ({}, "ssh", False),
        ({"bootstrap": {"ssh": {}}}, "ssh", False),
        ({"network": {"mode": "SameNetwork"}}, "ssh", True),
        ({"bootstrap": {"slurm": {}}}, "slurm", True),
        ({"bootstrap": {"script": {"configMapRef": {"name": "a"}}}}, "script", False),
        ({"network": {"mode": "PublicAddress"}}, "ssh", False),
    ],
)
def test_what_a_cluster_asks_for(spec: dict[str, Any], bootstrap: str, same_network: bool) -> None:
    read = VirtualCluster.model_validate(made("VirtualCluster", "a", spec)).spec
    assert (read.bootstrap_kind, read.same_network) == (bootstrap, same_network)


def test_replicas_of_a_pool() -> None:
    spec = VirtualCluster.model_validate(
        made("VirtualCluster", "a", {"replicas": 7, "pools": [{"name": "a", "replicas": 2}, {"name": "b"}]})
    ).spec
    assert [spec.replicas_of(pool) for pool in spec.pools] == [2, 7]
    assert spec.replicas_of(Pool(name="c", replicas=0)) == 0


@pytest.mark.parametrize("cloud", ["aws", "kubernetes", "memory", "plugin", "ssh"])
def test_cloud_of_an_account(cloud: str) -> None:
    spec = next(spec for spec in CORPORA["CloudAccount"].valid.values() if cloud in spec)
    read = CloudAccount.model_validate(made("CloudAccount", "a", spec))
    assert read.spec.cloud == cloud
    assert cloud in read.to_dict()["spec"]


def test_range_is_exact() -> None:
    assert Range(min="500m").bounds() == (Fraction(1, 2), None)
    assert Range(max="1Gi").bounds() == (Fraction(0), Fraction(2**30))


def test_defaults_of_a_directory() -> None:
    read = VirtualDirectory.model_validate(made("VirtualDirectory", "a", {"stores": [{"name": "nas"}]}))
    assert read.to_dict()["spec"] == {
        "stores": [{"name": "nas"}],
        "placement": {
            "rules": [
                {"name": "default", "minCopies": 1, "spread": "Store", "prefer": "Balanced", "weakCopies": "Ignore"}
            ],
        },
        "apply": {"mode": "Auto"},
        "versions": {"keep": 0, "trashSeconds": 2592000},
        "settleNames": "WhenCheap",
        "verify": {"everySeconds": 2592000},
        "adopt": "Existing",
        "deletionPolicy": "Retain",
        "catalog": {"sqlite": {"storage": "5Gi"}},
        "expose": {"auth": {"kubernetes": "Enabled", "anonymous": "None"}, "web": "Enabled", "webdav": "Enabled"},
    }


def test_kind_of_a_store() -> None:
    for kind in PLACES:
        spec = next(spec for spec in CORPORA["DataStore"].valid.values() if kind in spec)
        read = DataStore.model_validate(made("DataStore", "a", spec)).spec
        assert read.kind == kind and type(read.place) is PLACES[kind]


def test_empty_members_stay_and_empty_rest_goes() -> None:
    read = VirtualCluster.model_validate(made("VirtualCluster", "a", {"bootstrap": {"slurm": {}}, "access": {}}))
    spec = read.to_dict()["spec"]
    assert spec["bootstrap"] == {"slurm": {}}
    assert "accounts" not in spec
    machine = VirtualMachine.model_validate(
        made("VirtualMachine", "a", {"accountRef": {"name": "x"}, "offer": {"type": "t"}, "access": {}})
    )
    assert "access" not in machine.to_dict()["spec"]


def test_status_leaves_out_what_is_empty() -> None:
    status = VirtualClusterStatus(replicas=0, cost=Cost(currency="USD", hourly="0.05"))
    assert status.to_dict() == {"replicas": 0, "cost": {"currency": "USD", "hourly": "0.05"}}


def test_names_are_those_that_the_scheduler_knows() -> None:
    policy = make_crd(MODELS["PlacementPolicy"])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = policy["properties"]["spec"]["properties"]
    names = {part: spec[part]["items"]["properties"]["name"]["enum"] for part in ("filters", "scores")}
    assert sorted(names["filters"]) == list(known_rules())
    assert sorted(names["scores"]) == list(known_scores())
    assert tuple(spec["mode"]["enum"]) == get_args(Mode)


def test_examples_are_valid() -> None:
    seen: set[str] = set()
    for file in sorted([*EXAMPLES.glob("clusters/*.yaml"), *EXAMPLES.glob("directories/*.yaml")]):
        for obj in yaml.safe_load_all(file.read_text()):
            if obj["apiVersion"] == API_VERSION:
                MODELS[obj["kind"]].model_validate(obj, extra="forbid")
                seen.add(obj["kind"])
    assert seen == CORPORA.keys()


def test_each_kind_of_store_has_an_example() -> None:
    documents = [d for file in EXAMPLES.glob("directories/*.yaml") for d in yaml.safe_load_all(file.read_text())]
    stores = [document["spec"] for document in documents if document["kind"] == "DataStore"]
    assert {kind for spec in stores for kind in PLACES if kind in spec} == PLACES.keys() - {"plugin"}
    assert {way for spec in stores for way in spec.get("credentials", ())} == {"secretRef", "workloadIdentity"}
