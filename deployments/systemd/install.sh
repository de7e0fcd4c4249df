#!/usr/bin/env bash
# Installs Luminate as a service of systemd, or another version over it. Run it again as often as you like: what is
# configured, drawn or stored stays.
#
#   sudo deployments/systemd/install.sh [OPTION…] [PROGRAM]
#
#   PROGRAM          what to install (target/release/luminate); or --binary PROGRAM
#   --small-board    the configuration and the bounds for a board with 64 MB
#   --no-start       put everything in its place, and start nothing
#   --rollback       go back to the program that was there before the last installation
#   --prefix DIR     where the program goes: DIR/bin (/usr/local)
#   --destdir DIR    install into this directory instead of /, without touching the system: for packages and tests
#
# If the new program does not take the configuration, nothing is changed; if the service does not become ready with
# it, the old one is put back and started.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

binary=$here/../../target/release/luminate prefix=/usr/local destdir=${DESTDIR:-} start=1 small="" rollback="" given=""

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
[[ $prefix == /* ]] || fail "--prefix is a path from /, not $prefix"
destdir=${destdir%/} prefix=${prefix%/}

bin=$destdir$prefix/bin/luminate
etc=$destdir/etc/luminate
units=$destdir/etc/systemd/system
unit=$units/luminate.service
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
    install -d -m 0755 "$(dirname "$to")"
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

swap_back() {
    mv -f "$bin" "$bin.other"
    mv -f "$bin.previous" "$bin"
    mv -f "$bin.other" "$bin.previous"
}

if [[ -n $rollback ]]; then
    [[ -x $bin.previous ]] || fail "there is no $bin.previous to go back to"
    swap_back
    restart || fail "the program from before does not become ready either: journalctl -u luminate"
    say "back to $("$bin" version | head -n 1)"
    exit 0
fi

[[ -f $binary ]] || fail "no program at $binary: \`cargo build --release\` makes one, or name another"
"$binary" version >/dev/null || fail "$binary does not run on this machine"

if [[ -z $destdir ]]; then
    put 0644 "$here/luminate.sysusers.conf" /etc/sysusers.d/luminate.conf
    systemd-sysusers /etc/sysusers.d/luminate.conf
else
    put 0644 "$here/luminate.sysusers.conf" "$destdir/etc/sysusers.d/luminate.conf"
fi

# What only root reads; the service gets a copy of its own from systemd.
install -d -m 0755 "$etc"
install -d -m 0700 "$etc/secrets"
if [[ ! -s $secret ]]; then
    drawn=$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n')
    ((${#drawn} == 64)) || fail "cannot draw random numbers"
    (umask 077 && printf '%s\n' "$drawn" >"$secret.new")
    chmod 0400 "$secret.new"
    mv "$secret.new" "$secret"
    say "drawn: $secret"
fi

config=$here/luminate.yaml
if [[ -n $small ]]; then config=$here/small-board.yaml; fi
wanted=$etc/luminate.yaml
if [[ ! -e $wanted ]]; then wanted=$config; fi
LUMINATE_AUTH__JWT__SECRET_FILE=$secret "$binary" check config "$wanted" >/dev/null ||
    fail "$binary does not take $wanted; nothing was changed"

if [[ $wanted == "$config" ]]; then
    put 0644 "$config" "$etc/luminate.yaml"
    say "configured: $etc/luminate.yaml"
elif ! cmp -s "$config" "$etc/luminate.yaml"; then
    put 0644 "$config" "$etc/luminate.yaml.dist"
    say "kept: $etc/luminate.yaml; what would be new is beside it (.dist)"
fi

# The bounds of a small board stay until small-board.conf is deleted, or come with --small-board.
drop_in=$units/luminate.service.d/small-board.conf
if [[ -n $small || -e $drop_in ]]; then put 0644 "$here/small-board.conf" "$drop_in"; fi

edited=$(mktemp)
trap 'rm -f "$edited"' EXIT
sed "s|/usr/local|$prefix|g" "$here/luminate.service" >"$edited"
put 0644 "$edited" "$unit"
put 0644 "$here/README.md" "$destdir$prefix/share/doc/luminate/README.md"

upgrade=
if [[ -e $bin ]] && ! cmp -s "$binary" "$bin"; then
    # A copy first and then a rename over the program, so that there is one at every moment.
    put 0755 "$bin" "$bin.previous"
    upgrade=1
fi
put 0755 "$binary" "$bin"

if ! restart; then
    if [[ -n $upgrade ]]; then
        swap_back
        restart || fail "neither the new nor the old program becomes ready: journalctl -u luminate"
        fail "the new program did not become ready (journalctl -u luminate); the old one is back and runs"
    fi
    fail "the service did not become ready: journalctl -u luminate"
fi

say "installed: $("$bin" version | head -n 1), $bin"
if [[ -n $start ]]; then say "it is ready; its log: journalctl -u luminate -o cat"; fi
