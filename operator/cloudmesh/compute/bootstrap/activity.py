"""Whether somebody uses a machine: logins that aren't ours, and commands of jobs."""

from __future__ import annotations

from collections.abc import Sequence

from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.bootstrap.hosts import Host, for_all, target_of
from cloudmesh.compute.runner import RUNNER_PATH
from cloudmesh.compute.ssh import Ssh
from cloudmesh.engine import CloudmeshError, Transient

# A session of sshd is titled `sshd: USER@TTY`. One without a terminal that runs nothing is no use: it may be one that
# the operator keeps. The one that asks is among the ancestors of the asking shell, with other commands of ours. Without
# root every process of the login is somebody's, but for what keeps the machine itself up; as root that can't be told,
# and only what a session or a job runs counts.
LOOK = r"""
parent() { sed -n 's/^PPid:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null; }
mine=" " sessions=" " p=$$
while [ "${p:-0}" -gt 1 ]; do
    mine="$mine$p "
    p=$(parent "$p")
done
me=$(id -u)
for d in /proc/[0-9]*; do
    case $mine in *" ${d#/proc/} "*) continue ;; esac
    case $(tr '\0' ' ' <"$d/cmdline" 2>/dev/null) in
    sshd*": "*@notty*) sessions="$sessions${d#/proc/} " ;;
    sshd*": "*@*) echo login ;;
    esac
done
for d in /proc/[0-9]*; do
    pid=${d#/proc/}
    [ "$pid" = 1 ] && continue
    case $mine in *" $pid "*) continue ;; esac
    words=$(tr '\0' ' ' <"$d/cmdline" 2>/dev/null) || continue
    case $words in
    "" | *"/.cloudmesh/machines/"*) continue ;;
    *"$1 child "*) echo command && continue ;;
    sshd* | */sshd* | *"/machine/slurm supervise "* | */munged* | */slurmctld* | slurmctld:* | */slurmd\ *) continue ;;
    *systemd*--user* | "(sd-pam)"* | *dbus-daemon* | *ssh-agent* | *gpg-agent* | *gpgconf*) continue ;;
    esac
    above=$(parent "$pid")
    case $above$words in "1sleep 5 " | "1grep --line-buffered "*) continue ;; esac
    case $mine in *" $above "*) continue ;; esac
    case $sessions in *" $above "*) echo login && continue ;; esac
    [ "$me" = 0 ] && continue
    [ "$(sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/\1/p' "$d/status" 2>/dev/null)" = "$me" ] && echo process
done
exit 0
"""


async def in_use(ssh: Ssh, access: ClusterAccess, hosts: Sequence[Host]) -> bool:
    """Whether somebody is logged in to a machine, or anything of a person's or a job's runs on one.

    Raises:
        Transient: A machine doesn't answer: it can't be said.
    """

    async def one(host: Host) -> bool:
        done = await ssh.run(target_of(host, access), ["sh", "-c", LOOK, "sh", RUNNER_PATH])
        if done.status != 0:
            raise Transient(f"{host.name}: {done.complaint}")
        return bool(done.text)

    found = await for_all(hosts, one)
    if any(answer is True for answer in found.values()):
        return True
    failed = [answer for answer in found.values() if isinstance(answer, CloudmeshError)]
    if failed:
        raise Transient(f"{len(failed)} of {len(hosts)} machines can't be asked: {failed[0]}")
    return False
