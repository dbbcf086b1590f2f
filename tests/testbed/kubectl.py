"""kubectl and helm against the tests' cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.testbed.clusters import Cluster


class CommandFailed(AssertionError):
    """A command ended with another status than 0, or not in time; `output` has what it said on both channels."""

    def __init__(self, text: str, output: str) -> None:
        super().__init__(text)
        self.output = output


class TestCluster:
    """A cluster as tests use it.

    Attributes:
        info: where and of what kind it is.
    """

    __test__ = False

    def __init__(self, info: Cluster) -> None:
        self.info = info

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.info.kubeconfig

    def run(self, *command: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        """Run any command with KUBECONFIG and PATH set for this cluster; return its standard output.

        Args:
            command: the argument list.
            stdin: text for its standard input.
            check: raise when its status isn't 0.
            timeout: seconds.

        Raises:
            CommandFailed: see `check`; or it took too long.
        """
        shown = " ".join(command)
        try:
            result = subprocess.run(
                command, env=self.info.environment(), input=stdin if stdin is not None else "",
                capture_output=True, text=True, timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            said = f"{_text(error.stdout)}{_text(error.stderr)}"
            raise CommandFailed(f"`{shown}` did not end within {timeout:g} s: {said}", said) from None
        if check and result.returncode:
            said = f"{result.stdout}{result.stderr}"
            raise CommandFailed(f"`{shown}` ended with status {result.returncode}: {said}", said)
        return result.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        """Run kubectl; see `run`."""
        return self.run("kubectl", *arguments, stdin=stdin, check=check, timeout=timeout)

    def helm(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 300) -> str:
        """Run helm; see `run`."""
        return self.run("helm", *arguments, stdin=stdin, check=check, timeout=timeout)

    def get(self, *arguments: str, timeout: float = 60) -> dict[str, Any]:
        """Run `kubectl get … -o json` and read the answer."""
        document: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json", timeout=timeout))
        return document

    def apply(self, *objects: dict[str, Any], namespace: str = "", timeout: float = 60) -> str:
        """Apply objects server-side."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        where = ["-n", namespace] if namespace else []
        return self.kubectl("apply", *where, "--server-side", "-f", "-", stdin=json.dumps(listed), timeout=timeout)


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
