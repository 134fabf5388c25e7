#!/usr/bin/env bash
# Make the lock files (requirements*.lock) from the .in files: one version of each package,
# good for Python 3.11 and newer on every platform, with the digests of all its files.
# Usage: tools/lock.sh [--upgrade]     without --upgrade, pins that still hold are kept
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq --disable-pip-version-check uv

for name in requirements requirements-dev requirements-axe requirements-difference; do
    alone=()
    # A file of that package is used, and nothing that the rest of it depends on.
    case "$name" in requirements-axe | requirements-difference) alone=(--no-deps) ;; esac
    "$work/venv/bin/uv" --no-config pip compile -q "$@" "${alone[@]}" "$name.in" -o "$name.lock" \
        --universal --python-version 3.11 --fork-strategy fewest \
        --generate-hashes --no-annotate --no-header
    {
        echo "# Made by 'make lock' from $name.in: do not edit."
        cat "$name.lock"
    } >"$work/lock"
    cat "$work/lock" >"$name.lock"
done
