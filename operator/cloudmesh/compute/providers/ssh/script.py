"""What is done on a host: one shell script for all, so that it holds its lock from the first look to the last move.

A claim is a folder `~/.cloudmesh/machines/HOST/TOKEN` with one line of JSON. It comes into being by a rename, whole and
with its tags; a token has one name, so it can't have two.
"""

from __future__ import annotations

FULL, GONE, CHANGED, BROKEN, BUSY = 69, 66, 65, 73, 75
"""Exit codes: no slot is free; no such claim; it was changed meanwhile; the disk doesn't take it; the lock is held."""

SCRIPT = r"""
set -u
umask 077
verb=$1 name=$2 token=${3-}
base=$HOME/.cloudmesh/machines/$name
claims() {
    for claim in "$base"/cm-*; do
        [ -f "$claim/claim.json" ] && printf '%s ' "${claim##*/}" && head -n 1 "$claim/claim.json"
    done
}
lock() {
    mkdir -p "$HOME/.cloudmesh/machines" || exit 73
    exec 9>"$HOME/.cloudmesh/machines/.lock" || exit 73
    flock -w 10 9 || exit 75
}
# edit FILE PATTERN LINES: takes lines of PATTERN out and puts LINES, which match it too, at the end. All others stay:
# what was written is read again and compared before it takes the file's place, as a full disk isn't always told of.
kept() {
    grep -av "$pattern" "$1"
    [ $? -le 1 ]
}
edit() {
    pattern=$2 lines=$3
    file=$(readlink -f "$1") && [ -f "$file" ] || return 73
    new=$file.cloudmesh
    if cp -p "$file" "$new" && kept "$file" >"$new" && { [ -z "$lines" ] || printf '%s\n' "$lines" >>"$new"; } &&
        [ "$(kept "$new" | cksum)" = "$(kept "$file" | cksum)" ] && [ "$(grep -a "$pattern" "$new")" = "$lines" ]; then
        if cmp -s "$file" "$new"; then rm -f "$new"; else sync "$new" && mv -f "$new" "$file"; fi && return 0
    fi
    rm -f "$new"
    return 73
}
# authorized_keys with this token's lines replaced by those of standard input
keys() {
    mkdir -p "$HOME/.ssh" && touch "$HOME/.ssh/authorized_keys" || return 73
    keys=$(awk -v t="$token" 'NF >= 2 { print $0 " cloudmesh-" t }') || return 73
    edit "$HOME/.ssh/authorized_keys" " cloudmesh-$token\$" "$keys"
}
case $verb in
list)
    cat /proc/sys/kernel/random/boot_id || exit 73
    claims
    exit 0
    ;;
claim)
    slots=$4
    read -r line
    lock
    if [ ! -d "$base/$token" ]; then
        held=$(claims | wc -l)
        [ "$held" -lt "$slots" ] || exit 69
        rm -rf "$base"/.new.*
        new=$base/.new.$$
        mkdir -p "$new" && printf '%s\n' "$line" >"$new/claim.json" && mv -T "$new" "$base/$token" || exit 73
    fi
    keys || exit 73
    cat /proc/sys/kernel/random/boot_id || exit 73
    claims
    exit 0
    ;;
release)
    lock
    [ -d "$base/$token" ] || exit 0
    keys </dev/null || exit 73
    others=$(ls -d "$HOME"/.cloudmesh/machines/*/cm-* 2>/dev/null | grep -vc "/$token\$")
    if [ "$others" -eq 0 ]; then
        # the last machine of this login: nothing of it goes on, and nothing is left for the next one to find
        cd "$HOME" || exit 73
        if [ -f .cloudmesh/run ]; then
            for mark in .cloudmesh/jobs/*/*/cm-* .cloudmesh/bootstrap/script-*; do
                [ -d "$mark" ] && echo "${mark%/*} ${mark##*/}"
            done | sh .cloudmesh/run stop
        fi
        [ -x /opt/cloudmesh/machine/slurm ] && /opt/cloudmesh/machine/slurm stop >/dev/null 2>&1
        if [ -f .ssh/config ] && grep -q '^Include cloudmesh/' .ssh/config; then
            edit .ssh/config '^Include cloudmesh/' '' || exit 73
        fi
        rm -rf .ssh/cloudmesh .cloudmesh/jobs .cloudmesh/bootstrap .cloudmesh/clusters .cloudmesh/submitted \
            .cloudmesh/slurm
    fi
    mv -T "$base/$token" "$base/.old.$$" && rm -rf "$base"/.old.*
    ;;
retag)
    read -r old
    read -r line
    lock
    [ -f "$base/$token/claim.json" ] || exit 66
    [ "$(cat "$base/$token/claim.json")" = "$old" ] || exit 65
    printf '%s\n' "$line" >"$base/$token/claim.new" && mv "$base/$token/claim.new" "$base/$token/claim.json" || exit 73
    ;;
check)
    for program in flock awk setsid timeout tar; do
        command -v "$program" >/dev/null || echo "lacks $program"
    done
    mkdir -p "$HOME/.cloudmesh/machines" && [ -w "$HOME/.cloudmesh/machines" ] || echo "home can't be written"
    echo "arch $(uname -m)"
    exit 0
    ;;
*) exit 64 ;;
esac
"""
