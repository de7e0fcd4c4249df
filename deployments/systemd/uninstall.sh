#!/usr/bin/env bash
# Takes what install.sh installed away, and keeps the configuration, the secret and the data; says so. Run again, it
# finds nothing to do.
#
#   sudo deployments/systemd/uninstall.sh [--purge] [--prefix DIR] [--destdir DIR]
#
#   --purge   the configuration, the secret, the data and the logs, too: there is no way back
#   --prefix   where the program is, if the unit does not say so
#   --destdir  as given to install.sh
set -euo pipefail

prefix="" destdir=${DESTDIR:-} purge=""

fail() { echo "uninstall.sh: $*" >&2; exit 1; }

while (($#)); do
    case $1 in
        --prefix | --destdir)
            [[ -n ${2:-} ]] || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift
            ;;
        --purge) purge=1 ;;
        -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) fail "unknown option $1; --help lists them" ;;
    esac
    shift
done
destdir=${destdir%/}
units=$destdir/etc/systemd/system
unit=$units/luminate.service
if [[ -z $prefix && -e $unit ]]; then prefix=$(sed -n 's|^ExecStart=\(/.*\)/bin/luminate .*|\1|p' "$unit"); fi
prefix=${prefix:-/usr/local}
[[ $prefix == /* ]] || fail "--prefix is a path from /, not $prefix"
prefix=${prefix%/}

if [[ -z $destdir ]]; then
    ((EUID == 0)) || fail "only root can take a service away"
    # It writes what it holds before it ends.
    if systemctl cat luminate.service >/dev/null 2>&1; then systemctl disable --now --quiet luminate.service; fi
fi

rm -f {"$destdir$prefix/bin/luminate","$unit"}{,.new,.before,.before.new,.previous} \
    "$units/luminate.service.d/small-board.conf" "$destdir/etc/sysusers.d/luminate.conf" \
    "$destdir$prefix/share/doc/luminate/README.md" "$destdir/etc/luminate/luminate.yaml.dist"
rmdir --ignore-fail-on-non-empty "$destdir$prefix/share/doc/luminate" 2>/dev/null || true

if [[ -n $purge ]]; then
    rm -rf "$units/luminate.service.d" "$destdir/etc/luminate" "$destdir/var/lib/luminate" "$destdir/var/log/luminate"
    if [[ -z $destdir ]] && id luminate >/dev/null 2>&1; then userdel luminate; fi
    echo "taken away, with all that was stored"
else
    # Drop-ins of the operator's are kept, too.
    rmdir --ignore-fail-on-non-empty "$units/luminate.service.d" 2>/dev/null || true
    echo "taken away; kept: $destdir/etc/luminate, $destdir/var/lib/luminate, $destdir/var/log/luminate (--purge)"
fi

if [[ -z $destdir ]]; then systemctl daemon-reload; fi
