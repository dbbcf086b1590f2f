"""Looks for secrets in logs: all that are in Secrets while the tests run, and what looks like one."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
from collections.abc import Mapping
from fnmatch import fnmatchcase

from tests.e2e.lab import Obj
from tests.testbed.kubectl import TestCluster

PUBLIC = ("*.pub", "*.crt", "authorized_keys", "known_hosts", "config", "hosts", "url", "username", "namespace")
"""Keys of Secrets whose values aren't secret."""
SHORTEST = 10
"""Characters; a shorter one is found in words."""
LOOKS_SECRET = re.compile(r"PRIVATE KEY-----|\beyJhbGciOi[\w-]+\.eyJ|(?i:authorization\W+(bearer|basic) )")


def needles(secret: Obj) -> dict[str, str]:
    """What no log may hold, each with the name of where it is from; private keys by their lines."""
    if secret.get("type") == "helm.sh/release.v1":
        return {}
    where = f"{secret['metadata'].get('namespace', '')}/{secret['metadata']['name']}"
    found = {}
    for key, encoded in (secret.get("data") or {}).items():
        if any(fnmatchcase(key, public) for public in PUBLIC):
            continue
        value = base64.b64decode(encoded)
        try:
            texts = value.decode().splitlines()
        except UnicodeDecodeError:
            start = value[:24]  # also of one that is cut off
            shown = repr(start)[2:-1]
            texts = [base64.b64encode(start).decode(), start.hex(), shown, shown.replace("\\", "\\\\")]
        # an object that is logged whole has them like this
        for text in (*texts, encoded):
            if len(text.strip()) >= SHORTEST and not text.startswith("-----"):
                found[text.strip()] = f"{where} {key}"
    return found


def find(log: str, secrets: Mapping[str, str]) -> list[str]:
    """Lines with a secret in them, with what it is in its place."""
    found = []
    for text, name in secrets.items():
        if text in log:
            found += [line.replace(text, f"<{name}>") for line in log.splitlines() if text in line]
    found += [f"<looks like a secret> {match[0]}" for match in LOOKS_SECRET.finditer(log)]
    return found


class Secrets:
    """Hears of all Secrets of a cluster, also those that are soon gone."""

    def __init__(self, cluster: TestCluster) -> None:
        self._cluster = cluster
        self._ended = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self.needles: dict[str, str] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._ended.wait(0.2):
            command = ["kubectl", "get", "--raw", "/api/v1/secrets?watch=1&timeoutSeconds=3600"]
            with subprocess.Popen(
                command, env=self._cluster.info.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True,
            ) as self._process:  # fmt: skip
                assert self._process.stdout is not None
                for line in self._process.stdout:
                    event = json.loads(line)
                    if event["type"] != "ERROR":
                        self.needles |= needles(event["object"])

    def close(self) -> None:
        """Ends it."""
        self._ended.set()
        if self._process is not None:
            self._process.terminate()
        self._reader.join(10)


def logs(cluster: TestCluster, namespace: str) -> dict[str, str]:
    """Logs of all containers of the namespace, by Pod and container, with those of the ones before that ended."""
    found = {}
    for pod in cluster.get("-n", namespace, "pods")["items"]:
        name, status = pod["metadata"]["name"], pod["status"]
        for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
            base = ("-n", namespace, "logs", name, "-c", one["name"])
            found[f"{name} {one['name']}"] = cluster.kubectl(*base, check=False)
            if one.get("restartCount"):
                found[f"{name} {one['name']} before"] = cluster.kubectl(*base, "--previous", check=False)
    return found
