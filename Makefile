# Everything a developer or an operator without Docker needs; each target does its own set-up.
.DELETE_ON_ERROR:
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help:
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{sub(/:.*/, "", $$1); printf "  %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' || { \
	  echo '$(PYTHON) must be Python 3.10 or later with venv (Debian: apt install python3-venv);' \
	    'another one: make PYTHON=python3.11' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[app,cli,dev]'
	@touch $@

.PHONY: tools
tools: $(VENV)/.installed ## get Prometheus, Alertmanager and their like into .tools/
	@$(BIN)/python -m prometheus.tools

# For the tests of pages; where it cannot be installed those tests say what they lack.
.PHONY: browser
browser:
	@if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo 'installing chromium'; \
	  apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium >/dev/null; fi

.PHONY: run
run: $(VENV)/.installed ## the whole stack without Docker, until Ctrl-C
	@$(BIN)/python -m prometheus.run

.PHONY: test
test: $(VENV)/.installed tools browser ## run every test
	$(BIN)/python -m pytest -m 'not soak'

.PHONY: soak
soak: $(VENV)/.installed tools ## the long failure and fuzz runs
	$(BIN)/python -m pytest -m soak

.PHONY: lint
lint: $(VENV)/.installed tools ## ruff, mypy, rules and configurations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	.tools/promtool check config prometheus/prometheus.yml
	.tools/promtool check rules prometheus/rules/*.yml
	.tools/amtool check-config prometheus/alertmanager/*.yml

# The peers to compare with, and the load generator; without that one the run through gunicorn is skipped.
.PHONY: bench
bench: $(VENV)/.installed tools ## what measuring costs, beside peers; results in .bench/
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@if ! command -v wrk >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo 'installing wrk'; apt-get -qq update && apt-get -qq install --yes wrk >/dev/null; fi
	@$(BIN)/python -m tests.bench

.PHONY: dashboards
dashboards: $(VENV)/.installed ## regenerate grafana/dashboards from grafana/*.py
	$(BIN)/python -m grafana.build

.PHONY: rules
rules: $(VENV)/.installed ## regenerate prometheus/rules/slo.yml and its tests from prometheus/slo.yml
	$(BIN)/python -m prometheus.slo

# One alert by name, or the way out of the deployment that is running: make drill ARGS=--live
.PHONY: drill
drill: $(VENV)/.installed ## fire every alert for real in a second stack
	@$(BIN)/python -m prometheus.drill $(ARGS)
