#!/usr/bin/env bash
# Prints the path of a uv that runs: the user's own, or one fetched with pip into .uv/ where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.13.9

if uv --version >/dev/null 2>&1; then command -v uv; exit; fi
if .uv/bin/uv --version >/dev/null 2>&1; then echo "$PWD/.uv/bin/uv"; exit; fi

for python in ${PYTHON:-} python3 python; do
  # --target serves two awkward hosts: one without ensurepip, and one whose Python is managed by the system.
  "$python" -m pip --version >/dev/null 2>&1 || continue
  rm -rf .uv
  "$python" -m pip install --quiet --disable-pip-version-check --target .uv "uv==$version" >&2
  echo "$PWD/.uv/bin/uv"
  exit
done

for python in ${PYTHON:-} python3 python; do
  rm -rf .uv
  "$python" -m venv .uv >/dev/null 2>&1 || continue
  .uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$version" >&2
  echo "$PWD/.uv/bin/uv"
  exit
done

cat >&2 <<'HELP'
No uv here, and no Python that could fetch it: python3 has neither pip nor ensurepip.
Install uv (https://docs.astral.sh/uv/), or Python's pip (Debian, Ubuntu: python3-pip), and run this again.
HELP
exit 1
