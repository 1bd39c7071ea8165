#!/usr/bin/env bash
# From a fresh clone to heads and fake probabilities:
#
#   bash serve/quickstart.sh [PATH...] [OPTION...]
#
# Installs dfdetect (an active environment, else .venv in the checkout; once) and runs
# `dfdetect detect` with these arguments and its exit code. Standard output carries the
# result lines only; a sentence on standard error says what was found in a single image.
# Paths are relative to the current directory.
#
# Without arguments it judges a portrait that ships with matplotlib, and writes a copy
# with the head marked into dfdetect_quickstart/ in the current directory, or a folder of
# that name and a number where there is one already.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "$root/.ci/environment.sh"
prepare_environment "$root" || exit 1
if (($# == 0)) && [[ -w . ]]; then
    folder=dfdetect_quickstart
    for ((number = 2; ; number++)); do
        # A broken link is there, too.
        [[ -e $folder || -L $folder ]] || break
        folder=dfdetect_quickstart-$number
    done
    set -- --output "$folder"
fi
exec "$environment/bin/dfdetect" detect "$@"
