# Spokeshave: set-up, demo and checks. `make help` lists the targets.
# PYTHON=/path/to/python chooses the interpreter, VENV=folder the environment.
# PIP_FLAGS is passed to pip, e.g. PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu' for the CPU-only torch.

SHELL = /bin/sh
VENV ?= .venv
PYTHON ?=
PIP_FLAGS ?=
RUN_DIR ?= runs/demo
PYTEST_FLAGS ?=
BIN = $(VENV)/bin

.PHONY: help demo test check-fast format docs setup setup-dev clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: setup ## train LeNet on the embedded digits under SSL, shrink it, measure it, write runs/demo/report.html
	@$(BIN)/spokeshave run ssl --row demo --data digits --run-dir $(RUN_DIR) --resume

test: setup-dev check-fast docs ## format, lint, types, documentation, tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_FLAGS)

check-fast: setup-dev ## format, lint and types only
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright --level error

format: setup-dev ## rewrite the sources in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: setup-dev ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

clean: ## remove the environment, the demo and what the tools left behind
	rm -rf $(VENV) $(RUN_DIR) site build dist .pytest_cache .ruff_cache .hypothesis src/*.egg-info

setup: ## create the environment (what the demo needs)
	@$(call install,.,demo)

setup-dev: ## create the environment (what the tests need too)
	@$(call install,.[dev],dev)

# An environment is as wanted when its stamp holds the key: the pins, the interpreter's and this folder's path.
# `.installing` is left behind by a killed install only, and `.place` differs after a move; either way it is made anew.
define install
set -eu; \
export PIP_DISABLE_PIP_VERSION_CHECK=1; \
key="$$(cat pyproject.toml constraints.txt | cksum) $$(pwd)"; \
unmoved() { [ ! -f $(VENV)/.place ] || [ "$$(cat $(VENV)/.place)" = "$$(cd $(VENV) && pwd)" ]; }; \
alive() { [ ! -e $(VENV)/.installing ] && [ -x $(BIN)/python ] && unmoved && $(BIN)/python -m pip --version >/dev/null 2>&1; }; \
holds() { [ -f $(VENV)/.spokeshave-$$1 ] && [ "$$(cat $(VENV)/.spokeshave-$$1)" = "$$key" ]; }; \
if { holds $(2) || holds dev; } && [ ! -e $(VENV)/.installing ] && unmoved && $(BIN)/python -c '' 2>/dev/null; then exit 0; fi; \
if ! alive; then \
  found=; \
  for candidate in $(if $(PYTHON),'$(PYTHON)',python3.11 python3.12 python3.13 python3.14 python3 python); do \
    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$candidate; break; fi; \
  done; \
  if [ -z "$$found" ]; then \
    echo "Python 3.11 or newer was not found$(if $(PYTHON), at $(PYTHON)); install it or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; \
  fi; \
  if ! "$$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
    echo "$$found has no ensurepip, so it cannot make an environment: install its venv package (Debian: apt-get install python3-venv)" >&2; exit 1; \
  fi; \
  echo "making $(VENV) with $$found"; \
  "$$found" -m venv --clear $(VENV); \
  (cd $(VENV) && pwd > .place); \
fi; \
echo "installing $(1) into $(VENV) (minutes the first time)"; \
: > $(VENV)/.installing; \
if $(BIN)/python -m pip install -qq $(PIP_FLAGS) -c constraints.txt -e '$(1)'; then \
  printf '%s\n' "$$key" > $(VENV)/.spokeshave-$(2); rm -f $(VENV)/.installing; \
else \
  rm -f $(VENV)/.installing; \
  echo "pip could not install $(1): the lines above say why; the same command tries again" >&2; exit 1; \
fi
endef
