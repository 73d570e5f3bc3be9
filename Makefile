# build | check | test | mutants | demo | bench | bench-quick | bench-verify | sanitize
# soak (parts: soak-fuzz, soak-kill, soak-model, soak-sim, soak-real, soak-flip)
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
# $(call pytest,expression,more): exit code 5 says that no test is marked so, which is no failure
pytest = $(BIN)/python -m pytest -q --durations=10 --durations-min=5 -m "$(1)" $(2) $(ARGS) || [ $$? -eq 5 ]

ROUNDS ?= 200
SEEDS ?= 1..2000
MINUTES ?= 60
FUZZ_SECONDS ?= 300
SANITIZE_MINUTES ?= 120

.PHONY: build check test mutants demo bench bench-quick bench-verify bench-sim soak soak-fuzz soak-kill soak-model soak-sim soak-real soak-flip seeds faults lint types \
	unit slow clients packages-clients sanitize sanitize-address sanitize-thread clean

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

# docs/faults.md, from the marks of the tests
faults: build
	$(BIN)/python -m tests.faults

lint: build
	$(BIN)/ruff check $(LINTED)
	$(BIN)/cython-lint $(LINTED_NATIVE)

types: build
	$(BIN)/mypy --strict src/repstore

# tests that compute share the processors; those with real processes, which time limits wait for, do not
TOGETHER := -n 2 --dist worksteal
COMPUTING := tests/check tests/model tests/sim

unit: build
	$(call timed,unit tests,$(call pytest,not slow and not client,$(TOGETHER)))

slow: build
	$(call timed,slow tests that compute,$(call pytest,slow and not client,$(TOGETHER) $(COMPUTING)))
	$(call timed,slow tests,$(call pytest,slow and not client,$(COMPUTING:%=--ignore %)))

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

# plants every fault of tests/mutants/catalog.py in a copy of the tree, and shows what notices it
mutants: build
	$(call timed,mutants,$(BIN)/python -m tests.mutants $(ARGS))

demo: build packages-clients
	$(BIN)/python -m bench.demo $(ARGS)

bench: build packages-clients
	$(BIN)/python -m bench $(ARGS)
	$(BIN)/python -m bench.simulated

# what the simulator costs: simulated seconds and client operations in a second of one processor
bench-sim: build
	$(BIN)/python -m bench.simulated $(ARGS)

bench-quick: build packages-clients
	$(BIN)/python -m bench --quick $(ARGS)

# what verify costs on volumes of 1, 10 and 100 GiB: a table, and docs/verify_cost.png
bench-verify: build
	$(BIN)/python -m bench.verify_cost --plot docs/verify_cost.png $(ARGS)

# kill -9 of random nodes under load, ROUNDS times; about 10 s a round
soak-kill: build packages-clients
	$(call timed,soak-kill,$(BIN)/python -m tests.cluster.soak --rounds $(ROUNDS) $(ARGS))

# the protocol model at the largest bounds that fit 16 GiB and an hour on one core; and random seeds replayed in it
soak-model: build
	$(call timed,soak-model,$(BIN)/python -m tests.model --soak $(ARGS))
	$(call timed,soak-model: replays,$(BIN)/python -m tests.model.replay --seeds 1001..3000)

# simulated clusters, each decided by its seed; see docs/simulator.md
seeds: build
	$(call timed,seeds,$(BIN)/repstore sim --seeds $(SEEDS) --worth $(ARGS))

soak-sim: build
	$(call timed,soak-sim,$(BIN)/repstore sim --seeds 1000000..1199999 --minutes $(MINUTES) $(ARGS))

# kill, pause, partition and full disks under recorded clients, for MINUTES
soak-real: build
	$(call timed,soak-real,$(BIN)/python -m tests.cluster.soak_real --minutes $(MINUTES) $(ARGS))

# every fuzz target for FUZZ_SECONDS, guided by coverage; without clang and atheris it says so and skips
soak-fuzz: build
	$(call timed,soak-fuzz,.ci/scratch fuzzer python -m tests.fuzz.run --seconds $(FUZZ_SECONDS) $(ARGS) || [ $$? -eq 77 ])

soak: soak-fuzz soak-kill soak-model soak-sim soak-real soak-flip

# the suites under AddressSanitizer and UndefinedBehaviorSanitizer, unit tests and seeds under ThreadSanitizer;
# a part takes SANITIZE_MINUTES at most, more is a failure; see docs/fuzzing.md
sanitize: sanitize-address sanitize-thread

# $(call sanitized,kind,command): a tool that is missing is a skip, which .ci/scratch says
sanitized = timeout $(SANITIZE_MINUTES)m .ci/scratch $(1) $(2) || [ $$? -eq 77 ]
# a test may take as long as its part: that of all crashes with the cleaner at work took over a quarter of an hour
SANITIZED = python -m pytest -q -p no:cacheprovider -o faulthandler_timeout=3600 $(NOT_SANITIZED) $(ARGS) -m
# they look at generated C; search in a process with one thread, by code that is not the product's;
# plant faults and build anew by themselves; judge by the wall clock
NOT_SANITIZED = --ignore tests/fast/test_hot_functions.py --ignore tests/model --ignore tests/mutants \
	--ignore tests/cluster/test_gil.py --ignore tests/test_bench.py --ignore tests/test_demo.py

SLOW = "slow and not client"
CRASH_STATES = tests/sim/test_crash_states.py

sanitize-address: build
	$(call timed,sanitize-address: unit tests,$(call sanitized,address,$(SANITIZED) "not slow and not client"))
	$(call timed,sanitize-address: slow checks,$(call sanitized,address,$(SANITIZED) $(SLOW) tests/check))
	$(call timed,sanitize-address: slow crash states,$(call sanitized,address,$(SANITIZED) $(SLOW) $(CRASH_STATES)))
	$(call timed,sanitize-address: slow simulations,$(call sanitized,address,$(SANITIZED) $(SLOW) tests/sim \
		--ignore $(CRASH_STATES)))
	$(call timed,sanitize-address: other slow tests,$(call sanitized,address,$(SANITIZED) $(SLOW) \
		--ignore tests/check --ignore tests/sim))

sanitize-thread: build
	$(call timed,sanitize-thread: unit tests,$(call sanitized,thread,$(SANITIZED) "not slow and not client"))
	$(call timed,sanitize-thread: 100 seeds,$(call sanitized,thread,python -m repstore.cli sim --seeds 1..100))

# every byte in use of small stores, flipped in turn; 70 minutes of one core, shared by all there are
soak-flip: build
	$(call timed,soak-flip,$(BIN)/python -m tests.check.corruption $(ARGS))

clean:
	rm -rf build $(VENV) src/*.egg-info
	find src bindings tests -name '*.so' -delete
