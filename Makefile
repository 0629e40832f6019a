VENV ?= .venv
PY := $(VENV)/bin/python
.DEFAULT_GOAL := help

.PHONY: help setup dev
help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Virtual environment, dependencies and the extension, in .venv

$(VENV)/.deps: requirements/dev.txt
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --require-hashes -r requirements/dev.txt
	touch $@

RUST_SOURCES := $(shell find rust -name '*.rs') Cargo.toml Cargo.lock
$(VENV)/.ready: $(VENV)/.deps pyproject.toml $(RUST_SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(VENV)/bin/maturin develop --release --quiet
	touch $@
