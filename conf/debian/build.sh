#!/usr/bin/env bash
# Makes a Debian package of target/release/tollgate: the program, its unit, a first configuration, the documentation.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=target/release/tollgate
[ -x "$binary" ] || { echo "there is no $binary: run \`make build\` first" >&2; exit 1; }
version=$("$binary" version | cut -d' ' -f2)
arch=$(dpkg --print-architecture)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 0755 "$root"

make --no-print-directory install DESTDIR="$root" PREFIX=/usr UNITS=/usr/lib/systemd/system >/dev/null
# What BOLT has laid out has no lines left to take away, and strip would break it.
readelf -SW "$root/usr/bin/tollgate" | grep -c ' \.bolt\.' >/dev/null || strip "$root/usr/bin/tollgate"
install -D -m 0644 -t "$root/usr/share/doc/tollgate" README.md CHANGELOG.md conf/full.toml
install -D -m 0644 -t "$root/usr/share/doc/tollgate/docs" docs/*.md
install -D -m 0644 LICENSE "$root/usr/share/doc/tollgate/copyright"
mkdir -p "$root/usr/share/man/man1" "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" "$root/DEBIAN"
"$binary" man | gzip -9n > "$root/usr/share/man/man1/tollgate.1.gz"
"$binary" completions bash > "$root/usr/share/bash-completion/completions/tollgate"
"$binary" completions zsh > "$root/usr/share/zsh/vendor-completions/_tollgate"

# The C library it was built with is the oldest it runs with.
libc=$(objdump -T "$root/usr/bin/tollgate" | grep -o 'GLIBC_[0-9.]*' | cut -d_ -f2 | sort -V | tail -1)
cat > "$root/DEBIAN/control" <<CONTROL
Package: tollgate
Version: $version
Architecture: $arch
Maintainer: The Tollgate authors <tollgate@localhost>
Section: net
Priority: optional
Depends: libc6 (>= $libc), libgcc-s1
Recommends: ca-certificates
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Description: inference gateway
 Stands in front of servers of language models: keys, limits and budgets,
 routing by model, balancing, retries, fallbacks, queues, metering.
CONTROL
echo /etc/tollgate/tollgate.toml > "$root/DEBIAN/conffiles"
cat > "$root/DEBIAN/postinst" <<'POSTINST'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # A gateway that runs is replaced by the new program; its connections go on.
    if [ "$1" = configure ] && [ -n "$2" ] && systemctl is-active --quiet tollgate; then
        systemctl kill -s QUIT --kill-whom=main tollgate
    fi
fi
POSTINST
cat > "$root/DEBIAN/prerm" <<'PRERM'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now tollgate || true
fi
PRERM
chmod 0755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm"
package="target/tollgate_${version}_${arch}.deb"
dpkg-deb --root-owner-group --build "$root" "$package" >/dev/null
echo "$package"
