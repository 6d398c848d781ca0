#!/usr/bin/env bash
# Builds the Debian package.
#
#   packaging/build.sh [--binary FILE] [--output DIR] [-- OPTIONS OF cargo deb]
#
# Without --binary it builds the release binary first. The package lands in DIR, target/debian/ by default. Wants a Debian
# with dpkg-dev, and cargo-deb (cargo install --locked cargo-deb).
set -euo pipefail
cd "$(dirname "$0")/.."

binary='' output=target/debian
while (($#)); do
  case $1 in
    --binary | --output)
      [[ $# -gt 1 ]] || { echo "packaging/build.sh: $1 needs a value" >&2; exit 2; }
      case $1 in
        --binary) binary=$(realpath -- "$2") ;;
        --output) output=$2 ;;
      esac
      shift 2
      ;;
    --) shift; break ;;
    *) echo "packaging/build.sh: $1 is unknown; see the head of the script" >&2; exit 2 ;;
  esac
done
for pair in cargo-deb:'cargo install --locked cargo-deb' dpkg-shlibdeps:'apt-get install dpkg-dev' strip:'apt-get install binutils'; do
  command -v "${pair%%:*}" >/dev/null || { echo "packaging/build.sh: ${pair%%:*} is missing: ${pair#*:}" >&2; exit 1; }
done
if [[ -z $binary ]]; then
  cargo build --release --locked --bin phosphod
  binary=${CARGO_TARGET_DIR:-target}/release/phosphod
fi
mkdir -p "$output"
output=$(realpath -- "$output")

# cargo-deb looks for all that was built in release/ of the target folder; this one holds what goes into the package and nothing else.
stage=$(mktemp -d)
trap 'rm -rf -- "$stage"' EXIT
release=$stage/release
mkdir "$release"
strip --strip-unneeded --remove-section=.comment --remove-section=.note -o "$release/phosphod" "$binary"
"$release/phosphod" pages "$release/pages"

# The date of what is packaged, so that the same commit gives the same package.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH
version=$("$release/phosphod" --version)
maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)
mkdir "$release/pages/doc"
cp CHANGELOG.md "$release/pages/doc/changelog"
cat >"$release/pages/doc/changelog.Debian" <<END
phosphod (${version#phosphod }-1) unstable; urgency=medium

  * What changed is in changelog.gz beside this file.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
END
gzip -9nr "$release"/pages/{doc,man1,man5}

CARGO_TARGET_DIR=$stage cargo deb --quiet --locked --no-build --no-strip --compress-system --output "$output/" "$@"
