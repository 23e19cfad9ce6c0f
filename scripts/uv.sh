#!/usr/bin/env bash
# Runs uv: the user's own, or one fetched with pip into .uv/ where there is none.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

version=0.13.9
private=$here/.uv/bin/uv

# uv does not read pip's settings; whoever has told pip of an index or of certificates should not have to tell uv too.
inherit_from_pip() {
  local index=${PIP_INDEX_URL:-}
  for python in ${PYTHON:-} python3 python; do
    index=${index:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
  done
  if [ -n "$index" ] && [ -z "${UV_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"; fi
  if [ -n "${PIP_CERT:-}" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"; fi
}

fetch() {
  for python in ${PYTHON:-} python3 python; do
    # --target serves two awkward hosts: one without ensurepip, and one whose Python is managed by the system.
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action ignore --upgrade \
      --target "$here/.uv" "uv==$version" >&2 && return
    "$python" -m venv --clear "$here/.uv" >&2 &&
      "$here/.uv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$version" >&2 && return
  done
  cat >&2 <<'HELP'
No uv here, and it could not be fetched with pip (see above).
Install uv (https://docs.astral.sh/uv/), or Python's pip (Debian, Ubuntu: python3-pip), and run this again.
HELP
  return 1
}

inherit_from_pip
if uv --version >/dev/null 2>&1; then exec uv "$@"; fi
"$private" --version >/dev/null 2>&1 || fetch
exec "$private" "$@"
