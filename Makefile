# SPDX-License-Identifier: MulanPSL-2.0
# The front door. `make run` and `make test` install what they need; a second call takes seconds.

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
PYTHON := .venv/bin/python
DESTDIR ?=

MINUTES ?= 10
FRAMES ?= 1000000

.PHONY: help run stop test bench fuzz noise setup build lint tidy format unit ctest asan tsan net conformance programs cpython install clean architecture reference deb test-deb screens

help: ## show this
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: ## redis on the stack, end to end (KEEP=1 leaves it running)
	@scripts/setup run
	@scripts/build
	@$(PYTHON) scripts/demo.py $(if $(KEEP),--keep)

stop: ## stop what `make run KEEP=1` left running
	@$(PYTHON) scripts/demo.py --stop

test: ## everything that must hold: format, lint, types, unit, C, C under sanitizers, threads, fuzzers, network, programs, conformance
	@scripts/check

bench: ## kernel and gazelled side by side; BENCH_ARGS=--quick
	@scripts/setup bench
	@scripts/build
	@PYTHONPATH=tests $(PYTHON) -m bench $(BENCH_ARGS)

fuzz: ## hostile input of every kind for MINUTES=10; findings into build-fuzz/findings
	@scripts/setup test
	@CC=clang scripts/build build-fuzz -Dfuzz=true --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -- fuzz
	@$(PYTHON) fuzz/run.py --minutes $(MINUTES) $(FUZZ_ARGS)

noise: ## FRAMES=1000000 hostile frames of each kind, through a tap into a running instance with a transfer
	@scripts/setup test
	@scripts/build
	@NOISE_FRAMES=$(FRAMES) $(PYTHON) -m pytest -q tests/net/test_wire_noise.py

setup: ## packages and .venv
	@scripts/setup test

build: ## native/ into build/
	@scripts/setup run
	@scripts/build

tidy: ## clang-tidy over the C that runs in production (1 to 3 minutes; not in `make test`)
	@scripts/check setup build tidy

lint unit ctest asan tsan conformance programs: ## one stage of `make test`
	@scripts/check setup build $@

net: ## the network tests of `make test`
	@scripts/check setup build net alone

cpython: ## CPython's own network tests, on the kernel and on the stack (8 to 10 minutes; not in `make test`)
	@scripts/check setup build cpython

format: ## write Python and C as the linters want them
	@.venv/bin/ruff format -q gazelled tests bench scripts fuzz && .venv/bin/ruff check -q --fix-only gazelled tests bench scripts fuzz
	@find native tests fuzz -name '*.[ch]' -exec .venv/bin/clang-format -i {} +

architecture: ## draw the parts and their arrows into docs/explanation/architecture.md
	@PYTHONPATH=tests $(PYTHON) -m layout --draw

reference: ## write the generated pages of docs/reference anew
	@$(PYTHON) scripts/reference.py docs

screens: ## `gazelled top` in two terminals, into docs/reference/screens
	@scripts/screens

deb: ## Debian packages for this release, in dist/
	@scripts/setup run
	@scripts/build
	@scripts/deb

test-deb: ## build, check, install, use, upgrade and purge the packages in fresh roots of Debian 12 and 13 (needs the network)
	@scripts/setup run
	@scripts/build
	@scripts/test-deb

install: ## into $(DESTDIR)/usr: command, worker, preload library, unit file
	@scripts/setup run
	@scripts/build
	@scripts/install "$(DESTDIR)"

clean: ## what was built; not .venv and not the fetched lwIP
	@rm -rf build build-asan build-tsan build-fuzz
