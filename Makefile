# `make repro` reproduces the experiment in params.yaml on a fresh machine; `make test` runs all checks and tests.
#
# It needs bash, git and Python 3.11 or newer with venv: Linux, macOS, or WSL on Windows. Without make, install by
# `pip install -e .` in a virtual environment and run `dvc repro`.
SHELL := /bin/bash
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
# Stages run `python`, and scripts call `dvc` by name: put the environment first in PATH.
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1

.PHONY: help repro test install check

help: ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

repro: .venv/run ## install, reproduce params.yaml, and publish the run to MLflow
	DDPM_SUMMARY=later dvc repro
	ddpm publish

install: .venv/test ## install the project and the packages of the tests

check: .venv/test ## check format, lint, types and imports
	ruff format --check .
	ruff check .
	mypy
	python -m pytest -q tests/test_house.py

test: check ## run the checks and all tests
	python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.venv/run: requirements.lock pyproject.toml
	$(call environment,requirements.lock)

.venv/test: requirements-test.lock pyproject.toml
	$(call environment,requirements-test.lock)
	touch .venv/run

define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	"$(BIN)/python" -m pip install --disable-pip-version-check --require-hashes -r $(1)
	"$(BIN)/python" -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
endef
