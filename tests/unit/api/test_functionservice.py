"""What the models accept, refuse and fill in; tests/kube asks the API server the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError
from tests.unit.api.corpus import BAD_NAMES, GOOD_NAMES, INVALID, NAME_MESSAGE, UNKNOWN, VALID, Bad, make_object, spec

from cloudmesh.api.functionservice import FunctionService
from cloudmesh.api.functionservice_status import Build, FunctionServiceStatus


def written_path(error: ValidationError) -> set[str]:
    """Paths of all errors as the API server writes them."""
    paths = set()
    for item in error.errors():
        path = ""
        for part in item["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
        paths.add(path.lstrip("."))
    return paths


@pytest.mark.parametrize("name", VALID)
def test_accepts_what_is_right(name: str) -> None:
    before = copy.deepcopy(VALID[name])
    FunctionService.model_validate(make_object(name, VALID[name]), extra="forbid")
    assert VALID[name] == before


@pytest.mark.parametrize(("name", "bad"), INVALID.items(), ids=INVALID)
def test_refuses_what_is_wrong(name: str, bad: Bad) -> None:
    with pytest.raises(ValidationError) as caught:
        FunctionService.model_validate(make_object(name, bad.spec), extra="forbid")
    assert bad.message in str(caught.value)
    if not bad.message:
        # The server names an item of a set that is there twice; the model names the set.
        assert any(path.startswith(bad.field.removesuffix("[1]")) for path in written_path(caught.value))


@pytest.mark.parametrize(("name", "unknown"), UNKNOWN.items(), ids=UNKNOWN)
def test_two_readers(name: str, unknown: tuple[dict[str, Any], str]) -> None:
    body, field = unknown
    with pytest.raises(ValidationError) as caught:
        FunctionService.model_validate(make_object(name, body), extra="forbid")
    assert written_path(caught.value) == {field}
    read = FunctionService.model_validate(make_object(name, body))
    assert repr(field.rpartition(".")[2]) not in str(read.to_dict())


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(name: str) -> None:
    FunctionService.model_validate(make_object(name, spec()))


@pytest.mark.parametrize("name", [*BAD_NAMES, "", "a\n", "-a", "a-", "A", "é"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        FunctionService.model_validate(make_object(name, spec()))
    assert NAME_MESSAGE in str(caught.value)


def test_defaults() -> None:
    read = FunctionService.model_validate(make_object("my-stats", spec()))
    assert read.to_dict()["spec"] == {
        "replicas": 1,
        "source": spec()["source"],
        "expose": {"functions": {"names": ["*"]}, "basePath": "/cloudmesh"},
        "python": {"version": "3.11"},
        "image": {"platforms": ["linux/amd64"]},
        "runtime": {"timeoutSeconds": 30, "concurrency": 100, "maxBodyBytes": 10485760},
        "revisionHistoryLimit": 10,
    }
    assert read.module == "my_stats"
    assert (
        FunctionService.model_validate(make_object("a", {"source": {"inline": "x", "module": "cpu"}})).module == "cpu"
    )


def test_reads_what_the_server_returns() -> None:
    obj = make_object("a", spec()) | {"status": {"conditions": [], "newer": 1}}
    obj["metadata"] |= {
        "namespace": "n",
        "uid": "u",
        "generation": 3,
        "resourceVersion": "17",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": None,
        "managedFields": [{"manager": "kubectl"}],
        "annotations": {"cloudmesh.org/paused": "true"},
        "somethingNew": {},
    }
    read = FunctionService.model_validate(obj)
    assert (read.metadata.namespace, read.metadata.uid, read.metadata.generation) == ("n", "u", 3)
    assert read.metadata.deletion_timestamp is None
    assert FunctionService.model_validate(read.to_dict()) == read


def test_models_are_frozen() -> None:
    read = FunctionService.model_validate(make_object("a", spec()))
    with pytest.raises(ValidationError):
        read.spec.replicas = 2  # type: ignore[misc]


def test_status_leaves_out_what_is_empty() -> None:
    status = FunctionServiceStatus(observed_generation=1, build=Build(reused=False, seconds=0.41234, uploaded_bytes=0))
    assert status.to_dict() == {
        "observedGeneration": 1,
        "build": {"reused": False, "seconds": "0.412", "uploadedBytes": 0},
    }
    with pytest.raises(ValidationError):
        Build(seconds="soon")
