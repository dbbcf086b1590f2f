"""What a directory on the test bed lies over: an S3 server, a Swift, an SFTP server and a volume of the cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.testbed import s3server, sftpserver, swiftserver

STORES = ("s3", "swift", "sftp", "volume")
"""Names of the DataStores, which are their kinds but for the volume."""
PLACE = "lab"
"""Name of bucket and container."""
VOLUME = "1Gi"
API = "cloudmesh.org/v1alpha1"
Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mesh:
    """Three servers that run, on an address that Pods reach."""

    s3: s3server.S3Server
    swift: swiftserver.SwiftServer
    sftp: sftpserver.SftpServer

    def stop(self, store: str) -> None:
        """Ends a server as a machine ends that loses its power."""
        self._server(store).stop()

    def start(self, store: str) -> None:
        """Starts it again over what it held."""
        self._server(store).start()

    def _server(self, store: str) -> s3server.S3Server | swiftserver.SwiftServer | sftpserver.SftpServer:
        servers: dict[str, s3server.S3Server | swiftserver.SwiftServer | sftpserver.SftpServer] = {
            "s3": self.s3, "swift": self.swift, "sftp": self.sftp,
        }  # fmt: skip
        return servers[store]

    def content(self, store: str, key: str) -> bytes:
        """Bytes of an object, as whoever has the server sees them."""
        match store:
            case "s3":
                return self.s3.file(PLACE, key).read_bytes()
            case "swift":
                return self.swift.read(PLACE, key)
            case _:
                return (self.sftp.files / key).read_bytes()

    def objects(self, **more: Any) -> list[Obj]:
        """Secrets, a claim, and a DataStore each.

        Args:
            more: Members that each DataStore's spec has besides.
        """
        secrets = {
            "s3": {"aws_access_key_id": s3server.ACCESS_KEY, "aws_secret_access_key": s3server.SECRET_KEY},
            "swift": {"username": swiftserver.USER, "password": swiftserver.KEY},
            "sftp": {"ssh-privatekey": self.sftp.client_key},
        }
        places = {
            "s3": {"endpoint": self.s3.url, "bucket": PLACE},
            "swift": {"authUrl": self.swift.auth_url, "container": PLACE},
            "sftp": {
                "host": self.sftp.host, "port": self.sftp.port, "user": sftpserver.USER,
                "hostKey": " ".join(self.sftp.host_key.split()[:2]), "path": self.sftp.path,
            },
        }  # fmt: skip
        made = [secret(name, {**keys, "hosts": self.s3.host}) for name, keys in secrets.items()]
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": VOLUME}}}
        made.append(
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "volume"}, "spec": claim}
        )
        made += [datastore(name, {name: place, **more}, name) for name, place in places.items()]
        made.append(datastore("volume", {"local": {"persistentVolumeClaimRef": {"name": "volume"}}, **more}))
        return made


def secret(name: str, keys: dict[str, str]) -> Obj:
    """A Secret with the credentials of a store."""
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "cloudmesh.org/credentials",
        "stringData": keys,
    }  # fmt: skip


def datastore(name: str, spec: Obj, credentials: str = "") -> Obj:
    """A DataStore, with the name of its Secret."""
    reference = {"credentials": {"secretRef": {"name": credentials}}} if credentials else {}
    return {"apiVersion": API, "kind": "DataStore", "metadata": {"name": name}, "spec": {**spec, **reference}}


@contextlib.contextmanager
def mesh(host: str) -> Iterator[Mesh]:
    """Starts the servers, and ends them with the block.

    Args:
        host: Address of this machine, such as the `host_address` of a cluster.
    """
    with s3server.s3(host, PLACE) as s3, swiftserver.swift(host=host) as swift, sftpserver.sftp(host) as sftp:
        swift.make_container(PLACE)
        yield Mesh(s3, swift, sftp)
