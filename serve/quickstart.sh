#!/usr/bin/env bash
# From a fresh clone to heads and fake probabilities:
#
#   bash serve/quickstart.sh [PATH...] [OPTION...]
#
# Installs dfdetect (an active environment, else .venv in the checkout; once) and runs
# `dfdetect detect` with these arguments and its exit code. Standard output carries the
# result lines only. Paths are relative to the current directory.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "$root/.ci/environment.sh"
prepare_environment "$root" || exit 1
exec "$environment/bin/dfdetect" detect "$@"
