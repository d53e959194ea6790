# Everything a developer or an operator without Docker needs; each target does its own set-up.
.DELETE_ON_ERROR:
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help:
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{sub(/:.*/, "", $$1); printf "  %-16s %s\n", $$1, $$2}'

$(VENV)/.created:
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' || { \
	  echo '$(PYTHON) must be Python 3.10 or later with venv (Debian: apt install python3-venv);' \
	    'another one: make PYTHON=python3.11' >&2; exit 1; }
	@echo 'creating the environment $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Stages of the environment. Each adds an extra of pyproject.toml to the stage before it, and is
# renewed when that file changes.
$(VENV)/.run: $(VENV)/.created
$(VENV)/.drill: $(VENV)/.run
$(VENV)/.docs: $(VENV)/.run
$(VENV)/.dev: $(VENV)/.drill $(VENV)/.docs
$(VENV)/.bench: $(VENV)/.dev
$(VENV)/.fuzz: $(VENV)/.dev
# Applications for tests that cannot live beside the tools of the tests, and Flask's release with its tutorial.
$(VENV)/.frameworks: $(VENV)/.dev
	@echo 'installing into $(VENV)/frameworks applications to be measured'
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --target $(VENV)/frameworks \
	  dash py4web httpbin >$(VENV)/pip.log 2>&1 || { tail -n 1 $(VENV)/pip.log >&2; exit 1; }
	@$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --no-binary flask \
	  --dest $(VENV)/frameworks flask >$(VENV)/pip.log 2>&1 || { tail -n 1 $(VENV)/pip.log >&2; exit 1; }
	@touch $@

$(VENV)/.%: pyproject.toml
	@echo 'installing into $(VENV) the packages of the stage "$*"'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]' >$(VENV)/pip.log 2>&1 || { \
	  grep '^ *ERROR' $(VENV)/pip.log | tail -n 1; \
	  echo 'The packages cannot be installed; $(VENV)/pip.log has all that pip said. The first time needs the' \
	    'internet; without it, name a mirror in PIP_INDEX_URL, or a directory of wheels with' \
	    'PIP_NO_INDEX=1 PIP_FIND_LINKS=directory.'; exit 1; } >&2
	@touch $@

.PHONY: tools
tools: $(VENV)/.created ## get Prometheus, Alertmanager and their like into .tools/
	@$(BIN)/python -m prometheus.tools

# For the tests of pages; where it cannot be installed those tests say what they lack.
.PHONY: browser
browser:
	@if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo 'installing chromium'; \
	  apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium >/dev/null; fi

.PHONY: run
run: SINCE := $(shell date +%s)
run: $(VENV)/.run ## the whole stack without Docker, until Ctrl-C
	@$(BIN)/python -m prometheus.run --since $(SINCE)

.PHONY: stop
stop: $(VENV)/.run ## end the run that is there, or what one that was killed has left
	@$(BIN)/python -m prometheus.run --stop

.PHONY: test
test: $(VENV)/.dev $(VENV)/.frameworks tools browser ## run every test
	$(BIN)/python -m pytest -m 'not soak' --numprocesses 4 --dist loadfile --no-loadscope-reorder

# One row by name: make matrix ARGS=flask-2.2
.PHONY: matrix
matrix: $(VENV)/.dev ## the exporter's tests with old and new releases of what it needs
	@$(BIN)/python -m tests.rig.command tests.matrix $(ARGS)

# strace lets system calls fail, atheris fuzzes; where one cannot be had, its runs say so and are skipped.
.PHONY: soak
soak: $(VENV)/.dev tools ## the long failure and fuzz runs
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]' || true
	@if ! command -v strace >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo 'installing strace'; apt-get -qq update && apt-get -qq install --yes strace >/dev/null; fi
	$(BIN)/python -m pytest -m soak

# For another time, in seconds, and some parsers by name: make fuzz ARGS='60 settings query'
.PHONY: fuzz
fuzz: $(VENV)/.fuzz ## an hour of fuzzing for every parser of foreign bytes
	@$(BIN)/python -m tests.rig.command tests.fuzz $(or $(ARGS),3600)

.PHONY: lint
lint: $(VENV)/.dev tools ## ruff, mypy, rules and configurations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m prometheus.run.dialect
	.tools/promtool check rules --lint=none prometheus/rules/*.yml
	.tools/amtool check-config prometheus/alertmanager/*.yml

# Without the load generator wrk the run through gunicorn is skipped. It draws the pictures in tests/bench/ anew. Some
# parts by name: make bench ARGS='scrape memory'
.PHONY: bench
bench: $(VENV)/.bench tools ## what measuring costs, beside peers; results in .bench/
	@if ! command -v wrk >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo 'installing wrk'; apt-get -qq update && apt-get -qq install --yes wrk >/dev/null; fi
	@$(BIN)/python -m tests.rig.command tests.bench $(ARGS)

.PHONY: docs
docs docs-serve: export NO_MKDOCS_2_WARNING = 1 # the theme's advertisement for its successor
docs: $(VENV)/.docs ## build the documentation site into build/docs, with every link checked
	$(BIN)/python -m mkdocs build

.PHONY: docs-serve
docs-serve: $(VENV)/.docs ## the documentation site on http://127.0.0.1:8080, built again at each change
	$(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8080

.PHONY: reference
reference: $(VENV)/.dev ## regenerate docs/reference from the code, the rules and the commands
	$(BIN)/python -m docs.build

# With another prefix, as EXPORTER_PREFIX gives it: make rules dashboards PREFIX=web writes copies into .prefix/
.PHONY: dashboards
dashboards: $(VENV)/.dev ## regenerate grafana/dashboards from grafana/*.py
	$(BIN)/python -m grafana.build
	@$(if $(PREFIX),$(BIN)/python -m prometheus.prefix $(PREFIX) grafana/dashboards)

# Its data stays, with Prometheus up, for those who want to look: make dashboards-drill ARGS='--keep DIRECTORY'
.PHONY: dashboards-drill
dashboards-drill: $(VENV)/.dev tools ## plant half an hour of incidents, and tell how soon the dashboards show each
	@$(BIN)/python -m tests.rig.command tests.incidents $(ARGS)

# With other links or job names: make kubernetes GRAFANA_URL=https://grafana.example.com RULE_JOBS='node=node-exporter'
.PHONY: kubernetes
kubernetes: $(VENV)/.dev ## regenerate deploy/kubernetes from compose, the rules and the dashboards
	@$(BIN)/python -m deploy.build

.PHONY: rules
rules: $(VENV)/.run ## regenerate prometheus/rules/slo.yml and its tests from prometheus/slo.yml
	$(BIN)/python -m prometheus.slo
	@$(if $(PREFIX),$(BIN)/python -m prometheus.prefix $(PREFIX) prometheus/rules prometheus/runbooks tests/rules)

# One alert by name, or the way out of the deployment that is running: make drill ARGS=--live
.PHONY: drill
drill: $(VENV)/.drill ## fire every alert for real in a second stack
	@$(BIN)/python -m prometheus.drill $(ARGS)

# Another history, or some services of it: make backtest ARGS='--seed 15 --only shop'
.PHONY: backtest
backtest: $(VENV)/.dev tools ## what the alerts would have told of a normal fortnight and of incidents
	@$(BIN)/python -m tests.rig.command tests.backtest $(ARGS)

# Some rule files by name: make mutation ARGS='service slo'
.PHONY: mutation
mutation: $(VENV)/.dev tools ## change the rules one thing at a time, and see whether their tests notice
	@$(BIN)/python -m tests.rig.command tests.mutation $(ARGS)

# A sample by operator and its seed, or aimed changes by name: make mutate ARGS='sample 300 7'
.PHONY: mutate
mutate: $(VENV)/.dev ## change the exporter one thing at a time, and see whether its tests notice
	@$(BIN)/python -m tests.rig.command tests.mutate $(ARGS)
