"""What a cluster's mounts are let in with: one Secret of the cluster, a login for each mount, and who is told of it.

A login goes when its mount has left the spec and the machines: until then what was written there still gets into the
directory.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from cloudmesh.api.mounts import Login, Mount, key_of, logins_in, secret_name
from cloudmesh.api.names import gateway_url
from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute.owned import change_data, create_data, data_of, find_own
from cloudmesh.engine import SECRET, AlreadyExists, Engine, Key, Obj, Transient

LOOK_AGAIN_SECONDS = 40.0
DIRECTORY = "VirtualDirectory"
COST = 4
"""Of the hashes: passwords of 32 random bytes need no slow one."""


@dataclass(frozen=True, slots=True)
class MountOrder:
    """One mount as machines are told of it.

    Args:
        key: By which it is known.
        path: The folder on machines.
        directory: Name of the VirtualDirectory.
        folder: Folder of it, empty for the whole.
        access: ReadWrite or ReadOnly.
        address: Where its gateway is reached.
        login: Its name at the door.
        password: Its password.
    """

    key: str
    path: str
    directory: str
    folder: str
    access: str
    address: str
    login: str
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """Where WebDAV shows the folder."""
        return f"{self.address.rstrip('/')}/dav/{quote(f'{self.folder}/') if self.folder else ''}"

    @property
    def digest(self) -> str:
        """Another one where it has to be mounted anew."""
        told = "\0".join((self.access, self.url, self.login, self.password))
        return hashlib.sha256(told.encode()).hexdigest()[:16]


@dataclass(slots=True)
class _Held:
    logins: dict[str, Login] = field(repr=False)
    looked_at: float


class MountLogins:
    """The logins of all clusters of a process.

    Args:
        engine: Access to the cluster.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: dict[str, _Held] = {}

    async def ensure(self, owner: Obj, cluster: VirtualCluster) -> tuple[MountOrder, ...]:
        """Makes the Secret hold what the spec asks for, besides what is going; costs no call for a while.

        Raises:
            NameConflict: A Secret of that name isn't the cluster's.
            Conflict: The Secret was changed meanwhile.
        """
        uid, asked = owner["metadata"]["uid"], {key_of(mount): mount for mount in cluster.spec.mounts}
        now = asyncio.get_running_loop().time()
        held = self._held.get(uid)
        if held is None or now - held.looked_at > LOOK_AGAIN_SECONDS or _lacking(held.logins, owner, asked):
            held = self._held[uid] = _Held(await self._write(owner, asked), now)
        namespace = owner["metadata"]["namespace"]
        return tuple(_order(key, mount, held.logins[key], namespace) for key, mount in asked.items())

    def leaving(self, owner: Obj, orders: Sequence[MountOrder]) -> bool:
        """Whether there are logins that are needed no more once machines have unmounted them."""
        held = self._held.get(owner["metadata"]["uid"])
        return held is not None and bool(held.logins.keys() - {order.key for order in orders})

    async def drop(self, owner: Obj, orders: Sequence[MountOrder]) -> None:
        """Takes away all logins but those of these mounts; the Secret goes with the cluster."""
        uid, name = owner["metadata"]["uid"], secret_name(owner["metadata"]["name"])
        found = await find_own(self._engine.kube, SECRET, owner, name)
        keys = {order.key for order in orders}
        if found is not None and (gone := data_of(SECRET, found).keys() - keys):
            await change_data(self._engine.kube, SECRET, found, dict.fromkeys(gone))
        held = self._held.pop(uid, None)
        if held is not None:
            self._tell(owner, (login for key, login in held.logins.items() if key not in keys))
            self._held[uid] = replace(held, logins={k: v for k, v in held.logins.items() if k in keys})

    def forget(self, uid: str) -> None:
        """A cluster is gone."""
        self._held.pop(uid, None)

    async def _write(self, owner: Obj, asked: Mapping[str, Mount]) -> dict[str, Login]:
        name = secret_name(owner["metadata"]["name"])
        found = await find_own(self._engine.kube, SECRET, owner, name)
        there = logins_in(data_of(SECRET, found)) if found is not None else {}
        lacking = _lacking(there, owner, asked)
        if lacking:
            data: dict[str, bytes | None] = {key: login.to_json() for key, login in lacking.items()}
            if found is not None:
                await change_data(self._engine.kube, SECRET, found, data)
            else:
                try:
                    await create_data(
                        self._engine.kube, SECRET, owner, name, {key: text for key, text in data.items() if text}
                    )
                except AlreadyExists:
                    raise Transient(f"Secret '{name}' was made meanwhile") from None
            self._tell(owner, lacking.values())
        return there | lacking

    def _tell(self, owner: Obj, logins: Iterable[Login]) -> None:
        """Directories look again at who is let in."""
        namespace = owner["metadata"]["namespace"]
        for name in sorted({login.directory for login in logins}):
            self._engine.enqueue(Key(DIRECTORY, namespace, name))


def _lacking(there: Mapping[str, Login], owner: Obj, asked: Mapping[str, Mount]) -> dict[str, Login]:
    """Logins that aren't there, or grant something else than is asked for."""
    made: dict[str, Login] = {}
    for key, mount in asked.items():
        found = there.get(key)
        if found is None:
            made[key] = _make(owner["metadata"]["name"], key, mount)
        elif found.access != mount.access:
            made[key] = replace(found, access=mount.access)
    return made


def _make(cluster: str, key: str, mount: Mount) -> Login:
    import bcrypt

    password = secrets.token_urlsafe(32)
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(COST)).decode()
    return Login(mount.directory_ref.name, mount.sub_path or "", mount.access, f"vc-{cluster}-{key}", password, hashed)


def _order(key: str, mount: Mount, login: Login, namespace: str) -> MountOrder:
    directory = mount.directory_ref.name
    address = mount.address or gateway_url(namespace, directory)
    return MountOrder(
        key, mount.path, directory, mount.sub_path or "", mount.access, address, login.login, login.password
    )
