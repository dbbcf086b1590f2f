"""The files of the machine image: what a Pod needs to be a machine that people and SLURM log in to.

No maintainer script runs, so no host key and no munge key comes into being that all machines would share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from cloudmesh.functions.image.layer import Directory, Entry, File, Symlink
from images import debian

FOLDER = Path(__file__).with_name("machine")
PACKAGES = FOLDER / "packages.txt"
PROGRAMS = "opt/cloudmesh/machine"
UID = 2000
USER = "cm"
PORT = 2222
OWN_FOLDERS = ("home/cm", "run/cloudmesh", "run/munge", "run/slurm")
"""What belongs to the machine's user: slurmd, munged and the start script write there."""

_DROPPED = re.compile(
    r"usr/share/(man|info|lintian|bash-completion|bug|pixmaps|applications|initramfs-tools|locale|icons|gitweb|apport"
    r"|runit|vim/(?!vim90/(defaults\.vim|debian\.vim))|doc/(?!.*/copyright$)|doc-base|perl5|polkit-1|metainfo"
    r"|base-files)"
    r"|usr/lib/(systemd|tmpfiles\.d|sysusers\.d|udev|init|sysctl\.d|x86_64-linux-gnu/(security/"
    r"|slurm-wlm/.*(cray|openapi|rest_auth|lua|knl|pmix|ibmaem|nonstop|datawarp|slurm_pmi|serializer).*))"
    r"|usr/lib/git-core/(git-(svn|cvs|p4|send-email|daemon|http-backend|imap-send|instaweb|archimport|gui)|mergetools)"
    r"|etc/(default|dpkg|init\.d|logrotate\.d|pam\.d|runit|sv|ufw|systemd|update-motd\.d|cron\.|terminfo|selinux"
    r"|issue|rmt|ssh/(sshd_config|moduli)|host\.conf|profile\.d|security|init|ld\.so\.conf\.d/fakeroot)"
    r"|(boot|dev|home|media|mnt|opt|proc|root|run|srv|sys|usr/(games|include|src|local)|var)/"
)
_LINKS = {
    "usr/bin/sh": "bash",
    "usr/bin/vi": "vim.tiny",
    "usr/bin/vim": "vim.tiny",
    "usr/bin/editor": "vim.tiny",
    "usr/bin/pager": "less",
    "usr/bin/awk": "gawk",
    "usr/sbin/slurmctld": "slurmctld-wlm",
    "usr/sbin/slurmd": "slurmd-wlm",
    "usr/sbin/slurmstepd": "slurmstepd-wlm",
}
"""What Debian's alternatives would link."""
_ETC = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/bash\n"
        f"{USER}:x:{UID}:{UID}:Cloudmesh:/home/{USER}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": f"root:x:0:\ntty:x:5:\n{USER}:x:{UID}:\nnogroup:x:65534:\n",
}


def machine_entries(debs: Iterable[Path], base: Mapping[str, Entry]) -> list[Entry]:
    """The files that lie over the base image.

    Args:
        debs: the packages.
        base: the tree of the base image.

    Raises:
        RecipeError: a link points nowhere or a library that something needs isn't there.
    """
    tree: dict[str, Entry] = {}
    for deb in debs:
        tree.update((entry.path, entry) for entry in debian.read_deb(deb, _DROPPED))
    for path, target in _LINKS.items():
        tree[path] = Symlink(path, target)
    for path, text in _ETC.items():
        tree[path] = File.of(path, text.encode())
    for path in OWN_FOLDERS:
        tree[path] = Directory(path, owner=UID)
    for name in ("start", "sshd_config"):
        path = f"{PROGRAMS}/{name}"
        tree[path] = File.of(path, (FOLDER / name).read_bytes(), executable=name == "start")
    tree[f"{PROGRAMS}/slurm"] = File.of(f"{PROGRAMS}/slurm", (FOLDER / "slurm.py").read_bytes(), executable=True)
    debian.check({**base, **tree}, "images/machine/packages.txt")
    return [entry for path, entry in tree.items() if not _is_same(entry, base.get(path))]


def _is_same(entry: Entry, other: Entry | None) -> bool:
    if isinstance(entry, File) and isinstance(other, File):
        return entry.executable == other.executable and entry.size == other.size and entry.read() == other.read()
    return entry == other
