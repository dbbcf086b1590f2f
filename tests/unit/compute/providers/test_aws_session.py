"""Clients of AWS's services: what each account's have in common."""

from __future__ import annotations

from cloudmesh.compute.providers.aws.session import KEY_ID, SECRET_KEY, Session


def test_the_description_of_a_service_is_held_once_for_all_accounts() -> None:
    """It is tens of megabytes for EC2, and is read for each client otherwise."""
    one, other = (Session("us-east-1", {KEY_ID: b"a", SECRET_KEY: name}) for name in (b"one", b"other"))
    try:
        held = {
            id(client.meta.service_model._service_description) for s in (one, other) for client in (s._ec2, s._slow)
        }
        assert len(held) == 1
    finally:
        one.close()
        other.close()
