"""Objects as plain files below one folder, by blocking calls: never outside of it, whole or not at all.

Each path is opened part by part from the folder's descriptor, and no part may be a symbolic link. New content goes
into a file without a name (or, where the file system has no such files, one in `.cloudmesh/tmp`), and gets its name
when it is whole and on disk. Compare and change are one step under a lock that all processes on the folder take.

What belongs to a file besides its bytes lies in the extended attribute `user.cloudmesh.record`, or in a file below
`.cloudmesh/meta` where there are none. A record names the size and time it is for, so it says nothing of a file that
somebody else has changed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import threading
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from cloudmesh.data.errors import Exists, InvalidName
from cloudmesh.data.stores import folder_words as words
from cloudmesh.data.stores.common import fits
from cloudmesh.data.stores.folder_words import OWN as OWN
from cloudmesh.data.stores.folder_words import RESERVED as RESERVED
from cloudmesh.data.stores.ports import Object, Page, Probe
from cloudmesh.data.stores.system_errors import classify, told
from cloudmesh.engine.errors import AuthFailed, InvalidRequest, NameConflict, Transient

RECORD = "user.cloudmesh.record"
LOCK_SECONDS = 30.0
KEEP_NAMES = 1000
"""Names in a folder from which on they are kept between two pages of a listing."""
SETTLED_NS = 2 * 10**9
"""A folder's time is coarse: it is trusted to tell of a change when it is so old."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)
"""What opening says where no regular file of that name can be."""


@dataclass(slots=True)
class Temporary:
    """New content that has no name yet."""

    fd: int
    name: str = ""
    """In `.cloudmesh/tmp`, empty for a file without a name."""
    given_up: bool = False
    """Nobody waits for it any more: it must not get a name."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was found."""

    size: int
    tag: str
    changed: int
    """Nanoseconds."""
    inode: int
    attributes: Mapping[str, str] = field(default_factory=dict)

    def object(self, key: str) -> Object:
        """In the port's words."""
        return Object(key, self.size, self.tag, self.changed // 1000, self.attributes)

    def holds(self, fd: int) -> bool:
        """Whether the descriptor's content hasn't been changed in place."""
        found = os.fstat(fd)
        return (found.st_size, found.st_mtime_ns) == (self.size, self.changed)


class Folder:
    """One folder.

    Args:
        root: Its path, absolute.
        nameless: Whether files without a name are tried.
        extended: Whether extended attributes are tried.
    """

    def __init__(self, root: str, *, nameless: bool = True, extended: bool = True) -> None:
        self._root = root
        self._nameless = nameless
        self._extended = extended
        self._lock = threading.Lock()
        self._is: tuple[int, int] | None = None
        """Which folder it was when it was last looked at."""
        self._names: OrderedDict[tuple[int, int], tuple[int, list[str]]] = OrderedDict()

    # -- ways into the folder

    @contextlib.contextmanager
    def _top(self, *, looking: bool = False) -> Iterator[int]:
        """Descriptor of the folder, as long as it is the one it was: of an unmounted volume an empty one is left. By a
        look another one becomes the one it is, but only the next look is answered."""
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise InvalidRequest(f"there is no folder {self._root}: is the volume mounted there?") from error
            raise classify(error, self._root, writing=False) from error
        try:
            found = os.fstat(fd)
            now, before = (found.st_dev, found.st_ino), self._is
            if before is None or looking:
                self._is = now
            if before not in (None, now):
                raise Transient(f"{self._root} is another folder than before: is the volume mounted there?")
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _inside(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Descriptor of the folder of these parts."""
        with self._top() as top:
            fd = os.dup(top)
            try:
                for part in parts:
                    try:
                        inner = os.open(part, _FOLDER, dir_fd=fd)
                    except FileNotFoundError:
                        if not make:
                            raise
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(part, dir_fd=fd)
                            os.fsync(fd)
                        inner = os.open(part, _FOLDER, dir_fd=fd)
                    os.close(fd)
                    fd = inner
                yield fd
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes the folder, in this process or another."""
        with self._lock, self._inside([OWN], make=True) as own:
            fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=own)
            try:
                end = time.monotonic() + LOCK_SECONDS
                while True:
                    try:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if time.monotonic() > end:
                            told_by = f"another process holds the lock of {self._root} for {LOCK_SECONDS:g} s"
                            raise Transient(told_by) from None
                        time.sleep(0.002)
                yield
            finally:
                os.close(fd)

    # -- looking

    def probe(self) -> Probe:
        """Whether the folder is there, and takes writes."""
        begin = time.perf_counter()
        with self._top(looking=True) as top, told(self._root):
            read_only = bool(os.fstatvfs(top).f_flag & os.ST_RDONLY)
        writable = not read_only and os.access(self._root, os.R_OK | os.W_OK | os.X_OK)
        message = "" if writable else f"{self._root} takes no writes of user {os.geteuid()}"
        return Probe(round((time.perf_counter() - begin) * 1000), None, writable, message)

    def capacity(self) -> tuple[int, int]:
        """Bytes used and free of the file system."""
        with self._top() as top, told(self._root):
            found = os.fstatvfs(top)
        return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_bavail * found.f_frsize

    def open(self, key: str) -> int | None:
        """Descriptor of a regular file, None if there is none."""
        *folders, name = words.parts(key)
        with told(key):
            try:
                with self._inside(folders) as parent:
                    fd = os.open(name, _FILE, dir_fd=parent)
            except OSError as error:
                if error.errno in _ABSENT:
                    return None
                raise
            try:
                regular = stat.S_ISREG(os.fstat(fd).st_mode)
            except BaseException:
                os.close(fd)
                raise
            if not regular:
                os.close(fd)
                return None
            return fd

    def look(self, fd: int, key: str) -> Seen:
        """What a descriptor stands for."""
        with told(key):
            found = os.fstat(fd)
            record = self._record(fd, key, found)
        kept = record is not None and (record.get("size"), record.get("mtime")) == (found.st_size, found.st_mtime_ns)
        write = str(record.get("write", "")) if record is not None and kept else ""
        attributes: Mapping[str, str] = record["attributes"] if record is not None and kept else {}
        tag = f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}-{write}"
        return Seen(found.st_size, tag, found.st_mtime_ns, found.st_ino, attributes)

    def blocked(self, key: str) -> str:
        """The beginning of a key that is a file, or the key itself where something that is no file has its name."""
        *folders, name = words.parts(key)
        with told(key), self._top() as top:
            fd = os.dup(top)
            try:
                for depth, part in enumerate(folders, 1):
                    try:
                        inner = os.open(part, _FOLDER, dir_fd=fd)
                    except FileNotFoundError:
                        return ""
                    except OSError as error:
                        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                            raise
                        return "/".join(folders[:depth])
                    os.close(fd)
                    fd = inner
                try:
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    return ""
            finally:
                os.close(fd)
        return "" if stat.S_ISREG(found.st_mode) else key

    def find(self, key: str) -> Seen | None:
        """The file, None if there is none."""
        fd = self.open(key)
        if fd is None:
            return None
        try:
            return self.look(fd, key)
        finally:
            os.close(fd)

    def stat(self, key: str) -> Object | None:
        """The object, None if there is none."""
        seen = self.find(key)
        return seen.object(key) if seen is not None else None

    def _record(self, fd: int, key: str, found: os.stat_result) -> Mapping[str, Any] | None:
        try:
            if self._extended:
                try:
                    return words.decoded(os.getxattr(fd, RECORD))
                except OSError as error:
                    if error.errno == errno.ENODATA:
                        return None
                    if error.errno not in (errno.ENOTSUP, errno.EPERM):
                        raise
            folders, name = words.sidecar(key, found.st_ino)
            with self._inside(folders) as parent:
                side = os.open(name, _FILE, dir_fd=parent)
                with open(side, "rb") as handle:  # noqa: PTH123 - a descriptor
                    return words.decoded(handle.read())
        except FileNotFoundError:
            return None

    # -- writing

    @staticmethod
    def check(key: str) -> None:
        """Refuses a key that can't be a file, before its bytes come.

        Raises:
            InvalidName: It is one.
        """
        words.parts(key)

    def begin(self) -> Temporary:
        """A place for new content."""
        with told("a new file", writing=True), self._inside([OWN, "tmp"], make=True) as folder:
            if self._nameless:
                with contextlib.suppress(OSError):
                    return Temporary(os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=folder))
            name = secrets.token_hex(16)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return Temporary(os.open(name, flags, 0o666, dir_fd=folder), name)

    def append(self, temporary: Temporary, chunk: bytes) -> None:
        """Adds to it."""
        with told("a new file", writing=True):
            view = memoryview(chunk)
            while view:
                view = view[os.write(temporary.fd, view) :]

    def copy_range(self, source: int, temporary: Temporary, count: int) -> int:
        """Adds the next bytes of another file; gives how many, 0 at its end."""
        with told("a copy", writing=True):
            try:
                return os.copy_file_range(source, temporary.fd, count)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
            chunk = os.read(source, min(count, 1 << 20))
            self.append(temporary, chunk)
            return len(chunk)

    def drop(self, temporary: Temporary) -> None:
        """Ends it; what has no name by now is gone."""
        os.close(temporary.fd)
        if temporary.name:
            with contextlib.suppress(OSError), self._inside([OWN, "tmp"]) as folder:
                os.unlink(temporary.name, dir_fd=folder)

    def publish(
        self, temporary: Temporary, key: str, *, if_tag: str, if_absent: bool, attributes: Mapping[str, str]
    ) -> Object:
        """Gives it its name, if what is there is what should be.

        Raises:
            Exists: There is a file.
            Changed: There is none of this tag.
        """
        *folders, name = words.parts(key)
        with told(key, writing=True), contextlib.ExitStack() as stack:
            self._keep_record(temporary.fd, key, attributes)
            os.fsync(temporary.fd)
            made = self.look(temporary.fd, key)
            undo = stack.enter_context(contextlib.ExitStack())
            undo.callback(self._drop_sidecar, key, made.inode)
            with self.locked():
                there = self.find(key)
                if if_absent and there is not None:
                    raise Exists(f"there is a {key}")
                fits(key, there.tag if there else None, if_tag)
                parent = stack.enter_context(self._inside(folders, make=True))
                if temporary.given_up:
                    raise Transient(f"the write of {key} was given up")
                self._put(temporary, parent, name, over=not if_absent)
                undo.pop_all()
                if there is not None:
                    self._drop_sidecar(key, there.inode)
            os.fsync(parent)
            return made.object(key)

    def _put(self, temporary: Temporary, parent: int, name: str, *, over: bool) -> None:
        with self._inside([OWN, "tmp"], make=True) as folder:
            if self._linked(temporary, folder, parent, name):
                return
            if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise NameConflict(f"{name}: a folder, a symbolic link or the like is in the way")
            if not over:
                raise Exists(f"there is a {name}")
            if not temporary.name:
                fresh = secrets.token_hex(16)
                if not self._linked(temporary, folder, folder, fresh):
                    raise Transient(f"a random name was taken: {fresh}")
                temporary.name = fresh
            os.rename(temporary.name, name, src_dir_fd=folder, dst_dir_fd=parent)
            temporary.name = ""

    @staticmethod
    def _linked(temporary: Temporary, own: int, folder: int, name: str) -> bool:
        """Gives it a name that nothing has; False if something has."""
        try:
            if not temporary.name:
                os.link(f"/proc/self/fd/{temporary.fd}", name, dst_dir_fd=folder, follow_symlinks=True)
                return True
            os.link(temporary.name, name, src_dir_fd=own, dst_dir_fd=folder, follow_symlinks=False)
            os.unlink(temporary.name, dir_fd=own)
        except FileExistsError:
            return False
        except OSError as error:
            if not temporary.name or error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            # a file system without links: nobody else is between look and rename, by the lock
            try:
                os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(temporary.name, name, src_dir_fd=own, dst_dir_fd=folder)
            else:
                return False
        temporary.name = ""
        return True

    def _keep_record(self, fd: int, key: str, attributes: Mapping[str, str]) -> None:
        found = os.fstat(fd)
        record: dict[str, Any] = {
            "attributes": dict(attributes), "mtime": found.st_mtime_ns, "size": found.st_size,
            "write": secrets.token_hex(6),
        }  # fmt: skip
        if self._extended:
            try:
                os.setxattr(fd, RECORD, json.dumps(record, sort_keys=True).encode())
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
            else:
                return
        folders, name = words.sidecar(key, found.st_ino)
        with self._inside(folders, make=True) as parent:
            fresh = secrets.token_hex(16)
            side = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=parent)
            with open(side, "wb") as handle:  # noqa: PTH123 - a descriptor
                handle.write(json.dumps({**record, "key": key}, sort_keys=True).encode())
                handle.flush()
                os.fsync(side)
            os.rename(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)

    def _drop_sidecar(self, key: str, inode: int) -> None:
        folders, name = words.sidecar(key, inode)
        with contextlib.suppress(OSError), self._inside(folders) as parent:
            os.unlink(name, dir_fd=parent)

    def delete(self, key: str, *, if_tag: str) -> None:
        """Removes the file, and folders above it that are empty then.

        Raises:
            Changed: It has another tag.
        """
        parts = words.parts(key)
        with told(key, writing=True):
            if self.find(key) is None:
                return
            with self.locked():
                there = self.find(key)
                if there is None:
                    return
                fits(key, there.tag if there else None, if_tag)
                with self._inside(parts[:-1]) as parent:
                    os.unlink(parts[-1], dir_fd=parent)
                    os.fsync(parent)
                self._drop_sidecar(key, there.inode)
                for depth in range(len(parts) - 1, 0, -1):
                    try:
                        with self._inside(parts[: depth - 1]) as parent:
                            os.rmdir(parts[depth - 1], dir_fd=parent)
                    except OSError:
                        break

    # -- listing

    def page(self, prefix: str, after: str, limit: int) -> Page:
        """Objects in the order of their keys; what appears while it is made may be on it or not."""
        head, _, _ = prefix.rpartition("/")
        unsure: list[str] = []
        found: list[Object] = []
        with self._top():
            pass
        if head and any(part in ("", ".", "..") for part in head.split("/")):
            return Page(())
        with told(prefix or self._root):
            for key, seen in self._below(f"{head}/" if head else "", prefix, after, unsure):
                if len(found) == limit:
                    return Page(tuple(found), found[-1].key, not unsure)
                found.append(seen.object(key))
        return Page(tuple(found), "", not unsure)

    def _below(self, path: str, prefix: str, after: str, unsure: list[str]) -> Iterator[tuple[str, Seen]]:
        stack = [(path, self._names_below(path, after, unsure))]
        while stack:
            path, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                continue
            key = path + name
            if not (key.startswith(prefix) or (name.endswith("/") and prefix.startswith(key))) or words.hidden(key):
                continue
            if name.endswith("/"):
                stack.append((key, self._names_below(key, after, unsure)))
                continue
            try:
                seen = self.find(key)
            except AuthFailed:
                unsure.append(key)
                continue
            if seen is not None:
                yield key, seen

    def _names_below(self, path: str, after: str, unsure: list[str]) -> Iterator[str]:
        """Names in a folder that can lead to keys after a mark."""
        try:
            with self._inside(path.split("/")[:-1]) as folder:
                names = self._listed(folder)
        except OSError as error:
            if error.errno in _ABSENT:
                return
            if error.errno != errno.EACCES:
                raise
            unsure.append(path)
            return
        begin = 0
        if after.startswith(path):
            rest = after[len(path) :]
            inner, slash, _ = rest.partition("/")
            begin = bisect_left(names, inner + "/") if slash else bisect_right(names, rest)
        elif after > path:
            return
        yield from islice(names, begin, None)

    def _listed(self, folder: int) -> list[str]:
        """Names of files and folders, these with a slash at the end, in the order of keys; don't change it."""
        found = os.fstat(folder)
        mark = (found.st_dev, found.st_ino)
        known = self._names.get(mark)
        if known is not None and known[0] == found.st_mtime_ns:
            with contextlib.suppress(KeyError):
                self._names.move_to_end(mark)
            return known[1]
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    entry.name.encode()
                except UnicodeEncodeError:
                    continue  # no name of ours, and no key
                if entry.is_dir(follow_symlinks=False):
                    names.append(entry.name + "/")
                elif entry.is_file(follow_symlinks=False):
                    names.append(entry.name)
        names.sort()
        if len(names) >= KEEP_NAMES and time.time_ns() - found.st_mtime_ns > SETTLED_NS:
            self._names[mark] = (found.st_mtime_ns, names)
            while len(self._names) > 8:
                with contextlib.suppress(KeyError):
                    self._names.popitem(last=False)
        return names

    # -- what is left behind

    def sweep(self, older_than_seconds: int) -> int:
        """Removes temporary files and records without a file; gives their number."""
        with told(self._root, writing=True):
            return self._sweep_temporary(older_than_seconds) + self._sweep_sidecars(older_than_seconds)

    def _sweep_temporary(self, seconds: int) -> int:
        return sum(self._end(folder, name) for folder, name in self._old([OWN, "tmp"], seconds))

    def _sweep_sidecars(self, seconds: int) -> int:
        count = 0
        for first in (f"{number:02x}" for number in range(256)):
            for folder, name in self._old([OWN, "meta", first], seconds):
                with open(os.open(name, _FILE, dir_fd=folder), "rb") as handle:  # noqa: PTH123 - a descriptor
                    record = words.decoded(handle.read())
                key = str(record.get("key", "")) if record is not None else ""
                seen = None
                with contextlib.suppress(InvalidName):
                    seen = self.find(key)
                if seen is None or name != words.sidecar(key, seen.inode)[1]:
                    count += self._end(folder, name)
        return count

    def _old(self, folders: Sequence[str], seconds: int) -> Iterator[tuple[int, str]]:
        """Regular files in a folder that weren't changed for so long."""
        with contextlib.suppress(FileNotFoundError), self._inside(folders) as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - a descriptor
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime >= seconds:
                        yield folder, name

    @staticmethod
    def _end(folder: int, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
            return True
        return False
