"""Image aliases of an account: what offers carry, what a check says, and what a cluster is told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.contract.compute.aws.harness import ARM_IMAGE
from tests.contract.compute.aws.test_cluster import AwsLab
from tests.contract.compute.aws.test_provider import CREDENTIALS, IMAGE, context, spec_of

from cloudmesh.api import names
from cloudmesh.compute.__main__ import main
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.providers.aws import AwsProvider, make
from cloudmesh.engine import InvalidRequest
from cloudmesh.testing.proxy import FaultProxy

NOBODYS = "ami-0123456789abcdef0"
DEFAULT_CLUSTER = Path(__file__).resolve().parents[4] / "manifests/examples/clusters/default.yaml"


def provider(aws: FaultProxy, images: dict[str, str]) -> AwsProvider:
    types = ["t3.micro", "t4g.micro"]
    made = make(dataclasses.replace(context(aws, instanceTypes=types), images=images))
    assert isinstance(made, AwsProvider)
    return made


async def aliases(ec2: AwsProvider) -> dict[str, frozenset[str] | None]:
    found = {offer.type: offer.images for offer in await ec2.offers()}
    await ec2.close()
    return found


async def test_offers_carry_the_aliases_of_their_architecture(aws: FaultProxy) -> None:
    found = await aliases(provider(aws, {"x86": IMAGE, "default": IMAGE, "arm": ARM_IMAGE, "gone": NOBODYS}))
    assert found == {"t3.micro": {"x86", "default", ""}, "t4g.micro": {"arm"}}
    assert not aws.dialect.invalid  # type: ignore[attr-defined]


async def test_without_aliases_no_image_can_be_had_and_nothing_is_asked(aws: FaultProxy) -> None:
    assert await aliases(provider(aws, {})) == {"t3.micro": frozenset(), "t4g.micro": frozenset()}
    assert not aws.count("DescribeImages")


async def test_where_filters_are_ignored_other_images_are_nobodys_alias(aws: FaultProxy) -> None:
    aws.dialect.ignore_filters = True  # type: ignore[attr-defined]
    assert (await aliases(provider(aws, {"x86": IMAGE, "gone": NOBODYS})))["t3.micro"] == {"x86"}


@pytest.mark.parametrize(
    ("images", "ok", "words"),
    [
        ({"x86": IMAGE, "arm": ARM_IMAGE}, True, "arm for arm64, x86 for amd64"),
        ({"x86": IMAGE, "gone": NOBODYS}, False, f"gone: there is no image {NOBODYS} in us-east-1 that this account"),
        ({}, False, "spec.images names no image"),
    ],
)
async def test_a_check_names_the_alias_that_stands_for_nothing(
    aws: FaultProxy, images: dict[str, str], ok: bool, words: str
) -> None:
    ec2 = provider(aws, images)
    (finding,) = [finding for finding in await ec2.check() if finding.subject == "images"]
    await ec2.close()
    assert (finding.ok, finding.known, finding.fatal) == (ok, True, ok)
    assert words in finding.message


@pytest.mark.parametrize(
    ("images", "type_", "image"),
    [
        ({"gone": NOBODYS, "arm": ARM_IMAGE}, "t4g.micro", ARM_IMAGE),
        ({"arm": ARM_IMAGE, "x86": IMAGE}, "t3.micro", IMAGE),
    ],
)
async def test_a_check_tries_machines_with_a_type_and_an_image_that_go_together(
    aws: FaultProxy, images: dict[str, str], type_: str, image: str
) -> None:
    ec2 = provider(aws, images)
    findings = {finding.subject: finding for finding in await ec2.check()}
    await ec2.close()
    assert findings["RunInstances"].ok, findings["RunInstances"].message
    (tried,) = [call.parameters for call, _ in aws.calls if call.operation == "RunInstances"]
    assert (tried["InstanceType"], tried["ImageId"]) == (type_, image)


async def test_a_machine_that_names_no_image_is_made_of_the_default(aws: FaultProxy) -> None:
    ec2 = provider(aws, {"default": IMAGE})
    spec = dataclasses.replace(await spec_of(ec2, "plain"), image="")
    assert (await ec2.ensure_node(spec)).image == ec2.default_image == IMAGE
    await ec2.close()
    bare = provider(aws, {"x86": IMAGE})
    with pytest.raises(InvalidRequest, match="alias 'default'"):
        await bare.ensure_node(dataclasses.replace(spec, token="other"))
    await bare.close()


async def test_the_emulator_refuses_the_wrong_architecture_as_ec2_does(aws: FaultProxy) -> None:
    ec2 = provider(aws, {})
    spec = dataclasses.replace(await spec_of(ec2, "wrong"), image=ARM_IMAGE)
    with pytest.raises(InvalidRequest, match="InvalidParameterValue: The architecture 'x86_64'"):
        await ec2.ensure_node(spec)
    await ec2.close()


class ArmLab(AwsLab):
    """With machines of Graviton only."""

    def __init__(self, proxy: FaultProxy, images: dict[str, str]) -> None:
        super().__init__(proxy)
        account = self.api.get(CLOUD_ACCOUNT, "ns", "aws")
        assert account is not None
        spec = account["spec"] | {"images": images}
        spec["aws"] = spec["aws"] | {"instanceTypes": ["t4g.micro"]}
        self.api.put(CLOUD_ACCOUNT, account | {"spec": spec})


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        ({"image": {"name": "debian"}}, "image debian can't be had: account aws has arm for arm64"),
        ({"image": {"name": "fedora"}}, "image fedora can't be had: account aws has arm for arm64"),
        ({"image": None}, "the pool names no image, and there's no default: account aws has arm for arm64"),
    ],
)
async def test_a_cluster_is_told_why_before_it_has_a_price(
    aws: FaultProxy, monkeypatch: pytest.MonkeyPatch, pool: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "true")
    lab = ArmLab(aws, {"debian": IMAGE, "arm": ARM_IMAGE})
    lab.make_cluster(**pool)
    async with lab.operator():
        await lab.until(lambda: bool(lab.status(VIRTUAL_CLUSTER, "lab").get("placement", {}).get("rejected")))
    status = lab.status(VIRTUAL_CLUSTER, "lab")
    assert any(words in entry["example"] for entry in status["placement"]["rejected"])
    assert not status.get("quote")
    assert not lab.api.all(VIRTUAL_MACHINE)
    assert not [call for call, _ in aws.calls if call.operation == "RunInstances" and not call.parameters.get("DryRun")]


def quote(path: Path, aws: FaultProxy, images: dict[str, str]) -> int:
    """The default example on an account of EC2, quoted by the command."""
    cluster = yaml.safe_load(DEFAULT_CLUSTER.read_text())
    cluster["spec"]["accounts"] = [{"name": "aws"}]
    account = {
        "apiVersion": "cloudmesh.org/v1alpha1", "kind": "CloudAccount", "metadata": {"name": "aws"},
        "spec": {
            "aws": {"region": "us-east-1", "endpoint": aws.url, "instanceTypes": ["t3.micro", "t4g.micro"]},
            "credentials": {"secretRef": {"name": "aws"}}, "images": images,
        },
    }  # fmt: skip
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws"}, "type": names.SECRET_TYPE_CREDENTIALS,
        "stringData": {key: value.decode() for key, value in CREDENTIALS.items()},
    }  # fmt: skip
    path.write_text(yaml.safe_dump_all([cluster, account, secret]))
    return main(["quote", "-o", "json", str(path)])


async def test_the_default_example_needs_a_default_image(
    aws: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "true")
    assert await asyncio.to_thread(quote, tmp_path / "a.yaml", aws, {"x86": IMAGE}) == 1
    told = capsys.readouterr()
    assert "the pool names no image, and there's no default: account aws has" in told.out + told.err
    assert await asyncio.to_thread(quote, tmp_path / "b.yaml", aws, {"default": IMAGE}) == 0
    (priced,) = json.loads(capsys.readouterr().out)
    assert float(priced["hourly"]) > 0
