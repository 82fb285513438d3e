# Everything that has logic is Python: infra/local, infra/deploy, tests. This file only names the commands.
FOUND := $(shell for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
ifeq ($(FOUND),)
$(error moorage needs Python 3.11 or newer and found none on the PATH: install one, or name it: make PYTHON=/path/to/python3.11 run)
endif
ENVIRONMENTS = @$(FOUND) -m infra.local.environments
# $(call need,NAME,EXAMPLE) stops a recipe before its first line runs, if NAME is not given.
need = $(if $(strip $($(1))),,$(error make $@ needs $(1)=..., for example: make $@ $(2)))

.DEFAULT_GOAL := help
.PHONY: help venv lock

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'
venv:  ## install .venv with all that a developer needs, from the lock
	$(ENVIRONMENTS) dev
lock:  ## write requirements*.txt anew from requirements*.in
	$(ENVIRONMENTS) lock

LOCAL = @$(FOUND) -m infra.local

.PHONY: run stop status logs plugin forget clean
run:  ## run the whole system on this machine; Ctrl-C stops it and keeps its state
	$(LOCAL) run
stop:  ## stop it from another terminal
	$(LOCAL) stop
status:  ## show what runs, and where
	$(LOCAL) status
logs:  ## show all logs, in order of time; FOLLOW=1 goes on, LINES=50 shows fewer
	$(LOCAL) logs
plugin:  ## ID=mine SOCKET=/path/csi.sock: add any CSI plugin, while it runs; Ctrl-C removes it
	$(call need,ID,ID=mine SOCKET=/path/csi.sock)
	$(call need,SOCKET,ID=mine SOCKET=/path/csi.sock)
	$(LOCAL) plugin "$(ID)" "$(SOCKET)"
forget:  ## stop it and remove its state, volumes too; asks first, YES=1 says yes
	$(LOCAL) forget
clean:  ## remove environments, packages and caches; state stays
	$(LOCAL) clean

DEV_PYTHON = .venv/bin/python
# With bytecode, also if the shell switches it off. Without it each process compiles every test again.
PYTEST = PYTHONDONTWRITEBYTECODE= $(DEV_PYTHON) -m pytest
APART = tests/conformance tests/bench

.PHONY: test lint check conformance bench soak format
# Five processes more than there are processors: tests of whole local systems wait more than they work.
JOBS ?= $(shell $(FOUND) -c 'import os; print(min(12, (os.cpu_count() or 1) + 5))')
test: venv emulator  ## run all tests but those against other people's programs; JOBS=1 for one at a time
	$(PYTEST) -n $(JOBS) --dist loadgroup --durations=10 $(addprefix --ignore=,$(APART)) $(ARGS)
lint: venv  ## run ruff and mypy
	$(DEV_PYTHON) -m ruff check .
	$(DEV_PYTHON) -m ruff format --check .
	$(DEV_PYTHON) -m mypy
check: lint test  ## run lint and test
format: venv  ## format the tree with ruff
	$(DEV_PYTHON) -m ruff format .
	$(DEV_PYTHON) -m ruff check --fix .
conformance: venv emulator  ## test with other people's programs, and all that `make test` tries a sample of
	$(DEV_PYTHON) -m infra.local.conformance $(ARGS)
bench: venv emulator  ## report latencies and import times
	$(PYTEST) tests/bench -s $(ARGS)
SOAK_SECONDS ?= 600
SOAKED = tests/property tests/operations/test_faults.py tests/conformance/test_soak_blocking.py
soak: venv emulator  ## test claims, faults and fifty blocked readers, each for about SOAK_SECONDS=600
	SOAK_SECONDS=$(SOAK_SECONDS) $(PYTEST) $(SOAKED) --many --soak=$(SOAK_SECONDS) $(ARGS)

.PHONY: emulator deploy
emulator:
	$(ENVIRONMENTS) emulator functions
deploy:  ## STAGE=prod ARGS="--allow-cidr CIDR": deploy to AWS, for these addresses; docs/deploying-to-aws.md
	$(call need,STAGE,STAGE=prod ARGS="--allow-cidr 203.0.113.0/24")
	$(ENVIRONMENTS) run
	$(DEV_PYTHON) -m infra.deploy --stage "$(STAGE)" $(ARGS)
