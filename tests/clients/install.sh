#!/usr/bin/env bash
# Installs the official SDKs where tests/clients.rs looks for them: target/clients/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
to=$here/../../target/clients
mkdir -p "$to/node"
python3 -m venv "$to/venv"
"$to/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
cp "$here/package.json" "$to/node/package.json"
npm install --prefix "$to/node" --no-audit --no-fund --no-package-lock --loglevel error
