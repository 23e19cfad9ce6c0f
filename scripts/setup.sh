#!/usr/bin/env bash
# Makes .venv from requirements.lock: every file checked against its hash, the project itself installed in place.
# Needs Python 3.11 to 3.14 and a package index. Does nothing where the environment is already the locked one.
set -euo pipefail
cd "$(dirname "$0")/.."

# A compiled kernel knows the age of its own file alone, not of those whose kernels it has inside of it.
kernels=$(grep -rlE 'njit|@intrinsic' --include='*.py' decision online server streaming)
newest=$(ls -t $kernels | sed -n 1p)
find decision online server streaming -name '*.nb[ic]' ! -newer "$newest" -delete

stamp=.venv/.waypost-stamp
wanted=$(cat requirements.lock pyproject.toml scripts/setup.sh scripts/uv.sh | cksum)

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }

pick_python() {
  for candidate in ${PYTHON:-} python3 python python3.13 python3.12 python3.11 python3.14; do
    if fits "$candidate"; then command -v "$candidate" && return; fi
  done
  echo '>=3.11,<3.15' # none here: uv looks further, and downloads one where it may
}

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && fits .venv/bin/python; then
  exit 0
fi

echo "Setting up .venv from requirements.lock"
fits .venv/bin/python || scripts/uv.sh venv --quiet --clear --python "$(pick_python)" .venv
export VIRTUAL_ENV="$PWD/.venv"
# Compiled once here and not by each process: `import feast` alone takes ten seconds without, where nobody may write
# __pycache__ (PYTHONDONTWRITEBYTECODE).
export UV_COMPILE_BYTECODE=1
scripts/uv.sh pip sync --require-hashes requirements.lock
# hatchling comes from the lock, so the build needs no environment of its own.
scripts/uv.sh pip install --quiet --no-deps --no-build-isolation --editable .
printf '%s' "$wanted" > "$stamp"
