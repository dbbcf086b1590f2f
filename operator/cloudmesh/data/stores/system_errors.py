"""What the operating system says of files, in the words of the taxonomy."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from cloudmesh.data.errors import Full, InvalidName, ReadOnly
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, NameConflict, Transient


@contextlib.contextmanager
def told(what: str, *, writing: bool = False) -> Iterator[None]:
    """Errors of the system in the words of the taxonomy."""
    try:
        yield
    except CloudmeshError:
        raise
    except OSError as error:
        raise classify(error, what, writing) from error


def classify(error: OSError, what: str, writing: bool) -> CloudmeshError:
    """The error of the taxonomy."""
    text = f"{what}: {os.strerror(error.errno or 0)}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return Full(text)
        case errno.EROFS:
            return ReadOnly(text)
        case errno.EACCES | errno.EPERM:
            return ReadOnly(text) if writing else AuthFailed(text)
        case errno.ENAMETOOLONG:
            return InvalidName(text)
        case errno.ENOTDIR | errno.EISDIR | errno.ELOOP:
            return NameConflict(f"{text}: a file, a folder or a symbolic link is in the way")
        case _:
            return Transient(text)
