"""The command without a cluster: the real command, on files."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute.__main__ import main
from cloudmesh.compute.command.documents import Mistake, read
from cloudmesh.compute.plan import plan, request
from cloudmesh.compute.ports import Finding
from cloudmesh.compute.prices import Catalogue, price_offers
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.compute.prices.money import to_nanos
from cloudmesh.compute.providers.memory.provider import MemoryProvider
from cloudmesh.compute.providers.registry import Context, find_maker
from cloudmesh.compute.quote import lines_of, make_quote
from cloudmesh.compute.reading import read_cluster
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.policy.model import Policy
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.place import place

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "manifests/examples/clusters"
AT = "2026-11-23T05:00:00Z"
CLOUDS = itertools.count()
"""Clouds in memory live as long as the process: each account gets one of its own."""


def write(folder: Path, *documents: dict[str, Any], name: str = "files.yaml") -> str:
    path = folder / name
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


def obj(kind: str, name: str, spec: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {"apiVersion": "cloudmesh.org/v1alpha1", "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}


def account(name: str = "cloud", spec: dict[str, Any] | None = None, **settings: str) -> dict[str, Any]:
    settings = {"cloud": f"command-{next(CLOUDS)}", **settings}
    return obj("CloudAccount", name, {"memory": {"settings": settings}} | (spec or {}))


def cluster(name: str = "lab", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return obj(
        "VirtualCluster", name, {"accounts": [{"name": "cloud"}]} | spec, **({"labels": labels} if labels else {})
    )


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    told = capsys.readouterr()
    return code, told.out, told.err


# -- the process itself ------------------------------------------------------------------------------------------------


def test_the_examples_are_planned_by_the_real_command() -> None:
    command = [sys.executable, "-m", "cloudmesh.compute"]
    env = {"PYTHONPATH": str(ROOT / "operator"), "PATH": ""}
    files = [str(EXAMPLES / name) for name in ("default.yaml", "slurm.yaml", "budget.yaml", "policy.yaml")]
    done = subprocess.run(
        [*command, "quote", "-o", "json", *files], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    quotes = {row["cluster"]: row for row in json.loads(done.stdout)}
    # small is half a vCPU and half a GiB, at 0.01 and 0.001 an hour
    assert quotes["lab"]["machines"] == 2 and quotes["lab"]["hourly"] == "0.011"
    assert quotes["hpc"]["machines"] == 3 and quotes["hpc"]["hourly"] == "0.0165"
    assert quotes["hpc"]["month"] == "12.05" and quotes["hpc"]["confidence"] == "declared"
    wrong = subprocess.run([*command, "price"], capture_output=True, text=True, env=env, check=False)
    assert wrong.returncode == 2 and "invalid choice" in wrong.stderr


def test_a_cluster_that_names_no_account_has_the_one_of_its_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["offers", "-o", "json", str(EXAMPLES / "default.yaml")]) == 0
    assert {row["account"] for row in json.loads(capsys.readouterr().out)} == {"pods"}
    assert main(["check", "-o", "json", str(EXAMPLES / "default.yaml")]) == 0
    assert [row["account"] for row in json.loads(capsys.readouterr().out)] == ["pods"]


def test_importing_the_wing_loads_no_sdk() -> None:
    code = "import sys, cloudmesh.compute; print([m for m in ('boto3', 'asyncssh', 'kubernetes') if m in sys.modules])"
    env = {"PYTHONPATH": str(ROOT / "operator"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "[]"


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_says_what_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "check", write(tmp_path, account()))
    assert code == 0 and not err
    assert [line.split()[:3] for line in out.splitlines()][:2] == [
        ["ACCOUNT", "KIND", "STATE"],
        ["cloud", "memory", "ok"],
    ]


def test_check_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = [{
        "name": "n1", "address": "n1.example.org", "user": "ada", "vcpu": "4", "memory": "8Gi",
        "hostKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBsQ0nfbgD2jS1EoU5nDqcGmSyMQKdzoyEyVVRyvA8bK",
    }]  # fmt: skip
    ssh = {"ssh": {"hosts": hosts}, "credentials": {"secretRef": {"name": "key"}}}
    data = {"ssh-privatekey": "sesame-open"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": data}

    def told(*documents: dict[str, Any]) -> list[dict[str, str]]:
        code, out, _ = run(capsys, "check", "-o", "json", write(tmp_path, *documents))
        assert code == 1 and "sesame-open" not in out
        found: list[dict[str, str]] = json.loads(out)
        return found

    campus = obj("CloudAccount", "campus", ssh)
    assert "Secret 'key' isn't in the files" in told(campus)[0]["message"]
    assert "must be of type" in told(campus, secret)[0]["message"]
    typed = secret | {"type": "kubernetes.io/ssh-auth"}
    assert "must list n1.example.org" in told(campus, typed)[0]["message"]
    loop = obj("CloudAccount", "campus", ssh | {"ssh": {"hosts": [hosts[0] | {"address": "127.0.0.1"}]}})
    assert "loopback" in told(loop, typed)[0]["message"]
    bad = told(account(bootSeconds="soon"))[0]
    assert bad["state"] == "failed" and "bootSeconds" in bad["message"]
    assert [row["subject"] for row in told(account(key="other")) if row["state"] == "failed"] == ["credentials"]


def test_what_is_not_known_is_no_failure_and_not_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(provider: MemoryProvider) -> list[Finding]:
        return [Finding("StopInstances", False, "not known: no machine to try it with", known=False)]

    monkeypatch.setattr(MemoryProvider, "check", check)
    code, out, _ = run(capsys, "check", "-o", "json", write(tmp_path, account()))
    assert code == 0
    assert [(row["state"], row["subject"]) for row in json.loads(out)] == [("unknown", "StopInstances")]


def test_what_only_the_cluster_can_tell_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", "-o", "json", str(EXAMPLES / "account-pods.yaml"))
    assert code == 0
    assert [row["state"] for row in json.loads(out)] == ["unchecked"]


# -- offers ------------------------------------------------------------------------------------------------------------


def offers(capsys: pytest.CaptureFixture[str], file: str, *more: str) -> list[dict[str, Any]]:
    code, out, err = run(capsys, "offers", "-o", "json", file, *more)
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_offers_have_prices_and_filters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, account())
    every = offers(capsys, file)
    assert len(every) == 64
    amounts = [float(row["hourly"]) for row in every]
    assert amounts == sorted(amounts) and amounts[0] > 0
    assert {row["purchase"] for row in offers(capsys, file, "--purchase", "Spot")} == {"Spot"}
    assert {row["region"] for row in offers(capsys, file, "--region", "*-2")} == {"region-2"}
    assert {row["zone"] for row in offers(capsys, file, "--zone", "region-2?")} == {"region-2a", "region-2b"}
    first = every[0]["type"]
    assert {row["type"] for row in offers(capsys, file, "--type", first)} == {first}
    assert all(float(row["hourly"]) <= 0.03 for row in offers(capsys, file, "--max-hourly", "0.03"))
    big = offers(capsys, file, "--min-vcpu", "4", "--min-memory", "16Gi", "--sort", "memory", "--limit", "3")
    assert len(big) == 3 and all(float(row["vcpu"]) >= 4 for row in big)
    assert offers(capsys, file, "--gpu", "h100") == []
    assert len(offers(capsys, file, "--account", "cloud", "--sort", "account")) == 64


def test_the_accounts_sheet_gives_the_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = {"match": {"type": "small"}, "hourly": "0", "validFrom": "2026-01-01T00:00:00Z"}
    sheet = obj("PriceSheet", "mine", {"items": [first, {"match": {"account": "p*"}, "hourly": 3}]})
    other = obj("PriceSheet", "aaa", {"currency": "EUR", "items": [{"hourly": "7"}]})
    pods = obj("CloudAccount", "pods", {"kubernetes": {}, "priceSheetRef": {"name": "mine"}})
    found = {row["type"]: row for row in offers(capsys, write(tmp_path, sheet, other, pods), "--at", AT)}
    assert (found["small"]["hourly"], found["small"]["asOf"]) == ("0", "2026-01-01")
    assert (found["large"]["hourly"], found["large"]["currency"]) == ("3", "USD"), "the account's own sheet comes first"
    assert found["small"]["source"] == "PriceSheet/mine" and found["small"]["confidence"] == "declared"


def test_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(EXAMPLES / "account-pods.yaml")
    code, out, _ = run(capsys, "offers", "-o", "csv", file)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and [row["type"] for row in rows] == ["small", "large"]
    assert rows[0]["vcpu"] == "0.25" and rows[0]["memory"] == "256Mi" and rows[1]["vcpu"] == "2"
    assert yaml.safe_load(run(capsys, "offers", "-o", "yaml", file)[1])[0]["type"] == "small"
    table = run(capsys, "offers", file)[1].splitlines()
    assert table[0].startswith("ACCOUNT   TYPE    REGION") and "0.00275" in table[1]


def test_what_cant_be_read_is_told_beside_what_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "offers", "-o", "json", write(tmp_path, account("bad", key="x"), account("good")))
    assert code == 1 and "account 'bad': " in err
    assert {row["account"] for row in json.loads(out)} == {"good"}


def test_the_catalogue_needs_no_account(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["offers", "--catalogue", "aws", "--region", "us-east-1", "--min-vcpu", "8", "--min-memory", "32Gi"]
    code, out, _ = run(capsys, *arguments, "--arch", "amd64", "--limit", "4", "-o", "json")
    rows = json.loads(out)
    assert code == 0 and len(rows) == 4
    assert all(row["confidence"] == "static" and row["region"] == "us-east-1" for row in rows)
    assert all(float(row["vcpu"]) >= 8 and row["arch"] == "amd64" for row in rows)
    code, _, err = run(capsys, "offers", "--catalogue", "nowhere")
    assert code == 1 and "no prices of 'nowhere'" in err


# -- plan and quote ----------------------------------------------------------------------------------------------------


def test_plan_names_machines_reasons_and_rejections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pools = [{"name": "workers", "alternatives": [{"name": "four", "machine": {"vcpu": {"min": "4"}}}]}]
    file = write(tmp_path, account(), cluster(replicas=3, pools=pools))
    code, out, err = run(capsys, "plan", "-o", "json", file)
    assert code == 0, err
    [found] = json.loads(out)
    assert [m["name"] for m in found["machines"]] == ["lab-workers-0", "lab-workers-1", "lab-workers-2"]
    assert all(m["why"] and m["hourly"] and m["account"] == "cloud" for m in found["machines"])
    assert any(r["filter"] == "Vcpu" and r["offers"] > 0 and r["example"] for r in found["rejected"])
    table = run(capsys, "plan", file)[1]
    assert "CLUSTER" in table and "REJECTED" not in table and "FILTER" in table


def test_the_quote_is_the_one_that_the_operator_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, account(cloud="same"), cluster(replicas=5))
    code, out, _ = run(capsys, "quote", "-o", "json", "--at", AT, file)
    [found] = json.loads(out)
    context = Context("default", "cloud", "", {"settings": {"cloud": "same"}}, defaults=ComputeSettings().defaults())
    offered = asyncio.run(_offers(context))
    priced = price_offers(offered, account="cloud", kind="memory", sheets=[], catalogue=Catalogue.load(), now=AT)
    meta = {"name": "lab", "namespace": "default"}
    wish = read_cluster(VirtualCluster.model_validate(cluster(replicas=5) | {"metadata": meta}))
    question = request(
        wish,
        plan(wish, (), to_seconds(AT)),
        accounts=["cloud"],
        policy=Policy(),
        max_hourly=None,
        account_limits={},
        blocks=(),
        currency="USD",
    )
    placement = place(question, OfferTable.from_offers(priced), now=AT)
    quote = make_quote(lines_of((), placement.decisions), to_seconds(AT))
    assert code == 0 and quote.hourly is not None
    assert found["machines"] == 5 and to_nanos(found["hourly"]) == quote.hourly
    assert found["hash"] == quote.hash and found["expiresAt"] == "2026-11-23T05:15:00Z"


async def _offers(context: Context) -> list[Any]:
    provider = find_maker("memory")(context)
    try:
        return list(await provider.offers())
    finally:
        await provider.close()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"maxHourlyCost": {"amount": "0.000001"}}, "OverMaxHourlyCost"),
        (
            {"pools": [{"name": "w", "alternatives": [{"name": "x", "machine": {"type": "no-such"}}]}]},
            "NoFeasibleOffer",
        ),
        ({"accounts": [{"name": "nowhere"}]}, "no account can be used (nowhere: not in the files)"),
        ({"accounts": None, "accountSelector": {"matchLabels": {"x": "y"}}}, "no account can be used"),
        ({"placement": {"policyRef": {"name": "none"}}}, "PlacementPolicy 'none' isn't in the files"),
    ],
)
def test_what_cant_be_had_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: dict[str, Any], said: str
) -> None:
    wanted = cluster(**spec)
    if wanted["spec"]["accounts"] is None:
        del wanted["spec"]["accounts"]
    code, _, err = run(capsys, "plan", write(tmp_path, account(), wanted))
    assert code == 1 and said in err and "VirtualCluster 'lab'" in err


def test_a_budget_of_the_files_is_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tight = obj("Budget", "tight", {"amount": "0.000001", "selector": {"matchLabels": {"team": "a"}}})
    code, _, err = run(capsys, "quote", write(tmp_path, account(), cluster(labels={"team": "a"}), tight))
    assert code == 1 and "Budget 'tight'" in err
    assert run(capsys, "quote", write(tmp_path, account(), cluster(labels={"team": "b"}), tight))[0] == 0
    spent = tight | {"spec": tight["spec"] | {"amount": "100"}, "status": {"spent": "101", "reserved": "0"}}
    code, _, err = run(capsys, "quote", write(tmp_path, account(), cluster(labels={"team": "a"}), spent))
    assert code == 1 and "101.0000 USD spent" in err


def test_an_account_that_fails_its_check_isnt_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = cluster(accounts=[{"name": "bad"}, {"name": "good"}])
    file = write(tmp_path, account("bad", key="x"), account("good"), wanted)
    code, out, err = run(capsys, "plan", "-o", "json", file)
    assert code == 0 and "account 'bad' can't be used" in err
    assert {m["account"] for m in json.loads(out)[0]["machines"]} == {"good"}


# -- wrong input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "files.yaml: line 1, column 5"),
        ("- a\n", "files.yaml: document 1: must be an object"),
        ("a: 1\n", "document 1: `apiVersion` and `kind` must be set"),
        ("apiVersion: cloudmesh.org/v1alpha1\nkind: Cluster\nmetadata: {name: x}\n", "there is no such kind"),
        ("apiVersion: cloudmesh.org/v1alpha1\nkind: Budget\n", "`metadata.name` must be set"),
        (
            "apiVersion: cloudmesh.org/v1alpha1\nkind: Budget\nmetadata: {name: x}\nspec: {amount: '-1'}\n",
            "document 1 (Budget 'x'): spec.amount: ",
        ),
        (
            "apiVersion: cloudmesh.org/v1alpha1\nkind: Budget\nmetadata: {name: x}\nspec: {amount: '1', amout: 2}\n",
            "(Budget 'x'): spec.amout: there is no such field",
        ),
        (
            "apiVersion: cloudmesh.org/v1alpha1\nkind: CloudAccount\nmetadata: {name: x}\nspec: {}\n",
            "must have exactly one of `aws`",
        ),
        (
            "apiVersion: cloudmesh.org/v1alpha1\nkind: PriceSheet\nmetadata: {name: x}\n"
            "spec: {items: [{hourly: '1'}, {hourly: cheap}]}\n",
            "spec.items[1].hourly: ",
        ),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {a: '!'}\n", "data.a: must be base64"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {a: 1}\n", "stringData.a: must be text"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: 5\n", "stringData: must be an object"),
    ],
)
def test_a_mistake_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "files.yaml").write_text(text)
    code, out, err = run(capsys, "check", str(tmp_path / "files.yaml"))
    assert code == 2 and said in err and not out
    assert all(line.startswith("cloudmesh.compute: ") for line in err.splitlines())


def test_objects_are_there_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "check", write(tmp_path, account(), account()))
    assert code == 2 and "document 2 (CloudAccount 'cloud'): is there twice" in err
    other = account()
    other["metadata"]["namespace"] = "elsewhere"
    assert run(capsys, "check", write(tmp_path, account(), other))[0] == 0


def test_files_that_arent_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "check", str(tmp_path / "no.yaml"))
    assert code == 2 and "no.yaml: No such file" in err
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    assert run(capsys, "check", str(tmp_path / "binary.yaml"))[0] == 2


def test_lists_folders_strangers_and_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {"apiVersion": "v1", "kind": "List", "items": [account("a"), account("b")]}
    stranger = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}
    write(tmp_path, many, stranger)
    write(tmp_path, account("c"), name="more.yml")
    (tmp_path / "notes.txt").write_text("{")
    found = read([str(tmp_path)], "lab")
    assert sorted(found.models["CloudAccount"]) == [("lab", "a"), ("lab", "b"), ("lab", "c")]
    monkeypatch.setattr("sys.stdin", io.StringIO(yaml.safe_dump(account("d"))))
    code, out, _ = run(capsys, "check", "-")
    assert code == 0 and out.splitlines()[1].startswith("d ")
    write(tmp_path, {"apiVersion": "v1", "kind": "List", "items": [1]})
    with pytest.raises(Mistake, match="item of the list"):
        read([str(tmp_path)], "lab")


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    data = {"key": base64.b64encode(b"very-secret").decode()}
    file = write(tmp_path, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data})
    found = read([file], "default")
    assert found.secrets["default", "s"] == {"key": b"very-secret"}
    assert "very-secret" not in repr(found) and data["key"] not in repr(found)


@pytest.mark.parametrize(
    "arguments",
    [
        ["offers", "x.yaml", "--max-hourly", "cheap"],
        ["offers", "x.yaml", "--min-memory", "much"],
        ["offers", "x.yaml", "--limit", "-1"],
        ["quote", "x.yaml", "--at", "now"],
        ["quote", "x.yaml", "-o", "xml"],
        ["quote"],
        ["offers"],
    ],
)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "error: " in capsys.readouterr().err


def test_without_a_cluster_there_is_no_quote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "quote", write(tmp_path, account()))
    assert code == 1 and "no such VirtualCluster" in err
    assert "no CloudAccount 'other'" in run(capsys, "check", write(tmp_path, account()), "--account", "other")[2]
