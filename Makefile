SHELL := /bin/bash
CARGO ?= cargo
CARGO_TARGET_DIR ?= $(CURDIR)/target
# The agent is linked statically; in its own directory the flag does not rebuild the workspace.
AGENT_TARGET_DIR ?= $(patsubst %/,%,$(CARGO_TARGET_DIR))-agent
AGENT_TARGET := x86_64-unknown-linux-gnu
DIST := $(CURDIR)/dist
export CARGO_TARGET_DIR

.NOTPARALLEL:
PREFIX ?= /usr/local
.PHONY: help setup build install agent test attacks fuzz lint demo bench chaos compose-test clean

help:
	@echo 'make demo   a real job in a real sandbox, from nothing'
	@echo 'make test   everything that is tested, from nothing'
	@echo 'make attacks  what a hostile workload or tenant tries, each with its refusal; docs/security.md'
	@echo 'make fuzz   hostile bytes for every reader of them, FUZZ_SECONDS (60) a target; fuzz/README.md'
	@echo 'make build  dist/stacyvm and dist/stacyvm-agent; debug information apart, in dist/stacyvm.debug'
	@echo 'make install  programs, docs and systemd units, under PREFIX (/usr/local) and DESTDIR'
	@echo 'make lint   rustfmt, clippy, cargo-deny'
	@echo 'make bench  ours beside the floor, with ratios'
	@echo 'make chaos  thousands of rounds of faults; STACYVM_CHAOS_ROUNDS, STACYVM_CHAOS_SEED'
	@echo 'make compose-test  a job through the split deployment of compose.yaml'

setup:
	@scripts/setup

build: agent
	$(CARGO) build --release --locked -p cli --bin stacyvm
	@scripts/split-debug $(CARGO_TARGET_DIR)/release/stacyvm $(DIST)/stacyvm
	@ls -l $(DIST)

install:
	@test -x $(DIST)/stacyvm || { echo 'make install: run `make build` first' >&2; exit 1; }
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(DIST)/stacyvm $(DIST)/stacyvm-agent
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/stacyvm docs/*.md
	install -D -m 644 -t $(DESTDIR)/etc/systemd/system deploy/systemd/*.service

agent:
	RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-fuse-ld=lld" $(CARGO) build --locked -p agent --bin stacyvm-agent \
		--profile agent --target $(AGENT_TARGET) --target-dir $(AGENT_TARGET_DIR)
	@install -D -m 755 $(AGENT_TARGET_DIR)/$(AGENT_TARGET)/agent/stacyvm-agent $(DIST)/stacyvm-agent

# Tests, the demo and the bench use images that are made here; no registry is asked.
test attacks demo bench chaos compose-test: export STACYVM_PULL = 0

test: setup agent
	@STACYVM_AGENT=$(DIST)/stacyvm-agent scripts/test

attacks: setup agent
	STACYVM_AGENT=$(DIST)/stacyvm-agent $(CARGO) test --locked -p cli --test attacks

fuzz: setup
	@scripts/fuzz

lint:
	@scripts/lint

demo: setup build
	@scripts/demo

bench: setup build
	STACYVM_BIN=$(DIST)/stacyvm STACYVM_AGENT=$(DIST)/stacyvm-agent $(CARGO) run --release --locked -p bench

chaos: setup agent
	STACYVM_AGENT=$(DIST)/stacyvm-agent STACYVM_CHAOS_ROUNDS=$${STACYVM_CHAOS_ROUNDS:-5000} \
		$(CARGO) test --locked -p cli --test chaos -- --nocapture every_promise

compose-test: setup build
	@scripts/compose-local test

clean:
	rm -rf $(DIST) $(AGENT_TARGET_DIR)
	$(CARGO) clean
