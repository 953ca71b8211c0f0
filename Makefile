# Everything a contributor needs; each target sets up what it needs and is missing.
# `make PYTHON=python3.12 test` chooses the Python (3.11 or later) that `.venv` is made with.

PYTHON ?= python3
VENV_PYTHON = .venv/bin/python
SET_UP = $(PYTHON) tools/setup_env.py

.DEFAULT_GOAL := help
.PHONY: help demo test quick fuzz lint format build wheel docs size bench clean distclean

help: ## Lists the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1\t\2/' | expand -t 11

demo: ## Converts a small model, runs it on held-out digits and shows the answers
	@$(SET_UP) demo
	@$(VENV_PYTHON) -m ortolan.demo

test: ## Runs every test and lint on every runtime that this machine has (under 30 minutes)
	@$(SET_UP) test
	@$(VENV_PYTHON) tools/run_tests.py

quick: ## Runs the fast part of the tests, for use while working (under 2 minutes)
	@$(SET_UP) test
	@$(VENV_PYTHON) tools/run_tests.py --quick

fuzz: ## Runs every fuzz target for SECONDS=n seconds (60), or on until each has had MINUTES=n
	@$(SET_UP) test
	@$(VENV_PYTHON) -m pip install --quiet atheris || echo "without atheris: Python targets in a plain loop"
	@$(VENV_PYTHON) tests/fuzz/fuzz.py --seconds $(or $(SECONDS),60) $(if $(MINUTES),--minutes $(MINUTES))

lint: ## Checks types, rules and formatting of Python and C++
	@$(SET_UP) test
	@$(VENV_PYTHON) tools/check.py

format: ## Formats Python and C++ in place
	@$(SET_UP) test
	@$(VENV_PYTHON) tools/check.py --fix

build: ## Compiles the runtime for this machine into src/ortolan/lib, if a source changed
	@$(SET_UP) demo

wheel: build ## Packs one wheel for all platforms into dist
	ORTOLAN_WHEEL_TARGETS=all $(VENV_PYTHON) -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .

docs: ## Builds the documentation into build/site
	@$(SET_UP) demo
	@$(VENV_PYTHON) -m pip install --quiet "mkdocs-material>=9.5" "mkdocstrings[python]>=0.26"
	@NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --quiet
	@echo build/site/index.html

size: ## Builds every target and prints the bytes of its parts beside their budgets
	@$(SET_UP) test
	@$(VENV_PYTHON) benchmarks/size.py --check

bench: ## Times models beside onnxruntime
	@$(SET_UP) test
	@$(VENV_PYTHON) benchmarks/compare.py

clean: ## Removes what was built and cached, but not the Python environment
	rm -rf build dist src/ortolan/lib .mypy_cache .pytest_cache .ruff_cache
	find src tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Removes the Python environment too
	rm -rf .venv
