"""The fault proxy in front of moto, seen by boto3: what AWS does and moto doesn't, and every fault."""

from __future__ import annotations

import asyncio
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from cloudmesh.testing.proxy import FaultProxy
from cloudmesh.testing.proxy.aws import AwsDialect

IMAGE = "ami-12c6146b"  # one that moto brings along


def client(proxy: FaultProxy, key: str = "AKIATEST", service: str = "ec2") -> Any:
    config = Config(
        retries={"max_attempts": 0, "mode": "standard"}, connect_timeout=5, read_timeout=60, parameter_validation=False
    )
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=proxy.url,
        aws_access_key_id=key,
        aws_secret_access_key="not-checked",
        config=config,
    )


async def call(function: Any, **parameters: Any) -> Any:
    return await asyncio.to_thread(function, **parameters)


async def run(ec2: Any, token: str = "", zone: str = "us-east-1a", **more: Any) -> list[str]:
    placement = {"AvailabilityZone": zone}
    extra = {"ClientToken": token} if token else {}
    answer = await call(
        ec2.run_instances,
        ImageId=IMAGE,
        InstanceType="t3.micro",
        MinCount=1,
        MaxCount=1,
        Placement=placement,
        **extra,
        **more,
    )
    return [instance["InstanceId"] for instance in answer["Instances"]]


async def all_ids(ec2: Any) -> set[str]:
    answer = await call(ec2.describe_instances)
    return {i["InstanceId"] for r in answer["Reservations"] for i in r["Instances"]}


async def test_one_token_makes_one_machine_in_its_zone(aws: FaultProxy) -> None:
    ec2 = client(aws)
    first = await run(ec2, "token-1")
    assert await run(ec2, "token-1") == first
    assert await all_ids(ec2) == set(first)
    with pytest.raises(botocore.exceptions.ClientError, match="IdempotentParameterMismatch"):
        await run(ec2, "token-1", KeyName="other")
    elsewhere = await run(ec2, "token-1", zone="us-east-1b")
    assert elsewhere != first
    await call(ec2.terminate_instances, InstanceIds=first)
    again = await call(
        ec2.run_instances,
        ImageId=IMAGE,
        InstanceType="t3.micro",
        MinCount=1,
        MaxCount=1,
        Placement={"AvailabilityZone": "us-east-1a"},
        ClientToken="token-1",
    )
    assert again["Instances"][0]["InstanceId"] == first[0]
    assert again["Instances"][0]["State"]["Name"] == "terminated"


async def test_a_cut_answer_leaves_a_machine_that_its_token_finds(aws: FaultProxy) -> None:
    ec2 = client(aws)
    aws.add("cut_after", "RunInstances")
    with pytest.raises(botocore.exceptions.BotoCoreError):
        await run(ec2, "token-2")
    found = await call(ec2.describe_instances, Filters=[{"Name": "client-token", "Values": ["token-2"]}])
    ids = [i["InstanceId"] for r in found["Reservations"] for i in r["Instances"]]
    assert len(ids) == 1
    assert await run(ec2, "token-2") == ids
    aws.add("cut_before", "RunInstances")
    with pytest.raises(botocore.exceptions.BotoCoreError):
        await run(ec2, "token-3")
    assert await all_ids(ec2) == set(ids)


async def test_filter_by_token_pages_and_lag(aws: FaultProxy) -> None:
    ec2 = client(aws)
    dialect: AwsDialect = aws.dialect
    made = [(await run(ec2, f"t{n}"))[0] for n in range(5)]
    await run(ec2, "stranger")
    dialect.page_size = 2
    pages = ec2.get_paginator("describe_instances").paginate()
    listed = await asyncio.to_thread(
        lambda: [[i["InstanceId"] for r in page["Reservations"] for i in r["Instances"]] for page in pages]
    )
    assert [len(page) for page in listed] == [2, 2, 2]
    found = await call(ec2.describe_instances, Filters=[{"Name": "client-token", "Values": ["t1", "t3"]}])
    assert {i["InstanceId"] for r in found["Reservations"] for i in r["Instances"]} == {made[1], made[3]}
    dialect.page_size = 1000
    dialect.lag_seconds = 1.0
    young = (await run(ec2, "young"))[0]
    assert young not in await all_ids(ec2)
    with pytest.raises(botocore.exceptions.ClientError, match=r"InvalidInstanceID\.NotFound"):
        await call(ec2.describe_instances, InstanceIds=[young])
    await asyncio.sleep(1.1)
    assert young in await all_ids(ec2)


async def test_faults_in_the_clouds_own_words(aws: FaultProxy) -> None:
    ec2 = client(aws)
    aws.add("answer", "RunInstances", status=500, code="InsufficientInstanceCapacity", message="no room")
    with pytest.raises(botocore.exceptions.ClientError) as capacity:
        await run(ec2, "a")
    assert capacity.value.response["Error"] == {"Code": "InsufficientInstanceCapacity", "Message": "no room"}
    aws.add("answer", "DescribeInstances", status=503, code="RequestLimitExceeded", retry_after=7)
    with pytest.raises(botocore.exceptions.ClientError) as limited:
        await all_ids(ec2)
    assert limited.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    aws.add("garbage", "DescribeInstances", status=500)
    with pytest.raises((botocore.exceptions.ClientError, botocore.parsers.ResponseParserError)):
        await all_ids(ec2)
    before = await all_ids(ec2)
    aws.add("stale", "DescribeInstances")
    made = await run(ec2, "b")
    assert await all_ids(ec2) == before
    assert await all_ids(ec2) == before | set(made)
    aws.add("duplicate", "RunInstances")
    twice = await run(ec2)  # botocore makes a token, which the back end gets twice
    assert await all_ids(ec2) == before | set(made) | set(twice)


async def test_strangers_and_unknown_parameters_are_refused(aws: FaultProxy) -> None:
    dialect: AwsDialect = aws.dialect
    dialect.access_keys = frozenset({"AKIATEST"})
    assert (await call(client(aws, service="sts").get_caller_identity))["Account"]
    for service, name in (("ec2", "describe_instances"), ("sts", "get_caller_identity")):
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            await call(getattr(client(aws, "AKIAOTHER", service), name))
        assert refused.value.response["Error"]["Code"] == "AuthFailure"
    ec2 = client(aws)
    with pytest.raises(botocore.exceptions.ClientError, match="UnknownParameter"):
        await call(ec2.describe_instances, MaxResults="few")
    assert dialect.invalid
