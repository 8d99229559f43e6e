#!/usr/bin/env bash
# Puts the openai SDK, what tests the admin API by its OpenAPI document, and what knows Kubernetes' and Prometheus' rules, into target/venv: for
# tests/behaviour/sdk.rs, tests/conformance/openapi.rs and tests/documents/deployment.rs.
# Does nothing when they are there.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv="${CARGO_TARGET_DIR:-target}/venv"
if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "import kubernetes_validate, openai, openapi_spec_validator, promql_parser, schemathesis, yaml" 2>/dev/null; then
    exit 0
fi
# Debian's python3 comes without ensurepip: virtualenv is the way round.
[ -x "$venv/bin/python" ] || python3 -m venv "$venv" 2>/dev/null || python3 -m virtualenv "$venv" || {
    echo "tests/sdk/setup.sh: needs python3 with venv (Debian: apt-get install python3-venv)" >&2
    exit 1
}
# By its module: the program `pip` of a folder that was moved or copied would fill the folder it was made in.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "kubernetes-validate>=1.30,<2" "openai>=1,<3" \
    "openapi-spec-validator>=0.7,<1" "promql-parser>=0.5,<1" "pyyaml>=6,<7" "schemathesis>=4,<5"
