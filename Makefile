# The two commands of the README: `make demo` and `make test`. Each makes its own .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.demo
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Neither uv nor the line for torch below compiles what it installs, so whoever imports a module first does. Where that is forbidden, as
# images of Python often do, each of the many processes of a run compiles torch anew: some six seconds.
unexport PYTHONDONTWRITEBYTECODE

# uv installs in seconds what pip takes minutes for. It does not read pip's settings, so where a mirror is known to pip alone, pip
# installs instead.
define install
$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt $(1) || \
  { $(PIP) --upgrade pip && $(PIP) $(1); }
endef

.PHONY: demo test unit lint docs clean sshd

demo: $(DEMO) ## set up what a run needs, then compress a small CNN on scikit-learn's digits and show what came out
	$(BIN)/secateur run quick

test: $(READY) sshd ## set up, then run every test, two files at a time; each of them keeps to one thread
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

unit: $(READY) ## the inner loop: unit tests and contracts, without those that take longer than some seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow"

sshd: # the tests of devices over ssh have a server of their own; without one they are skipped
	@command -v sshd >/dev/null || test -x /usr/sbin/sshd || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-server >/dev/null; } || true

lint: $(READY) docs ## format, lint, types, floors; the documentation builds without a warning
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## the documentation as pages, in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean: ## remove the environment, caches and build products; mlruns/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes by pip, which takes a build without CUDA where its settings offer one.
$(DEMO): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "secateur needs Python 3.11 or newer: make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) uv
	$(PIP) --no-compile torch
	$(call install,--editable .)
	touch $(DEMO)

$(READY): $(DEMO)
	$(call install,--editable ".[dashboard]" --group dev)
	touch $(READY)
