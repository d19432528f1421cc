# Runs lnjax from a clone. Each target first sees to a virtual environment of its own, .venv, with
# the versions in constraints.txt. Once that is made, no target needs the network.
#
# Variables, given on the command line:
#   EXTRAS       optional dependencies, as in EXTRAS=gpu or EXTRAS=gpu,wandb
#   ARGS         arguments for the program that a target runs
#   PYTEST_ARGS  arguments for pytest, as in PYTEST_ARGS="-n 0 -k deepnorm"
#   PYTHON       the interpreter that .venv is made with, 3.11 or newer

EXTRAS ?=
ARGS ?=
# Tests mostly compile, which keeps one core busy; a worker takes up to 1 GB of memory.
PYTEST_ARGS ?= -n logical --maxprocesses 4
PYTHON ?=

VENV := .venv
PY := $(VENV)/bin/python
RUN := $(VENV)/.installed-run$(EXTRAS:%=-%)
DEV := $(VENV)/.installed-dev$(EXTRAS:%=-%)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install ablation test lint format benchmark profile notebook constraints clean FORCE

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo; sed -n 's/^# \(Variables.*\)/\1/p; s/^#   /  /p' Makefile

install: $(RUN) ## make .venv, for running experiments

ablation: $(RUN) ## train every placement side by side, and report
	$(PY) -m experiments.ablation $(ARGS)

test: lint ## check the style, then run the tests
	$(PY) -m pytest $(PYTEST_ARGS)

lint: $(DEV) ## check the style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(DEV) ## correct the style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

benchmark: $(RUN) ## measure the training throughput
	$(PY) -m experiments.benchmarks.throughput $(ARGS)

profile: $(RUN) ## compare the placements layer by layer at initialization
	$(PY) -m experiments.init_profile $(ARGS)

notebook: ## open the notebooks in JupyterLab
	@$(MAKE) --no-print-directory install EXTRAS=notebooks$(if $(EXTRAS),$(comma)$(EXTRAS))
	$(PY) -m jupyterlab $(ARGS) notebooks

clean: ## remove .venv, builds and caches; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- The environment ------------------------------------------------------------------------------

comma := ,

# uv where it works, which is quicker; otherwise pip.
ifneq ($(shell uv --version 2>/dev/null),)
create = uv venv --quiet --python "$$python"
pip = uv pip $(1) --python $(2)
needed := jax
else
create = "$$python" -m venv
pip = $(2) -m pip --disable-pip-version-check $(1)
needed := jax pip
endif

# $(call has,modules): a shell command that succeeds where .venv works and holds these modules.
has = $(PY) -c 'import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))' \
  $(1) 2>/dev/null

candidates = $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14)

# Sets $$python, or stops and says what is needed.
define find_python
python=; \
for candidate in $(candidates); do \
  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
    python=$$candidate; break; \
  fi; \
done; \
if test -z "$$python"; then \
  echo "lnjax needs Python 3.11 or newer. Older, or not found: $(candidates)" >&2; \
  echo "Install one, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
  exit 1; \
fi
endef

# Installs requirement $(1). An environment that was left half made is made anew.
define install
@set -e; rm -f $@; \
if ! $(call has,$(needed)); then \
  $(find_python); \
  echo "Making $(VENV) with $$python" >&2; \
  rm -rf $(VENV); \
  $(create) $(VENV) >&2; \
fi; \
echo "Installing $(1) into $(VENV); the first time takes a few minutes" >&2; \
$(call pip,install,$(PY)) --constraint constraints.txt --editable '$(1)' >&2
endef

# A stamp is out of date when what it was made from is newer, or its interpreter has gone since.
stale := $(shell $(call has,jax) || echo FORCE)

$(RUN): pyproject.toml constraints.txt $(stale)
	$(call install,.$(if $(EXTRAS),[$(EXTRAS)]))
	@touch $@

$(DEV): pyproject.toml constraints.txt $(stale)
	$(call install,.[dev$(if $(EXTRAS),$(comma)$(EXTRAS))])
	@touch $@ $(RUN)

constraints: ## write constraints.txt anew, from the newest versions
	@set -e; $(find_python); new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	$(create) "$$new/venv"; \
	$(call pip,install,"$$new/venv/bin/python") --editable '.[dev]'; \
	$(call pip,freeze,"$$new/venv/bin/python") --exclude-editable > "$$new/versions"; \
	{ echo "# What the tests run on: all that lnjax needs, with the dev extra. Written by"; \
	  echo "#     make constraints PYTHON=python3.11"; \
	  echo "# with the oldest Python supported, because newer ones run these versions too."; \
	  awk -F == 'NF == 2 { gsub("_", "-", $$1); print tolower($$1) "==" $$2 }' \
	    "$$new/versions" | LC_ALL=C sort; \
	} > constraints.txt
