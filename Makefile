# Everything a developer or an operator without Docker needs; each target does its own set-up.
.DELETE_ON_ERROR:
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help:
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[app,cli,dev]'
	touch $@

.PHONY: test
test: $(VENV)/.installed ## run every test
	$(BIN)/python -m pytest -m 'not soak'

.PHONY: lint
lint: $(VENV)/.installed ## ruff, mypy, rules and configurations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: dashboards
dashboards: $(VENV)/.installed ## regenerate grafana/dashboards from grafana/*.py
	$(BIN)/python -m grafana.build
