"""What keeps directories mounted on a machine: a shell script that runs there as root, with rclone as FUSE client.

`sh helper sync CLUSTER MACHINE UID SECONDS` makes the mounts of a cluster be as the lines of its input say, and tells
how each is; `sh helper drain CLUSTER MACHINE UID SECONDS` takes back those that no other machine of the cluster on the
same host needs, once all is written; `clear` does so whatever waits. A line is `KEY VERB DIGEST ACCESS PATH LOGIN
PASSWORD URL`, an answer `KEY STATE WORDS`:

| verb, state | what |
|---|---|
| `mount` | is to be there |
| `keep` | is left as it is |
| `ok` | it is there and answers |
| `fail` | it isn't, or what was written doesn't get into the directory |
| `wait` | it goes, once all that was written is in the directory and nobody uses it |
| `left` | it went, and files that could not be written lie in the folder that is told |
"""

from __future__ import annotations

HELPER_PATH = ".cloudmesh/mounts/helper"
NOT_ROOT = 77
"""As the end of a call: the login user can't become root."""
NO_HELPER = 127
"""As the end of a call: the helper isn't there, as a shell says it of a command."""

AS_ROOT = f"""\
helper="$HOME/{HELPER_PATH}" me=$(id -u)
[ -f "$helper" ] || exit {NO_HELPER}
[ "$me" = 0 ] && exec sh "$helper" "$1" "$2" "$3" "$me" "$4"
sudo -n true 2>/dev/null || exit {NOT_ROOT}
exec sudo -n sh "$helper" "$1" "$2" "$3" "$me" "$4"
"""
"""Runs the helper as root: VERB CLUSTER MACHINE SECONDS."""

HELPER = r"""
set -u
umask 077
export LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
verb=$1 cluster=$2 machine=$3 owner=$4 seconds=$5
all=/var/lib/cloudmesh/mounts base=/var/lib/cloudmesh/mounts/$2
GIVE_UP=5

source_at() { # the source of what is mounted at a path, of the topmost
    found=
    while read -r _ _ _ _ at rest; do
        [ "$at" = "$1" ] || continue
        rest=${rest#*- }
        rest=${rest#* }
        found=${rest%% *}
    done </proc/self/mountinfo
    printf %s "$found"
}
waiting() { # files that were written and aren't in the directory yet
    grep -rlE '"Dirty": ?true' "$dir/cache/vfsMeta" 2>/dev/null | wc -l | tr -d ' '
}
runs() { [ -s "$dir/$1" ] && kill -0 "$(cat "$dir/$1")" 2>/dev/null; }
lives() { runs pid; }
tell() { printf '%s %s %s\n' "$key" "$1" "$2"; }
because() { # the last error that the client told
    words=$(sed -n 's/^[0-9/]* [0-9:]* \(ERROR\|CRITICAL\|NOTICE\)* *: *//p' "$dir/log" 2>/dev/null | tail -n 1)
    [ -n "$words" ] || words=$(tail -n 1 "$dir/log" 2>/dev/null)
    printf %s "${words:-$1}" | cut -c 1-300
}
within() { # does something every half second until it holds, or so many seconds are over
    end=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.5
    done
}
is_written() { [ "$(waiting)" = 0 ]; }
has_ended() { ! lives; }
is_mounted() { [ "$(source_at "$path")" = "cloudmesh:$key" ]; }
is_up_or_ended() { is_mounted || has_ended; }
old() { [ -n "$(find "$1" -mmin +"$2" 2>/dev/null)" ]; }

install() { # what a mount needs, by the machine's own package manager
    lacks=
    command -v rclone >/dev/null || lacks=rclone
    command -v fusermount3 >/dev/null || command -v fusermount >/dev/null || lacks="$lacks fuse3"
    if [ -n "$lacks" ]; then
        if [ -e "$all/refused" ] && ! old "$all/refused" "$GIVE_UP"; then
            tell fail "$(cat "$all/refused")"
            return 1
        fi
        if command -v apt-get >/dev/null; then
            export DEBIAN_FRONTEND=noninteractive
            get() { apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"; }
            fresh() { apt-get -o DPkg::Lock::Timeout=120 update; }
        elif command -v dnf >/dev/null; then
            get() { dnf -y install "$@"; }
            fresh() { dnf -y install epel-release; }
        elif command -v yum >/dev/null; then
            get() { yum -y install "$@"; }
            fresh() { yum -y install epel-release; }
        else
            tell fail "the machine lacks$(printf ' %s' $lacks), and apt-get, dnf or yum to install it"
            return 1
        fi
        # shellcheck disable=SC2086 - words
        get $lacks >"$all/install" 2>&1 </dev/null 9>&- ||
            { fresh >>"$all/install" 2>&1 </dev/null 9>&-; get $lacks >>"$all/install" 2>&1 </dev/null 9>&-; } || {
            said=$(grep -E '^(E:|Error|No match)' "$all/install" | tail -n 1)
            echo "$(printf '%s ' $lacks)can't be installed: ${said:-$(tail -n 1 "$all/install")}" >"$all/refused"
            tell fail "$(cat "$all/refused")"
            return 1
        }
        rm -f "$all/refused"
    fi
    [ -c /dev/fuse ] || modprobe fuse 2>/dev/null
    [ -c /dev/fuse ] || {
        tell fail "the machine has no /dev/fuse: its kernel or its container lacks FUSE"
        return 1
    }
}

client() { # starts rclone: FOLDER SOURCE NAME-OF-THE-FILE-WITH-ITS-PID
    # Debian's `rclone mount` answers what asks for extended attributes with an error, which breaks `cp -a` and others
    how=mount2
    rclone mount2 --help >/dev/null 2>&1 </dev/null || how=mount
    at=$1 source=$2 file=$3
    set -- --allow-other --default-permissions --uid "$owner" --umask 0077 --devname "$source" \
        --cache-dir "$dir/cache" --vfs-cache-mode writes --vfs-write-back 1s --vfs-cache-max-age 10m \
        --dir-cache-time 2s --attr-timeout 1s --poll-interval 0 --low-level-retries 3 --contimeout 10s \
        --log-file "$dir/log" --log-level NOTICE
    [ "$access" = ReadOnly ] && set -- "$@" --read-only
    : >"$dir/log"
    setsid nohup rclone $how vdir: "$at" --config "$dir/rclone.conf" "$@" </dev/null >"$dir/said" 2>&1 9>&- &
    echo $! >"$dir/$file"
}

# A client that takes up what another one left in its cache sends it, and then shows those files as empty: it gets a
# folder that nobody reads, and the next one an empty cache.
flush() { # sends what a client that died had not sent; fails while that goes on
    if ! is_written; then
        if ! runs flush.pid; then
            umount -l "$dir/flush" 2>/dev/null
            mkdir -p "$dir/flush"
            client "$dir/flush" cloudmesh:flush flush.pid
        fi
        within "$seconds" is_written || return 1
    fi
    if [ -e "$dir/flush.pid" ]; then
        umount -l "$dir/flush" 2>/dev/null
        runs flush.pid && kill "$(cat "$dir/flush.pid")"
        rm -f "$dir/flush.pid"
    fi
    rmdir "$dir/flush" 2>/dev/null
    rm -rf "$dir/cache"
}

place() { # the folder, which must be empty
    if [ ! -e "$path" ]; then
        (umask 022 && mkdir -p "$path") 2>"$dir/said" && : >"$dir/made" || {
            tell fail "the folder can't be made: $(tail -n 1 "$dir/said")"
            return 1
        }
    fi
    if [ ! -d "$path" ] || [ "$(readlink -f "$path")" != "$path" ]; then
        tell fail "it isn't a folder, or leads through a symbolic link"
        return 1
    fi
    if [ -n "$(ls -A "$path")" ]; then
        tell fail "the folder isn't empty: what is in it would be hidden"
        return 1
    fi
}

begin() { # mounts it, and waits until it is there; one that is dead stays until then: nobody writes below it
    there=$(source_at "$path")
    case $there in
    "cloudmesh:$key") ;;
    "") place || return 1 ;;
    cloudmesh:*)
        tell fail "another mount is still there, until what was written to it is in its directory"
        return 1
        ;;
    *)
        tell fail "another file system is mounted there already: $there"
        return 1
        ;;
    esac
    install || return 1
    hidden=$(printf %s "$password" | rclone obscure - 2>"$dir/said") || {
        tell fail "rclone can't be used: $(tail -n 1 "$dir/said")"
        return 1
    }
    printf '[vdir]\ntype = webdav\nurl = %s\nvendor = owncloud\nuser = %s\npass = %s\n' "$url" "$login" "$hidden" \
        >"$dir/rclone.conf"
    flush || {
        why=$(because 'not all are there yet')
        tell fail "$(waiting) files that were written before it was lost are being sent: $why"
        return 1
    }
    if is_mounted; then
        end && place || return 1
    fi
    client "$path" "cloudmesh:$key" pid
    within 15 is_up_or_ended
    if ! is_mounted; then
        why=$(because "$(tail -n 1 "$dir/said")")
        lives && kill "$(cat "$dir/pid")"
        tell fail "rclone doesn't mount it: ${why:-no answer within 15 s}"
        return 1
    fi
    printf %s "$digest" >"$dir/digest"
}

end() { # unmounts it: lazily where somebody uses it
    if is_mounted; then
        umount "$path" 2>/dev/null || umount -l "$path" 2>"$dir/said" || {
            tell fail "it can't be unmounted: $(tail -n 1 "$dir/said")"
            return 1
        }
    fi
}

stop() { # ends the client
    if lives; then
        kill "$(cat "$dir/pid")" 2>/dev/null
        within 5 has_ended || kill -9 "$(cat "$dir/pid")" 2>/dev/null
    fi
}

look() { # whether it answers; 2 if it has to be mounted again
    [ "$(wc -c <"$dir/log")" -lt 1000000 ] || : >"$dir/log"
    timeout 20 ls -f "$path" >/dev/null 2>"$dir/said"
    code=$?
    if [ "$code" = 124 ]; then
        tell fail "no answer within 20 s: $(because '')"
    elif [ "$code" != 0 ]; then
        grep -qE "not connected|connection abort" "$dir/said" && return 2
        tell fail "$(because "$(tail -n 1 "$dir/said")")"
    elif late=$(waiting) && [ "$late" != 0 ] && tail -n 1 "$dir/log" | grep -q "failed to upload"; then
        tell fail "$late files that were written there aren't in the directory: $(because '')"
    else
        tell ok "-"
    fi
}

ensure() {
    mkdir -p "$dir/holders" && : >"$dir/holders/$machine" && printf %s "$path" >"$dir/path" && rm -f "$dir/leaving"
    if is_mounted && [ "$(cat "$dir/digest" 2>/dev/null)" = "$digest" ]; then
        look
        [ $? = 2 ] || return 0
    fi
    stop
    begin && { look || tell fail "it was mounted, and is gone again: $(because '')"; }
}

leave() { # takes it away; fails while it is still needed
    path=$(cat "$dir/path" 2>/dev/null)
    [ -e "$dir/leaving" ] || : >"$dir/leaving"
    late=0
    if [ -n "$path" ]; then
        access=ReadWrite
        if lives; then within "$seconds" is_written; else flush; fi
        if ! is_written && [ "$verb" != clear ] && ! old "$dir/leaving" "$GIVE_UP"; then
            tell wait "$path: $(waiting) files are still being written into the directory"
            return 1
        fi
        end || return 1
        if ! within 5 has_ended && [ "$verb" = sync ] && ! old "$dir/leaving" "$GIVE_UP"; then
            tell wait "$path: it is unmounted, but a program still uses files of it"
            return 1
        fi
        within 2 has_ended || stop
        late=$(waiting)
        [ ! -e "$dir/made" ] || rmdir "$path" 2>/dev/null
    fi
    rm -f "$dir/rclone.conf"
    if [ "$late" != 0 ]; then
        kept=$all/left/$key-$(date +%s)
        mkdir -p "$all/left" && mv "$dir" "$kept"
        tell left "$path: $late files that could not be written into the directory are kept in $kept"
    else
        rm -rf "$dir"
    fi
}

mkdir -p "$base" || exit 70
if command -v flock >/dev/null; then
    exec 9>"$all/lock"
    flock -w 60 9 || exit 75
fi
lines=$(cat)
asked=" "
while read -r key rest; do
    asked="$asked$key "
done <<END
$lines
END
# what goes comes first: another mount may be asked for at its folder
for dir in "$base"/*/; do
    dir=${dir%/} key=${dir##*/}
    case $asked in *" $key "*) continue ;; esac
    [ -d "$dir" ] || continue
    if [ "$verb" != sync ]; then
        rm -f "$dir/holders/$machine"
        [ -z "$(ls -A "$dir/holders" 2>/dev/null)" ] || continue
    fi
    leave
done
while read -r key act digest access path login password url; do
    dir=$base/$key
    case $act in mount) mkdir -p "$base" && ensure ;; esac
done <<END
$lines
END
rmdir "$base" 2>/dev/null
exit 0
"""
