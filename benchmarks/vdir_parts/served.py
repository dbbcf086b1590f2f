"""A directory's gateway over real stores, in a process of its own that may be killed and started again."""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import bcrypt
from tests.testbed import sftpserver
from tests.testbed.ports import free_port
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY

from cloudmesh.data import config as configs
from cloudmesh.data.client import Vdir
from cloudmesh.data.config import AuthConfig, DirectoryConfig, PlacementRule, StoreConfig
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.registry import StoreContext, maker

USER, PASSWORD, OPERATOR, BUCKET, PREFIX = "bench", "bench", "bench-operator", "lab", "lab/"
START_SECONDS = 300.0
"""Where others load the machine, a process that is begun takes minutes."""
ROOT = Path(__file__).parents[2]


def _secret(**values: str) -> dict[str, str]:
    return {name.replace("__", "-"): base64.b64encode(value.encode()).decode() for name, value in values.items()}


def of_s3(name: str, url: str) -> StoreConfig:
    """A bucket on one of our S3 servers, or on a proxy in front of it."""
    settings = {"endpoint": url, "bucket": BUCKET, "region": "us-east-1"}
    keys = _secret(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY)
    return StoreConfig(name, "s3", settings, keys, prefix=PREFIX)


def of_folder(name: str, folder: Path) -> StoreConfig:
    """A folder of this machine, as a volume."""
    return StoreConfig(name, "local", prefix=PREFIX, mount=str(folder))


def of_sftp(name: str, server: sftpserver.SftpServer) -> StoreConfig:
    """A folder on our SFTP server."""
    settings = {
        "host": server.host, "port": server.port, "user": sftpserver.USER, "hostKey": server.host_key,
        "path": server.path,
    }  # fmt: skip
    return StoreConfig(name, "sftp", settings, _secret(ssh__privatekey=server.client_key), prefix=PREFIX)


def opened(config: StoreConfig) -> Store:
    """A store, in this process."""
    keys = {name: base64.b64decode(value) for name, value in config.credentials.items()}
    return maker(config.kind)(StoreContext(config.name, config.settings, keys, mount=config.mount, allow_private=True))


class Served:
    """One gateway; use with `with`, which starts it.

    Args:
        folder: An empty one, for its configuration, its catalogue and its log.
        stores: In their order.
        rule: Places all files.
        more: Members of the configuration.
    """

    def __init__(self, folder: Path, stores: tuple[StoreConfig, ...], rule: PlacementRule, **more: Any) -> None:
        self._file, self.catalog, self._log = folder / "config.json", folder / "catalog", folder / "log"
        auth = AuthConfig(kubernetes=False, basic={USER: bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()})
        self.config = DirectoryConfig(
            "bench", "lab", "u", "i", stores, (rule,), auth=auth, operator_token=OPERATOR, allow_private=True, **more
        )
        self._file.write_bytes(configs.dump(self.config))
        self._port = free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port}"
        self.headers = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Served:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it, and returns when it serves."""
        command = [
            sys.executable, "-m", "cloudmesh.data.gateway", "--config", str(self._file), "--folder", str(self.catalog),
            "--host", "127.0.0.1", "--port", str(self._port),
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | {"CLOUDMESH_LOG_LEVEL": "WARNING"}, stdout=log, stderr=log
            )
        end = time.monotonic() + START_SECONDS
        while not self._serves():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the gateway doesn't answer: {self.log()[-2000:]}")
            time.sleep(0.1)

    def _serves(self) -> bool:
        try:
            return not self.summary()["error"]
        except (OSError, http.client.HTTPException, RuntimeError):
            return False

    def stop(self) -> None:
        """Ends it in good order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """Ends it as a machine ends that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def log(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace")

    def vdir(self) -> Vdir:
        """A client."""
        return Vdir("lab", url=self.url, user=USER, password=PASSWORD)

    def summary(self) -> dict[str, Any]:
        """What the operator sees.

        Raises:
            RuntimeError: It can't say.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("GET", "/internal/summary", headers={"Authorization": f"Bearer {OPERATOR}"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"no summary: {answer.status} {body[:500]!r}")
        # what has its default is left out
        return {"error": "", "files": 0, "pending": 0, "stores": []} | dict(json.loads(body))
