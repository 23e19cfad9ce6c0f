#!/usr/bin/env bash
# Compares protos/ with the last release, or with the commit before where there is no release yet.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

base=$(git describe --tags --match 'v*' --abbrev=0 2>/dev/null || git rev-parse --verify --quiet 'HEAD~1' || true)
if [ -z "$base" ] || ! git cat-file -e "$base:buf.yaml" 2>/dev/null; then
  echo "no earlier contract to compare with"
  exit 0
fi
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
# An archive of the commit, so that shallow clones and worktrees serve as well as a whole repository.
git archive "$base" buf.yaml protos third_party | tar -x -C "$before"
buf breaking --against "$before"
