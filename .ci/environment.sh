# Sourced by serve/quickstart.sh and tests/run.sh: gives them a Python with dfdetect.
#
#   prepare_environment ROOT [EXTRA]
#
# sets `python` and `environment`. An active virtual or conda environment is used,
# else ROOT/.venv, made when absent. The installation is left alone while setup.py is
# what it was at the last one. Everything is said on standard error.

say() { printf 'dfdetect: %s\n' "$*" >&2; }

_python_fits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
        >/dev/null 2>&1
}

_choose_environment() {
    local root=$1 candidate base=""
    environment=""
    if [[ -n ${VIRTUAL_ENV:-} && -x $VIRTUAL_ENV/bin/python ]]; then
        environment=$VIRTUAL_ENV
    # conda's base environment is everybody's: not a place to install into.
    elif [[ -n ${CONDA_PREFIX:-} && ${CONDA_DEFAULT_ENV:-base} != base ]]; then
        environment=$CONDA_PREFIX
    fi
    if [[ -n $environment ]]; then
        python=$environment/bin/python
        if ! _python_fits "$python"; then
            say "the active environment $environment must be of Python 3.10 to 3.13"
            return 1
        fi
        # Some tools make environments without pip.
        "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >&2
        return
    fi
    environment=$root/.venv
    python=$environment/bin/python
    # An environment that was interrupted while it was made has no pip.
    _python_fits "$python" && "$python" -m pip --version >/dev/null 2>&1 && return
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
        _python_fits "$candidate" && base=$candidate && break
    done
    if [[ -z $base ]]; then
        say "no Python 3.10 to 3.13 here; install one, or name it in PYTHON"
        return 1
    fi
    if ! "$base" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        say "$base cannot make environments: install its venv module" \
            "(Debian: apt-get install python3-venv)"
        return 1
    fi
    say "making the environment $environment"
    "$base" -m venv --clear "$environment" >&2
}

# What pip says is of use only when it fails.
_pip() {
    local log=$environment/dfdetect-pip.log
    "$python" -m pip --disable-pip-version-check "$@" >"$log" 2>&1 && return
    tail -n 20 "$log" >&2
    say "pip failed; all it said is in $log"
    return 1
}

# opencv-python draws windows and so needs libGL, which a server does not have.
_ensure_opencv() {
    local problem version
    problem=$("$python" -c 'import cv2' 2>&1) && return
    if [[ $problem != *"cannot open shared object file"* ]]; then
        printf '%s\n' "$problem" >&2
        return 1
    fi
    say "opencv-python does not load here (${problem##*ImportError: });" \
        "putting opencv-python-headless in its place"
    version=$("$python" -c \
        'import importlib.metadata as m; print(m.version("opencv-python"))') || return
    # Both own the folder cv2: the first must go before the second comes.
    _pip uninstall --yes opencv-python opencv-python-headless || return
    _pip install --no-deps "opencv-python-headless==$version" || return
    "$python" -c 'import cv2' >&2
}

prepare_environment() {
    local root=$1 extra=${2:-} stamp state
    _choose_environment "$root" || return
    stamp=$environment/.dfdetect${extra:+-$extra}
    state=$(cd "$root" && "$python" -c 'import hashlib, os, sys
setup = open("setup.py", "rb").read()
print(hashlib.sha256(setup).hexdigest(), sys.version.split()[0], os.getcwd())') || return
    if [[ -f $stamp && $(<"$stamp") == "$state" ]]; then
        return
    fi
    say "installing into $environment (about 1 GB to fetch the first time)"
    # The CPU-only and nightly builds own the same files as tensorflow.
    printf '%s\n' 'tensorflow==2.20.*' 'tensorflow-cpu==0' 'tf-nightly==0' \
        >"$environment/dfdetect-constraints.txt" || return
    (cd "$root" && _pip install --use-pep517 \
        --constraint "$environment/dfdetect-constraints.txt" \
        --editable ".${extra:+[$extra]}") || return
    _ensure_opencv || return
    printf '%s\n' "$state" >"$stamp"
}
