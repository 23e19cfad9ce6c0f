#!/usr/bin/env bash
# Every static check, all of them even after one fails; exits 1 if any did.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=()

check() {
  local name=$1 started=$SECONDS
  shift
  if "$@" > "$scratch/log" 2>&1; then
    printf 'ok      %-18s %3ds\n' "$name" $((SECONDS - started))
  else
    printf 'FAILED  %-18s %3ds\n' "$name" $((SECONDS - started))
    cat "$scratch/log"
    failed+=("$name")
  fi
}

generated_code_is_current() {
  python scripts/gen.py "$scratch/gen" && diff -r -x __pycache__ "$scratch/gen/waypost" waypost ||
    { echo "waypost/ is not what protos/ generates: run make gen"; return 1; }
}

locks_are_current() {
  mkdir "$scratch/lock" && cp requirements.lock requirements-runtime.lock "$scratch/lock" &&
    scripts/lock.sh "$scratch/lock" && diff -r "$scratch/lock" . --exclude-from=<(ls -A | grep -v '^requirements') ||
    { echo "the locks are not what pyproject.toml asks for: run make lock"; return 1; }
}

check 'ruff check' ruff check .
check 'ruff format' ruff format --check .
check 'mypy' mypy
check 'import-linter' lint-imports
check 'buf lint' buf lint
check 'buf format' buf format --diff --exit-code
check 'buf breaking' scripts/breaking.sh
check 'generated code' generated_code_is_current
check 'locks' locks_are_current
check 'deployment files' python scripts/check_deploy.py

if [ ${#failed[@]} -gt 0 ]; then
  printf 'lint failed: %s\n' "${failed[*]}"
  exit 1
fi
