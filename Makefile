# Everything starts here: 'make' alone lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help env env-dev demo docs test depth bench snakemakes lint format lock upgrade clean

CORES ?= $(shell nproc 2>/dev/null || echo 2)
PYTEST_ARGS ?=
DEPTH_ARGS ?=
DEMO_EXPOSURES ?= 5
DEMO_SEED ?= 4

BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# The interpreter that makes .venv: 'make env PYTHON=python3.12'.
export PYTHON

SNAKEFILES := $(wildcard Snakefile rules/*.smk)

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env:  ## install what a run needs: .venv, source-extractor, scamp
	@tools/install.sh

env-dev:  ## the same, and what the tests and linters need
	@tools/install.sh --dev

# A burst of high redshift: its afterglow fades in i, Z and J, and is not seen in r.
demo: env demo/.simulated  ## reduce a simulated RATIR night, offline; ends with demo/imredux/night.html
	snakemake --cores $(CORES) --config datadir=demo/raw imdir=demo/imredux refcat=demo/reference.ecsv target_radec="150.1 20.3"

demo/.simulated: tests/simulate.py | env
	rm -rf demo/raw demo/truth demo/reference.ecsv
	python tests/simulate.py demo --instrument ratir --exposures $(DEMO_EXPOSURES) --seed $(DEMO_SEED) --no-detector-truth \
	    --aperture riZJcenter --afterglow 18
	touch $@

# Files of tests at the same time, the longest first: one more than there are cores, since some wait
# for daemons and clocks. pytest comes last, so that its summary ends the output.
test: env-dev lint  ## check the style, then run all tests
	pytest -n $$(($$(nproc 2>/dev/null || echo 2) + 1)) --dist loadfile --no-loadscope-reorder $(wildcard tests/real tests/workflow tests/unit) $(PYTEST_ARGS)

depth: env-dev  ## put stars into simulated frames and see how faint the stack finds them
	python tests/depth.py $(DEPTH_ARGS)

docs: env-dev  ## build the documentation as a site, into site/index.html
	NO_MKDOCS_2_WARNING=1 mkdocs build -q

lint: env-dev  ## check the style of Python and Snakemake files
	ruff check .
	ruff format --check .
	mypy
	$(if $(SNAKEFILES),snakefmt --check $(SNAKEFILES))

format: env-dev  ## put Python and Snakemake files into that style
	ruff check --fix .
	ruff format .
	$(if $(SNAKEFILES),snakefmt $(SNAKEFILES))

bench: env-dev  ## measure each step against other ways to do the same, into the docs
	python benchmarks/bench.py
	python benchmarks/cosmicrays.py

snakemakes: env-dev  ## reduce a small night with the oldest and the newest Snakemake
	tools/snakemakes.sh $(SNAKEMAKES)

lock:  ## renew the lock files after a change of requirements*.in, keeping the versions that hold
	tools/lock.sh

upgrade:  ## renew the lock files with the newest versions
	tools/lock.sh --upgrade

clean:  ## remove the demo and what the tests left; .venv and reduced nights stay
	rm -rf demo .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find scripts tests -name __pycache__ -prune -exec rm -rf {} +
