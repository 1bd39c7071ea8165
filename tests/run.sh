#!/usr/bin/env bash
# Lint, types and tests, on a fresh machine too:
#
#   bash tests/run.sh [PYTEST ARGUMENT...]
#
# Installs dfdetect with its test tools (an active environment, else .venv; once).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "$root/.ci/environment.sh"
prepare_environment "$root" test || exit 1
cd "$root"
"$python" -m ruff check .
"$python" -m ruff format --check .
# One call a folder: scripts of different folders may share a name.
for folder in dfdetect train serve datasets; do
  "$python" -m mypy "$folder"
done
# Two at a time, each file in one process, in the order of tests/conftest.py; a process
# takes up to 7 GB at its end.
exec "$python" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder "$@"
