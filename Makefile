# Every target states what it does; `make` lists them.
PREFIX ?= /usr/local
TIME ?= 60
N ?= 20
SEEDS ?= 1000000
# deps looks at what is installed and adds what is missing; DEPS=skip leaves the machine alone.
DEPS ?= check
PROFILE ?= on
export DEPS PROFILE

.DEFAULT_GOAL := help
.PHONY: help run test build bench format install dist deb docs asan tsan sim fuzz coverage night flake clean deps abi-baseline lab

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## build, then measure every transport that is present: evpl perf --all
	build/release/bin/evpl perf --all

test: ## build with debug checks and run all tests
	@scripts/deps.sh build test
	@scripts/build.sh dev
	@scripts/test.sh dev

build: ## optimised build, the command is build/release/bin/evpl; PROFILE=off: compiled once, without a run in between
	@scripts/deps.sh build
	@scripts/release.sh

bench: ## build and run the benchmarks, JSON in build/release/bench-results
	@scripts/deps.sh build bench
	@scripts/release.sh -DEVPL_BENCH=ON
	@scripts/bench.sh

format: ## format all C++ sources (CHECK=1: only report)
	@scripts/deps.sh format
	@scripts/format.sh

install: build ## install the optimised build: PREFIX=/usr/local
	cmake --install build/release --prefix "$(PREFIX)"

dist: ## what is committed as a tarball in build/dist; the same commit gives the same bytes
	@scripts/dist.sh

deb: ## Debian packages of what is committed, in build/deb, checked by lintian
	@scripts/deps.sh build package
	@scripts/deb.sh

docs: ## the API reference in build/docs/html; fails when a public symbol has no docstring
	@scripts/deps.sh docs
	@mkdir -p build/docs
	doxygen docs/Doxyfile
	@echo "build/docs/html/index.html"

asan: ## all tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/deps.sh build test
	@scripts/build.sh asan-ubsan
	@scripts/test.sh asan-ubsan

tsan: ## all tests under ThreadSanitizer
	@scripts/deps.sh build test
	@scripts/build.sh tsan
	@scripts/test.sh tsan

sim: ## random programs on a simulated network: SEEDS=1000000 of them; EVPL_SEED=n repeats one
	@scripts/deps.sh build test
	@scripts/build.sh dev
	@EVPL_SEEDS="$(SEEDS)" scripts/sim.sh

fuzz: ## run each fuzz target: TIME=60 seconds each
	@scripts/deps.sh build fuzz
	@scripts/build.sh fuzz
	@scripts/fuzz.sh "$(TIME)"

abi-baseline: ## renew the stored description of the C interface: tests/abi
	@scripts/build.sh dev
	@python3 tests/abi/abi_test.py --renew build/dev

coverage: ## which lines the tests execute, report in build/coverage/report
	@scripts/deps.sh build test coverage
	@scripts/build.sh coverage
	@scripts/coverage.sh

night: ## everything that takes long, one after the other, with a table at the end
	@scripts/night.sh

flake: ## repeat unit, conformance and simulation tests N=20 times, the others N/20 times, and name those that do not always pass
	@scripts/deps.sh build test
	@scripts/build.sh dev
	@scripts/flake.sh "$(N)"

# The command reaches the guest as it was given: make expands neither $ nor quotes in it. Make itself answers 2 to any
# failure and names the status; scripts/lab.sh 'COMMAND' passes it on as it is.
lab: export LAB_CMD = $(value CMD)
unexport CMD
lab: ## tests in an emulated guest with soft-RoCE and kernels of its own; CMD='...' runs that there (docs/lab.md)
	@$(if $(value CMD),,scripts/deps.sh build test)
	@$(if $(value CMD),,scripts/build.sh dev)
	@scripts/lab.sh

clean: ## remove build/
	rm -rf build

deps: ## install what build and tests need: WANT="build test docs bench format fuzz coverage package"
	@scripts/deps.sh $(or $(WANT),build test)
