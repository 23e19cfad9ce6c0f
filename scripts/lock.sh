#!/usr/bin/env bash
# Compiles the two locks from pyproject.toml into a folder (default: this one), keeping the versions already locked.
#
#   scripts/lock.sh [FOLDER] [uv options, such as --upgrade-package NAME]
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-.}
shift || true

compile() {
  local output=$folder/$1
  shift
  # No index address and no header: a lock says what, not from where, so it works behind any mirror.
  scripts/uv.sh pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-header --no-annotate --output-file "$output" "$@"
}

compile requirements.lock --all-extras --group dev "$@"
compile requirements-runtime.lock --constraint "$folder/requirements.lock" "$@"
