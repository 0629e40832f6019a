# Run `make` for the list. Everything is built inside the tree: .venv (Python) and target (Rust).

VENV ?= .venv
PY := $(VENV)/bin/python
CARGO := cargo --locked
STEP := .ci/step
# Property tests draw their cases from here, so that a tree that passed passes again; `make cases` draws others.
SEED ?= 1
export PROPTEST_RNG_SEED := $(SEED)
# CLOCK=0, CLOCK=large: where the monotonic clock of the tests begins, else this machine's.
PYTEST := $(if $(CLOCK),tests/support/at_clock.sh $(CLOCK)) $(PY) -m pytest --hypothesis-seed=$(SEED)
XDIST = $(if $(filter-out 1,$(JOBS)),-n $(1) --dist loadfile)
UNIT = echo "== pytest" && $(PYTEST) $(call XDIST,$(JOBS)) --ignore=tests/integration --ignore=tests/cancel
# They wait more than they compute. Under the second clock those run that the clock may concern.
INTEGRATION = echo "== pytest, integration" && $(PYTEST) $(call XDIST,$$((2 * $(JOBS)))) \
	  $(if $(filter large,$(CLOCK)),-m "not any_clock") tests/integration tests/cancel
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*## .*/\1/p' $(MAKEFILE_LIST))

help: ## Print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Build everything into .venv, so that .venv/bin/skylb is the command
	@$(if $(filter setup,$(MAKECMDGOALS)),echo "ready: $(VENV)/bin/skylb")

tools: ## Check that Rust is installed
	@command -v cargo >/dev/null || { echo "SkyLB needs Rust: cargo is not on the PATH (https://rustup.rs)" >&2; exit 1; }

# The first interpreter that is new enough; the versions are those the lock file has been tried with.
FIND_PYTHON = found=; for name in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3; do \
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$name; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "SkyLB needs Python 3.11 or later: install it, or name one with PYTHON=..." >&2; exit 1; fi
$(VENV)/.deps: requirements/dev.txt | tools
	@$(FIND_PYTHON); \
	echo "== $(VENV) with $$($$found --version)"; \
	"$$found" -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

# Bytecode is written at once: where the environment forbids Python to keep it, every start would compile it anew.
RUST_SOURCES := $(shell find rust -name '*.rs') Cargo.toml Cargo.lock
$(VENV)/.ready: $(VENV)/.deps pyproject.toml $(RUST_SOURCES)
	@echo "== extension module (release)"
	@VIRTUAL_ENV=$(abspath $(VENV)) $(STEP) maturin $(VENV)/bin/maturin develop --release --locked
	@$(PY) -m compileall -q python/skylb
	@touch $@

core: $(VENV)/.deps ## Build the core again, less optimised and in seconds, while you work on it; `make -B setup`: as it ships
	@$(CARGO) build --quiet --profile quick --features python
	@cp target/quick/libskylb_core.so python/skylb/_core.new && mv python/skylb/_core.new python/skylb/_core.abi3.so

demo: setup ## Run three regions with users and a live page with buttons; DEMO_S=20 ends it by itself
	@$(VENV)/bin/skylb demo $(if $(DEMO_S),--duration-s $(DEMO_S))

# A compiler takes one core most of the time: beside it, the other sets up and runs what is Python. JOBS=1: one after the other.
JOBS ?= 2
# Python takes longer and depends on the extension: it comes first, and Rust takes what it leaves.
LAST := nice -n 10
SIDE_BY_SIDE = $(MAKE) --no-print-directory -j$(JOBS) rust python

check: tools ## Run what must pass before every commit: all of rust and python
	@$(SIDE_BY_SIDE)

test: tools ## Run check, then integration tests over real sockets (no engine)
	@$(SIDE_BY_SIDE) SOCKETS=1

rust: tools ## Check Rust: format, lint, tests
	@$(STEP) "cargo fmt" cargo fmt --check
	@PYO3_NO_PYTHON=1 $(STEP) "clippy" $(LAST) $(CARGO) clippy --quiet --all-targets --features python -- -D warnings
	@$(STEP) "cargo test" $(LAST) $(CARGO) test --quiet

python: setup ## Check Python: format, lint, types, the core's stubs, layers, unit tests; SOCKETS=1: integration tests
	@$(STEP) "ruff check" $(VENV)/bin/ruff check --quiet --output-format concise .
	@$(STEP) "ruff format" $(VENV)/bin/ruff format --quiet --check .
	@$(STEP) "mypy" $(VENV)/bin/mypy
	@$(STEP) "stubtest" $(PY) -m mypy.stubtest skylb._core --mypy-config-file pyproject.toml --allowlist tests/tidy/stubtest_allowlist.txt
	@$(STEP) "lint-imports" $(VENV)/bin/lint-imports
	@$(UNIT)
	@$(if $(SOCKETS),$(INTEGRATION))

unit: setup ## Run unit, property and architecture tests
	@$(CARGO) test --quiet
	@$(UNIT)

same: tools ## Compare simulations with their recorded results; RECORD=1 records them anew
	@$(CARGO) test --quiet --lib sim::tests::same $(if $(RECORD),-- --ignored)

clocks: setup ## Run everything in Python with a monotonic clock that begins at 0, then with a large one
	@$(foreach clock,0 large,$(MAKE) --no-print-directory unit-python integration CLOCK=$(clock) &&) true

unit-python: setup ## Run unit, property and architecture tests in Python
	@$(UNIT)

integration: setup ## Run tests over real sockets, with mock replicas
	@$(INTEGRATION)

cases: setup ## Run unit and property tests with new cases each time, ROUNDS=20 times
	@for round in $$(seq $(or $(ROUNDS),20)); do $(MAKE) --no-print-directory unit SEED=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ') || exit 1; done

fuzz: setup ## Look for inputs on which a parser of foreign bytes fails, FUZZ_S=60 seconds of CPU each; FUZZ=head: one target
	@FUZZ_S=$(or $(FUZZ_S),60) rust/fuzz/run.sh $(FUZZ)
	@$(if $(FUZZ),true,$(PY) -m tests.fuzz --cpu-s $(or $(FUZZ_S),60))

test-engines: setup ## Run in front of real vLLM servers; their environment is cached outside the tree
	@PY=$(abspath $(PY)) tests/engines/run.sh

dist: tools ## Build wheels for x86-64 and aarch64 and a source distribution into dist/, and check them; MACHINES=x86_64: one wheel
	@$(FIND_PYTHON); PYTHONPATH=python "$$found" -m tests.distribution.build $(MACHINES)

test-dist: setup ## Install a wheel without Rust and use it; run the commands of INSTALL.md and README.md in a clean clone (15 minutes); WHEEL=dist/x.whl: that wheel alone
	@$(if $(WHEEL),WHEEL=$(abspath $(or $(wildcard $(WHEEL)),$(WHEEL)))) $(PY) -m pytest $(if $(WHEEL),tests/distribution/test_wheel.py,tests/distribution) -o addopts="-v -rP --strict-markers -p no:cacheprovider" -o timeout=7200 -o timeout_func_only=true

test-kubernetes: setup ## Run against a real Kubernetes API server and EndpointSlice controller; they are built outside the tree (needs Go)
	@PY=$(abspath $(PY)) tests/kubernetes/run.sh

test-otlp: setup ## Send spans through a real collector (rotel), which is installed outside the tree
	@PY=$(abspath $(PY)) tests/otlp/run.sh

chaos: setup ## Kill, freeze, drain and replace replicas and balancers under clients that notice everything, and write bench/results/chaos.md; SCENE_S=10: shorter, prints
	@$(PY) -m tests.chaos $(if $(SCENE_S),--scene-s $(SCENE_S))

soak: setup ## Send a million requests, of which one in twenty is left, and look at what stays in memory (10 minutes); REQUESTS=50000: fewer, prints
	@$(PY) -m bench.soak $(if $(REQUESTS),--requests $(REQUESTS))

plants: setup ## Plant bugs in a copy of the sources, and see the test of each fail; NAME=body: those with this in their name
	@$(PY) -m tests.plants $(NAME)

chaos-regions: setup ## Cut a peer off in five ways, kill a balancer, and write bench/results/chaos-regions.md (6 minutes); FAULT_S=5: shorter, prints
	@$(PY) -m tests.chaos.regions

bench-state: setup ## Measure how long the loop waits while a full tree is written as a state, and write bench/results/bench-state.md
	@$(PY) -m bench.state

bench-handover: setup ## Hand over 40 times under load (TCP, Unix sockets, TLS), and write bench/results/bench-handover.md (8 minutes); HANDOVERS=3: shorter, prints
	@$(PY) -m tests.chaos.handover

# What looks up advisories: outside the tree too.
AUDIT := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/skylb/audit
$(AUDIT)/bin/cargo-audit: requirements/audit.txt | setup
	@echo "== $(AUDIT)"
	@$(PY) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit.txt
	@cargo install --quiet --locked --version '>=0.22,<0.23' --root $(AUDIT) cargo-audit
	@touch $@

audit: $(AUDIT)/bin/cargo-audit ## Look up every locked package in the databases of advisories (PyPI's, RustSec's); status 3: not reached
	@$(PY) -m tests.tidy.audit $(AUDIT)/bin

# The routers and load generators to compare with are outside the tree, like the engines' environment.
bench-overhead: setup ## Measure CPU and latency beside HAProxy and the Rust routers, in one run
	@$(PY) -m bench.environments peers && $(PY) -m bench.overhead

bench-workers: setup ## Measure what workers bring and cost, and write bench/results/bench-workers.md (as root, cgroup v1)
	@$(PY) -m bench.workers

bench-profile: setup ## Profile the CPU time of a request, a chunk and a probe, beside HAProxy (needs perf)
	@$(PY) -m bench.overhead.profile

peers: setup ## Compare with real routers and proxies in real time, in one region and in three, and write bench/results/peers.md (45 minutes); QUICK=1: 5, prints
	@$(PY) -m bench.peers $(if $(QUICK),--quick)

bench-isolation: setup ## Probe another tenant's prompts by timing, with --isolate-tenants and without (3 minutes)
	@$(PY) -m bench.isolation

bench-guard: setup ## Measure the CPU time of keys and limits per request; BEFORE=../other: beside another checkout too
	@$(PY) -m bench.guard $(if $(BEFORE),--before $(BEFORE))

bench-replay: setup ## Record runs through the proxy and mock replicas, and compare their replay in the simulator (10 minutes)
	@$(PY) -m bench.replay

bench-explain: setup ## Measure the CPU time of receipts, spans and a shadow policy per request; BEFORE=../other likewise
	@$(PY) -m bench.explain $(if $(BEFORE),--before $(BEFORE))

bench-tracing: setup ## Measure the CPU time of spans per request; BEFORE=../other: beside another checkout too
	@$(PY) -m bench.tracing $(if $(BEFORE),--before $(BEFORE))

bench-gate: setup ## Compare selective with blind pushing in front of real vLLM: 20-token answers, embeddings
	@PY=$(abspath $(PY)) tests/engines/run.sh tests/engines/bench_throughput.py

bench-continuing: setup ## Kill and evacuate a region under 200 streams that go on elsewhere, and write bench/results/bench-continuing.md (3 minutes)
	@$(PY) -m bench.continuing

bench-demo: setup ## Turn the demo's switches and record the TTFT P90 before and since (5 minutes)
	@$(PY) -m bench.demo

bench-policies: setup ## Send a real trace through the real proxy: every policy at 60 and 85 % of capacity (15 minutes)
	@$(PY) -m bench.policies

bench-engine: setup ## Time engine calls through Python, with a tree of 10^6 blocks
	@$(PY) -m bench.engine

bench-sim: ## Time the simulator: 12 replicas in 3 regions, 1,000 in 10 and in one, ten virtual minutes each
	@$(CARGO) bench --quiet --bench sim

bench-regions: setup ## Measure what a forward adds, over loopback and 150 ms, and peer sync's bytes and CPU with 10 peers
	@$(PY) -m bench.regions

bench-region-cache: setup ## Compare three balancers of a region with one: hit rates, simulated and with real processes (4 minutes)
	@$(PY) -m bench.region_cache

bench-digest: setup ## Simulate gain and cost of hot prefixes between regions (10 minutes)
	@$(PY) -m bench.digest

bench-fair: setup ## Simulate ten tenants of which one floods, in one region and in three (10 minutes); QUICK=1: shorter, prints
	@$(PY) -m bench.fair $(if $(QUICK),--quick) $(if $(PROCESSES),--processes $(PROCESSES))

test-sim: ## Simulate 10^6 requests in one region and 10^6 between three: none is lost, crosses twice or leaves its residency
	@$(CARGO) test --release --quiet --lib -- --ignored million

test-sharing: ## Simulate 500 random fault scenarios of balancers that share a region's replicas; SHARING_SEED=7 replays one
	@$(CARGO) test --quiet --lib sim::tests::sharing::$(if $(SHARING_SEED),one,five_hundred) -- --ignored

judge: setup ## Find how many sessions/s each rule serves within a bound; writes bench/results/judge.md (70 minutes); QUICK=1 prints
	@$(PY) -m bench.judge $(if $(QUICK),--quick) $(if $(TRACES),--traces $(TRACES)) $(if $(PROCESSES),--processes $(PROCESSES))

paper: setup ## Simulate the paper's tables and figures in three regions and write bench/results/paper.md (30 minutes); QUICK=1: fewer and shorter, prints
	@$(PY) -m bench.paper $(if $(QUICK),--quick) $(if $(TRACES),--traces $(TRACES)) $(if $(PROCESSES),--processes $(PROCESSES))

validate-sim: setup ## Compare the simulator with skylb load through the proxy and mock replicas (20 minutes)
	@$(PY) -m bench.validate.realtime

validate-load: setup ## Compare skylb load with another load generator, over the same mock replicas (5 minutes)
	@$(PY) -m bench.environments load && $(PY) -m bench.validate.load

validate-model: setup ## Compare the replica model with a real vLLM on the CPU (10 minutes)
	@VLLM_ENVIRONMENT="$$(PYTHON="$${PYTHON:-$(abspath $(PY))}" tests/engines/environment.sh)" $(PY) -m bench.validate.engine

figure: setup ## Draw the figure of README.md from bench/results/paper.json
	@$(PY) -m bench.figure

test-dashboards: setup ## Run every query of dashboards and alerts against a real Prometheus that scrapes two regions (3 minutes)
	@PROMETHEUS="$$(tests/dashboards/tools.sh)" $(PY) -m tests.dashboards

docs: setup ## Write the generated tables into the documents
	@$(PY) tests/tidy/tables.py --write
	@$(PY) deploy/grafana/make.py

# What builds the site is outside the tree too. It needs neither Rust nor SkyLB.
SITE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/skylb/site
$(SITE)/.ready: requirements/site.txt
	@echo "== $(SITE)"
	@$(FIND_PYTHON); "$$found" -m venv $(SITE)
	@$(SITE)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/site.txt
	@touch $@

docs-site: $(SITE)/.ready ## Build the documentation site into site/, and check its links; it works as files and loads nothing from elsewhere
	@$(SITE)/bin/python -m tests.distribution.site

fmt: setup ## Format, and fix what the linters can fix
	@$(VENV)/bin/ruff check --quiet --fix . || true
	@$(VENV)/bin/ruff format --quiet .
	@cargo fmt

lock: ## Renew requirements/*.txt from pyproject.toml (needs uv)
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --group develop --extra sim --extra dns --extra kubernetes --extra route53 pyproject.toml -o requirements/dev.txt
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --constraint requirements/dev.txt --extra dns --extra kubernetes pyproject.toml -o requirements/run.txt
	echo 'maturin>=1.16,<2' | uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate --constraint requirements/dev.txt - -o requirements/build.txt
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --extra sim pyproject.toml -o requirements/sim.txt
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --group audit pyproject.toml -o requirements/audit.txt
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --group bench pyproject.toml -o requirements/bench.txt
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --group dist -o requirements/dist.txt
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --group site -o requirements/site.txt
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --group litellm -o requirements/litellm.txt
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --group load -o requirements/load.txt

clean: ## Remove the build
	rm -rf $(VENV) target .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
