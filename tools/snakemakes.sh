#!/usr/bin/env bash
# Reduce a small simulated night with other versions of Snakemake, each in a virtual environment of
# its own: a release that moves something may cost speed, never a run.
# Usage: tools/snakemakes.sh [VERSION...]     without any: the oldest that is supported and the newest
set -euo pipefail
cd "$(dirname "$0")/.."

oldest=$(sed -n 's/^min_version("\(.*\)")$/\1/p' Snakefile)
newest=$(.venv/bin/python -m pip index versions snakemake 2>/dev/null | sed -n '1s/.*(\(.*\))/\1/p')
[ $# -gt 0 ] || set -- "$oldest" "$newest"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m venv "$work/uv"
"$work/uv/bin/python" -m pip install -qq --disable-pip-version-check uv
.venv/bin/python tests/simulate.py "$work/night" --instrument lmi --size 512 --exposures 3 \
    --no-detector-truth >/dev/null

for version; do
    environment="$work/$version"
    "$work/uv/bin/uv" venv -q --python .venv/bin/python "$environment"
    "$work/uv/bin/uv" pip install -q --python "$environment/bin/python" -r requirements.in \
        "snakemake==$version"
    # Its first run compiles the loops over pixels.
    (cd "$work" && PATH="$environment/bin:$PATH" "$environment/bin/snakemake" --cores 2 \
        --snakefile "$OLDPWD/Snakefile" --config datadir=night/raw "imdir=$version.products" \
        refcat=night/reference.ecsv >"$version.log" 2>&1) || {
        cat "$work/$version.log"
        echo "autoproc: fails with Snakemake $version, see above" >&2
        exit 1
    }
    grep -A3 "stack.*in $version.products" "$work/$version.log"
    echo "Snakemake $version: good; left out there:"
    grep -h "autoproc runs without" "$work/.snakemake/log/"*.log || echo "  nothing"
    rm -rf "$work/.snakemake"
done
