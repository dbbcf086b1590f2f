"""Ports for servers of tests: nobody else gets one, neither from here nor from the kernel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.testbed import ports

TAKE = "from tests.testbed import ports; print(*(ports.free_port() for _ in range(150))); input()"


def test_a_port_is_given_once_over_all_processes() -> None:
    root = Path(__file__).parents[2]
    others = [
        subprocess.Popen(
            [sys.executable, "-c", f"import random; random.seed(1); {TAKE}"],
            cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        told = []
        for other in others:
            assert other.stdout is not None
            told += [int(word) for word in other.stdout.readline().split()]
    finally:
        for other in others:
            other.communicate("\n", timeout=60)
    assert len(told) == 300
    assert len(set(told)) == 300


def test_a_port_is_none_that_the_kernel_gives_to_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = ports.free_port()
    assert port < lowest or lowest <= ports.LOWEST
    with socket.create_server(("127.0.0.1", port)):  # a server can have it
        assert ports.free_port() != port


def test_a_port_that_somebody_listens_on_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    port = ports.free_port()
    os.close(ports._kept.pop())  # whoever it is didn't ask here
    with socket.create_server(("127.0.0.1", port)):
        monkeypatch.setattr(ports, "_next", port - 1)
        assert ports.free_port() != port
