# Every target does its own set-up; the first run installs packages into .venv, later runs are quick.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DEMO := .venv/.installed-demo
DEV := .venv/.installed-dev
INPUTS := pyproject.toml constraints.txt scripts/setup

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint types budget bench clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/:/' | column -t -s ':'

$(DEMO): $(INPUTS)
	scripts/setup "$(PYTHON)" demo

$(DEV): $(INPUTS)
	scripts/setup "$(PYTHON)" dev

demo: $(DEMO) ## a trained network from torch to a signed bundle on two engines, in under a minute
	$(BIN)/edgekit demo

test: $(DEV) ## the quick tests
	$(BIN)/python -m pytest -n auto -m "not slow"

slow: $(DEV) ## the tests that take longer than 10 seconds each
	$(BIN)/python -m pytest -n auto -m slow

lint: $(DEV) ## ruff, architecture rules among them
	$(BIN)/ruff check .

types: $(DEV) ## mypy --strict
	$(BIN)/mypy

budget: $(DEV) ## files <= 400 lines, functions <= 60
	$(BIN)/python scripts/size_budget.py

bench: $(DEV) ## the measurements of docs/results.md that need nothing but this repository
	scripts/bench $(BIN)/python

clean: ## remove everything that was installed or built here
	rm -rf .venv build dist *.egg-info demo-out .mypy_cache .pytest_cache .ruff_cache .hypothesis
