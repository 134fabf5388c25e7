#!/usr/bin/env bash
# Install what the workflow needs: the AstrOmatic programs (apt, as root) and .venv from the lock files.
# Usage: tools/install.sh [--dev]     --dev adds the tests' and linters' packages
# Run again it returns at once, as long as nothing is missing and the lock files are the same.
set -euo pipefail
cd "$(dirname "$0")/.."

# The Makefile, or a shell that has .venv activated, puts it first: it must not be made from itself.
PATH=":$PATH:"
PATH=${PATH//":$PWD/.venv/bin:"/:}
PATH=${PATH#:}
PATH=${PATH%:}

locks=(requirements.lock)
# Without what it depends on: a package of which one file is used.
alone=(requirements-difference.lock)
stamp=.venv/.installed
if [ "${1:-}" = --dev ]; then
    locks+=(requirements-dev.lock)
    alone+=(requirements-axe.lock)
    stamp=.venv/.installed-dev
fi

fail() {
    echo "autoproc: $*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Root on a machine with apt may install; anyone else is told what to do.
may_install() {
    [ "$(id -u)" = 0 ] && have apt-get
}

apt_updated=
apt_install() {
    echo "autoproc: installing $* with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    if [ -z "$apt_updated" ]; then
        apt-get update -qq || fail "apt-get update failed, see above; is the network there?"
        apt_updated=yes
    fi
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        fail "apt-get could not install $*, see above; 'conda env create -f environment.yml' is the other way."
}

conda_way="or use conda: 'conda env create -f environment.yml && conda activate autoproc'"

# --- the AstrOmatic programs, under any of the names they go by
missing=()
have source-extractor || have sex || have sextractor || missing+=(source-extractor)
have scamp || missing+=(scamp)
# The tests and benchmarks compare stacks with SWarp's; a run does not need it.
if [ "${1:-}" = --dev ]; then
    have swarp || have SWarp || missing+=(swarp)
fi
if [ ${#missing[@]} -gt 0 ]; then
    may_install || fail "${missing[*]} missing: install with 'sudo apt-get install ${missing[*]}', $conda_way."
    apt_install "${missing[@]}"
fi

# --- for the tests: a browser that shows the page, programs that judge the products, a Slurm for the
# cluster profile. Without them the tests that need them are skipped.
install_for_tests() {
    local names=()
    have chromium || names+=(chromium)
    have chromedriver || names+=(chromium-driver)
    have fitsverify || names+=(fitsverify)
    have stilts || names+=(stilts)
    if ! PATH="$PATH:/usr/sbin" have slurmctld || ! PATH="$PATH:/usr/sbin" have munged; then
        names+=(slurmctld slurmd slurm-client munge)
    fi
    [ ${#names[@]} = 0 ] || apt_install "${names[@]}"
}

# --- a Python that is new enough and can make virtual environments
new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if have "$name" && new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# The commands and the module `autoproc`: src/ as it lies here, so nothing has to be built.
install_commands() {
    local packages name
    packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$PWD/src" >"$packages/autoproc.pth"
    # -P: what lies in the working directory, maybe among raw frames, is no module.
    for name in autoproc autoproc-refcat; do
        printf '#!/bin/sh\nexec "$(dirname "$0")/python" -P -m %s "$@"\n' "${name/-/.}" >".venv/bin/$name"
        chmod +x ".venv/bin/$name"
    done
}

# The stamp holds the locks' digest and the folder: a copied or moved .venv has wrong paths in it.
fingerprint="$(cat "${locks[@]}" "${alone[@]}" | sha256sum | cut -d' ' -f1) $PWD"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$fingerprint" ] && new_enough .venv/bin/python; then
    if [ "${1:-}" = --dev ] && may_install; then install_for_tests; fi
    [ -x .venv/bin/autoproc-refcat ] || install_commands
    exit 0
fi

if ! python=$(find_python); then
    [ -z "${PYTHON:-}" ] || fail "$PYTHON is not a Python of 3.11 or newer: give another, as in 'make env PYTHON=python3.12'."
    may_install || fail "no Python of 3.11 or newer found: install one ('sudo apt-get install python3 python3-venv'), $conda_way."
    apt_install python3 python3-venv
    python=$(find_python) ||
        fail "this system's python3 is older than 3.11: install a newer one and run 'make env PYTHON=python3.12', $conda_way."
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    may_install || fail "$python cannot make virtual environments: install with 'sudo apt-get install python$version-venv', $conda_way."
    apt_install "python$version-venv"
fi

# While pip works.
beside=
if [ "${1:-}" = --dev ] && may_install; then
    install_for_tests &
    beside=$!
fi

# --- the virtual environment
if ! new_enough .venv/bin/python || ! grep -qsxF "$PWD" .venv/.folder; then
    rm -rf .venv
    "$python" -m venv .venv || fail "$python could not make .venv, see above."
    echo "$PWD" >.venv/.folder
fi
echo "autoproc: installing ${locks[*]} into .venv (some minutes the first time)"
requirements=()
for lock in "${locks[@]}"; do
    requirements+=(-r "$lock")
done
.venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check --require-hashes "${requirements[@]}" ||
    fail "pip could not install ${locks[*]}, see above; is the network there?"
for lock in "${alone[@]}"; do
    .venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check --no-deps --require-hashes -r "$lock" ||
        fail "pip could not install $lock, see above; is the network there?"
done
install_commands
# pip would do it on one core. What some packages have for other versions of Python does not compile.
.venv/bin/python -m compileall -qq -j 0 .venv/lib || true
# Loops over pixels are compiled once, here and not in the first night.
PYTHONPATH=scripts .venv/bin/python -c "import stack" || fail "scripts/stack.py cannot be imported, see above."
if [ -n "$beside" ]; then
    wait "$beside" || exit 1
fi
echo "$fingerprint" >"$stamp"
