#!/usr/bin/env bash
# Installs Luminate as a service of systemd, or another version over it. Run it again as often as you like: what is
# configured, drawn or stored stays.
#
#   sudo deployments/systemd/install.sh [OPTION…] [PROGRAM]
#
#   PROGRAM          what to install (target/release/luminate); or --binary PROGRAM
#   --small-board    the configuration and the bounds for a board with 64 MB
#   --no-start       put everything in its place, and start nothing
#   --rollback       go back to the program, and its unit, that were there before the last installation
#   --prefix DIR     where the program goes: DIR/bin (where it is; else /usr/local)
#   --destdir DIR    install into this directory instead of /, without touching the system: for packages and tests
#
# If the new program does not take the configuration, nothing is changed; if the service does not become ready with
# it, the old one is put back and started. Interrupted, it is run again, or --rollback takes it back.
set -euo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

binary=$here/../../target/release/luminate prefix="" destdir=${DESTDIR:-} start=1 small="" rollback="" given=""

fail() { echo "install.sh: $*" >&2; exit 1; }
say() { echo "$*"; }

while (($#)); do
    case $1 in
        --binary | --prefix | --destdir)
            [[ -n ${2:-} ]] || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift
            ;;
        --small-board) small=1 ;;
        --no-start) start= ;;
        --rollback) rollback=1 ;;
        -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        -*) fail "unknown option $1; --help lists them" ;;
        *)
            [[ -n $1 && -z $given ]] || fail "one program can be installed, and $1 is another"
            given=$1 binary=$1
            ;;
    esac
    shift
done
destdir=${destdir%/}
etc=$destdir/etc/luminate
units=$destdir/etc/systemd/system
unit=$units/luminate.service
if [[ -z $prefix && -e $unit ]]; then prefix=$(sed -n 's|^ExecStart=\(/.*\)/bin/luminate .*|\1|p' "$unit"); fi
prefix=${prefix:-/usr/local}
[[ $prefix == /* ]] || fail "--prefix is a path from /, not $prefix"
prefix=${prefix%/}
bin=$destdir$prefix/bin/luminate
secret=$etc/secrets/jwt-secret

if [[ -n $destdir ]]; then
    start=
else
    ((EUID == 0)) || fail "only root can install a service; with sudo, or elsewhere with --destdir"
    [[ -d /run/systemd/system ]] || fail "systemd does not run here"
    version=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    ((${version:-0} >= 250)) || fail "systemd is ${version:-unknown}, and the unit needs 250"
fi

# Puts a file in its place at once, so that what runs or is read meanwhile is either of the two.
put() {
    local mode=$1 from=$2 to=$3
    mkdir -p "$(dirname "$to")"
    install -m "$mode" "$from" "$to.new"
    mv -f "$to.new" "$to"
}

restart() {
    [[ -n $start ]] || return 0
    systemctl daemon-reload
    systemctl enable --quiet luminate.service
    # It comes back when the server is ready, or has failed.
    systemctl restart luminate.service
}

# What is there, program and unit, is .before until the new one is ready, and .previous from then on. An interrupted
# installation leaves .before as it was: that was the last to run.
keep() {
    local file
    for file in "$bin" "$unit"; do
        if [[ -e $file && ! -e $file.before ]]; then
            cp -p "$file" "$file.before.new"
            mv -f "$file.before.new" "$file.before"
        fi
    done
}
move_to() {
    local file
    for file in "$bin" "$unit"; do
        if [[ -e $file.before ]]; then mv -f "$file.before" "$file$1"; fi
    done
}

if [[ -n $rollback ]]; then
    if [[ ! -e $bin.before ]]; then
        [[ -x $bin.previous ]] || fail "there is no $bin.previous to go back to"
        keep
        for file in "$bin" "$unit"; do
            if [[ -e $file.previous ]]; then mv -f "$file.previous" "$file"; fi
        done
        if ! restart; then
            move_to ""
            restart || fail "neither the program from before nor the present one becomes ready: journalctl -u luminate"
            fail "the program from before does not become ready (journalctl -u luminate); the present one is back and runs"
        fi
        move_to .previous
    else
        move_to ""
        restart || fail "the program from before does not become ready: journalctl -u luminate"
    fi
    say "back to $("$bin" version | head -n 1)"
    exit 0
fi

[[ -f $binary ]] || fail "no program at $binary: \`cargo build --release\` makes one, or name another"
"$binary" version >/dev/null || fail "$binary does not run on this machine"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key=$secret
if [[ ! -s $secret ]]; then
    key=$work/jwt-secret
    (umask 077 && od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$key")
    (($(wc -c <"$key") == 64)) || fail "cannot draw random numbers"
fi

config=$here/luminate.yaml
if [[ -n $small ]]; then config=$here/small-board.yaml; fi
wanted=$etc/luminate.yaml
# One that nobody changed makes place for the small board's.
if [[ ! -e $wanted ]] || { [[ -n $small ]] && cmp -s "$here/luminate.yaml" "$wanted"; }; then wanted=$config; fi
LUMINATE_AUTH__JWT__SECRET_FILE=$key "$binary" check config "$wanted" >/dev/null ||
    fail "$binary does not take $wanted; nothing was changed"

# The greatest first: where there is no room, there is none before anything has changed.
mkdir -p "$(dirname "$bin")"
install -m 0755 "$binary" "$bin.new"

put 0644 "$here/luminate.sysusers.conf" "$destdir/etc/sysusers.d/luminate.conf"
if [[ -z $destdir ]]; then systemd-sysusers /etc/sysusers.d/luminate.conf; fi

# What only root reads; the service gets a copy of its own from systemd.
mkdir -p "$etc"
[[ -d $etc/secrets ]] || install -d -m 0700 "$etc/secrets"
if [[ $key != "$secret" ]]; then
    put 0400 "$key" "$secret"
    say "drawn: $secret"
fi

# The bounds of a small board stay until small-board.conf is deleted, or come with --small-board.
drop_in=$units/luminate.service.d/small-board.conf
if [[ $wanted == "$config" ]]; then
    put 0644 "$config" "$etc/luminate.yaml"
    say "configured: $etc/luminate.yaml"
elif ! cmp -s "$config" "$etc/luminate.yaml"; then
    put 0644 "$config" "$etc/luminate.yaml.dist"
    say "kept: $etc/luminate.yaml; what would be new is beside it (.dist)"
    if [[ -n $small && ! -e $drop_in ]]; then
        say "NOTE: small-board.conf bounds memory for what small-board.yaml allows: take its limits over from the .dist"
    fi
fi

last=$bin
if [[ -e $bin.before ]]; then last=$bin.before; fi
upgrade=
if [[ -e $last ]] && ! cmp -s "$binary" "$last"; then upgrade=1; fi
keep

if [[ -n $small || -e $drop_in ]]; then put 0644 "$here/small-board.conf" "$drop_in"; fi
sed "s|/usr/local|$prefix|g" "$here/luminate.service" >"$work/luminate.service"
put 0644 "$work/luminate.service" "$unit"
put 0644 "$here/README.md" "$destdir$prefix/share/doc/luminate/README.md"
mv -f "$bin.new" "$bin"

if ! restart; then
    if [[ -n $upgrade ]]; then
        move_to ""
        restart || fail "neither the new nor the old program becomes ready: journalctl -u luminate"
        fail "the new program did not become ready (journalctl -u luminate); the old one is back and runs"
    fi
    rm -f "$bin.before" "$unit.before"
    fail "the service did not become ready, and is tried again every few seconds: journalctl -u luminate"
fi
if [[ -n $upgrade ]]; then move_to .previous; else rm -f "$bin.before" "$unit.before"; fi

say "installed: $("$bin" version | head -n 1), $bin"
if [[ -n $start ]]; then
    say "it is ready; its log: journalctl -u luminate -o cat"
    say "a token to write with: sudo $bin token create --secret-file=$secret --tenant=main --scope=write"
fi
