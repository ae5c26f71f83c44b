# Every target makes the virtual environment it needs on its first run; later runs reuse it.
#   PYTHON=python3.12   the interpreter that makes the environment
#   VENV=/some/where    where the environment lies (default: .venv)
#   ARGS="..."          passed on by demo, test and bench

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
RECIPE_FILES := setup.cfg pyproject.toml constraints.txt

# Two workers that each run two-threaded kernels fight for the cores: one thread a worker.
# A worker holds torch, so on a large machine their number is bounded by memory, not by cores.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
TEST_WORKERS ?= auto
TEST_OPTIONS := -n $(TEST_WORKERS) --maxprocesses 8 --dist worksteal

# The stamps share one environment, and pip does not lock it.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test coverage lint bench docs clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
		| awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.installed-all ## train on bundled digits, detect what is foreign to them, save a figure
	$(BIN)/skgradood demo $(ARGS)

test: $(VENV)/.installed-test ## run the tests that need no GPU and no long time
	$(TEST_ENV) $(BIN)/python -m pytest $(TEST_OPTIONS) $(ARGS)

coverage: $(VENV)/.installed-test ## the same tests, with the lines they do not reach
	$(TEST_ENV) $(BIN)/python -m pytest $(TEST_OPTIONS) --cov --cov-report=term $(ARGS)

lint: $(VENV)/.installed-lint ## check style, imports, docstrings and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench ## the table of a benchmark; without ARGS, its options
	$(BIN)/python -m benchmarks.ood $(or $(ARGS),--help)

docs: $(VENV)/.installed-docs ## build the documentation in docs/_build; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean: ## remove what the targets above have made, the environment included
	rm -rf $(VENV) build dist skgradood.egg-info docs/_build docs/generated demo-output
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	find skgradood tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "skgradood needs Python 3.11 or newer, but '$(PYTHON)' is missing or older." >&2; \
		echo "Name another interpreter: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "'$(PYTHON)' cannot make virtual environments." >&2; \
		echo "Install its venv module (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp for each extra: it is as new as the last installation from the files it depends on.
$(VENV)/.installed-%: $(VENV)/.created $(RECIPE_FILES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	@touch $@
