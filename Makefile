# build | check | test | demo | bench | bench-quick | soak (parts: soak-kill, soak-model, soak-sim, soak-real)
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

NATIVE := $(shell find src bindings tests -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h')
LINTED := src bindings bench tests setup.py
LINTED_NATIVE := $(shell find src bindings tests -name '*.pyx' -o -name '*.pxd')

# $(call timed,name,command): runs it and prints how long it took
define timed
@begun=$$(date +%s); $(2); status=$$?; echo "== $(1): $$(( $$(date +%s) - begun )) s"; exit $$status
endef
# $(call pytest,expression): exit code 5 says that no test is marked so, which is no failure
pytest = $(BIN)/python -m pytest -q -m "$(1)" $(ARGS) || [ $$? -eq 5 ]

ROUNDS ?= 200
SECONDS ?= 3600
SEEDS ?= 1..2000
MINUTES ?= 60

.PHONY: build check test demo bench bench-quick soak soak-kill soak-model soak-sim soak-real seeds lint types unit slow clients \
	packages-clients clean

build: $(VENV)/.built

$(VENV)/.installed: pyproject.toml .ci/packages
	bash .ci/packages build
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "repstore needs Python >= 3.11, $(PYTHON) is $$($(PYTHON) -V)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check "setuptools>=77" "cython>=3.2,<4"
	REPSTORE_TEST_EXTENSIONS=1 $(BIN)/pip install -q --disable-pip-version-check \
		--no-build-isolation -e ".[cli,dev]"
	touch $@

$(VENV)/.built: $(VENV)/.installed setup.py $(NATIVE)
	REPSTORE_TEST_EXTENSIONS=1 $(BIN)/python setup.py -q build_ext --inplace
	touch $@

lint: build
	$(BIN)/ruff check $(LINTED)
	$(BIN)/cython-lint $(LINTED_NATIVE)

types: build
	$(BIN)/mypy --strict src/repstore

unit: build
	$(call timed,unit tests,$(call pytest,not slow and not client))

slow: build
	$(call timed,slow tests,$(call pytest,slow and not client))

clients: build packages-clients
	$(call timed,real clients,$(call pytest,client))

packages-clients:
	bash .ci/packages clients

check:
	$(call timed,build,$(MAKE) --no-print-directory build)
	$(call timed,lint,$(MAKE) --no-print-directory lint)
	$(call timed,types,$(MAKE) --no-print-directory types)
	@$(MAKE) --no-print-directory unit

test: check
	@$(MAKE) --no-print-directory slow
	@$(MAKE) --no-print-directory seeds
	@$(MAKE) --no-print-directory clients

demo: build packages-clients
	$(BIN)/python -m bench.demo $(ARGS)

bench: build packages-clients
	$(BIN)/python -m bench $(ARGS)

bench-quick: build packages-clients
	$(BIN)/python -m bench --quick $(ARGS)

# kill -9 of random nodes under load, ROUNDS times; about 10 s a round
soak-kill: build packages-clients
	$(call timed,soak-kill,$(BIN)/python -m tests.cluster.soak --rounds $(ROUNDS) $(ARGS))

# the protocol model at the largest bounds that fit 16 GiB and an hour on one core
soak-model: build
	$(call timed,soak-model,$(BIN)/python -m tests.model --soak $(ARGS))

# simulated clusters, each decided by its seed; see docs/simulator.md
seeds: build
	$(call timed,seeds,$(BIN)/repstore sim --seeds $(SEEDS) $(ARGS))

soak-sim: build
	$(call timed,soak-sim,$(BIN)/repstore sim --seeds 1000000..1199999 --minutes $(MINUTES) $(ARGS))

# kill, pause, partition and full disks under recorded clients, for SECONDS
soak-real: build
	$(call timed,soak-real,$(BIN)/python -m tests.cluster.soak_real --seconds $(SECONDS) $(ARGS))

soak: soak-kill soak-model soak-sim soak-real

clean:
	rm -rf build $(VENV) src/*.egg-info
	find src bindings tests -name '*.so' -delete
