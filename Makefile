.DEFAULT_GOAL := help
SHELL := bash
BIN := .venv/bin
# Measurements are the modules of loadtest/bench that can be run.
BENCHES = $(basename $(notdir $(shell grep -lw '^def run' loadtest/bench/*.py)))

.PHONY: help setup demo up test lint bench load soak gen lock clean

help: ## Say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-7s %s\n", $$1, $$2}'

setup: ## Make the environment in .venv, from the lock
	@scripts/setup.sh

demo: setup ## Run the whole road on real data: define, backfill, train, serve, replay, decide
	@$(BIN)/python -m demo

up: setup ## Serve the example shop until Ctrl-C; after make demo, with all that the demo left
	@$(BIN)/waypost up --repo feature_repo $(if $(wildcard data/demo/valkey),--data-dir data/demo --partitions 1 --clock virtual) $(ARGS)

# A file stays whole, since what starts a server for its tests does so once; long ones come first, as tests/conftest.py has it.
test: setup ## Run the tests, two at a time
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

soak: setup ## Run the long tests: crashes and restarts under load
	@$(BIN)/pytest -m soak --timeout 1800 $(ARGS)

lint: setup ## Run every static check
	@scripts/lint.sh

bench: setup ## Measure, each rival in the same run (NAME=forest: one; ARGS=--check: bounds must hold)
	@mkdir -p reports/bench
	@for name in $(or $(NAME),$(BENCHES)); do \
	  $(BIN)/waypost bench $$name --json reports/bench/$$name.json $(ARGS) || exit 1; done

load: setup ## Put a short load on a server of its own (ARGS="--target HOST:PORT" loads another)
	@$(BIN)/python -m loadtest $(ARGS)

gen: setup ## Generate the client package waypost/ from protos/
	@$(BIN)/python scripts/gen.py

lock: ## Compile the locks from pyproject.toml (ARGS="--upgrade-package NAME" moves one)
	@scripts/lock.sh . $(ARGS)

clean: ## Remove what was made here: environment, caches, reports, data
	rm -rf .venv .uv data feature_repo/data reports .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
