#!/usr/bin/env bash
# Puts the openai SDK into target/venv, for the tests in tests/behaviour/sdk.rs. Does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv="${CARGO_TARGET_DIR:-target}/venv"
if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "import openai" 2>/dev/null; then
    exit 0
fi
# Debian's python3 comes without ensurepip: virtualenv is the way round.
python3 -m venv "$venv" 2>/dev/null || python3 -m virtualenv "$venv" || {
    echo "tests/sdk/setup.sh: needs python3 with venv (Debian: apt-get install python3-venv)" >&2
    exit 1
}
"$venv/bin/pip" install --quiet --disable-pip-version-check "openai>=1,<3"
