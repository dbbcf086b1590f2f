"""All that tests need to start servers of stores, made beforehand: `python -m tests.testbed build-data`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.contract.compute.ssh.sshd import find_sshd
from tests.testbed import artifacts, postgres
from tests.testbed.console import TestbedError, say

Part = tuple[str, Callable[[], object]]


def parts() -> list[Part]:
    """What each is called and what makes it: downloads first, the one that takes minutes to build last."""
    made: list[Part] = [
        ("OpenSSH", find_sshd),
        ("Apache httpd", artifacts.apache),
        ("WebDAV clients", artifacts.dav_clients),
        ("memcached", artifacts.memcached),
        ("PostgreSQL", postgres.prepare),
        ("fake-gcs-server", artifacts.fake_gcs_server),
        ("Azurite", artifacts.azurite),
        ("axe-core", artifacts.axe),
        ("Swift and Keystone", artifacts.swift),
        ("versitygw", artifacts.versitygw),
    ]
    return made


def prepare(wanted: Iterable[Part]) -> None:
    """Makes what isn't there yet, one after the other; one that can't be made keeps no other from being made.

    Raises:
        TestbedError: Some can't be made; it names each, with why.
    """
    failed = []
    for name, make in wanted:
        try:
            make()
        except (TestbedError, OSError, ValueError) as error:
            say(f"  FAILED  {name}")
            failed.append(f"{name}: {error}")
    if failed:
        raise TestbedError("not all servers of stores could be made\n" + "\n".join(failed))
