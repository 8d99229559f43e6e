# Tollgate's few commands. `make demo` and `make test` install what they need on Debian and Ubuntu.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo build install deb test check fmt bench bench-pair bench-replay bench-upgrade bench-idle bench-slow storm soak fuzz schema docs

CARGO ?= cargo

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 15

setup: ## a C compiler, cmake, curl and python3, if they are missing (zlib-ng and the allocator are C)
	@missing=""; \
	command -v cc >/dev/null || missing="$$missing build-essential"; \
	command -v cmake >/dev/null || missing="$$missing cmake"; \
	command -v curl >/dev/null || missing="$$missing curl"; \
	command -v python3 >/dev/null || missing="$$missing python3"; \
	if [ -n "$$missing" ]; then \
	  command -v apt-get >/dev/null || { echo "please install:$$missing"; exit 1; }; \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  echo "installing$$missing"; \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	fi; \
	command -v $(CARGO) >/dev/null || { echo "a Rust toolchain is missing: see https://rustup.rs"; exit 1; }

demo: setup ## a gateway with simulated engines on 127.0.0.1:8080
	$(CARGO) run --quiet --locked -- demo

build: setup ## the release binary, target/release/tollgate (a quarter of an hour)
	python3 bench/measure/layout.py

# Where `make install` puts things. DESTDIR goes before all of it.
PREFIX ?= /usr/local
UNITS ?= /etc/systemd/system

install: ## the release binary, its unit and a first configuration (after `make build`, as root)
	install -D -m 0755 target/release/tollgate "$(DESTDIR)$(PREFIX)/bin/tollgate"
	install -d "$(DESTDIR)$(UNITS)"
	sed 's|/usr/local/bin/tollgate|$(PREFIX)/bin/tollgate|' conf/systemd/tollgate.service > "$(DESTDIR)$(UNITS)/tollgate.service"
	chmod 0644 "$(DESTDIR)$(UNITS)/tollgate.service"
	[ -e "$(DESTDIR)/etc/tollgate/tollgate.toml" ] || install -D -m 0644 conf/tollgate.toml "$(DESTDIR)/etc/tollgate/tollgate.toml"
	@[ -n "$(DESTDIR)" ] || ! [ -d /run/systemd/system ] || systemctl daemon-reload
	@[ -n "$(DESTDIR)" ] || echo "now: edit /etc/tollgate/tollgate.toml, then systemctl enable --now tollgate"

deb: ## a Debian package, target/tollgate_VERSION_ARCH.deb (after `make build`)
	conf/debian/build.sh

test: setup ## every test
	@missing=""; \
	python3 -c 'import venv, ensurepip' 2>/dev/null || missing="python3 python3-venv"; \
	command -v pebble >/dev/null && command -v pebble-challtestsrv >/dev/null || missing="$$missing pebble"; \
	[ -z "$$missing" ] || { \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	}
	bash tests/sdk/setup.sh
	@if command -v cargo-nextest >/dev/null; then \
	  $(CARGO) nextest run --workspace --locked --no-fail-fast; \
	else \
	  $(CARGO) test --workspace --locked --no-fail-fast; \
	fi

check: setup ## formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

fmt: ## put the formatting right
	$(CARGO) fmt --all

schema: ## write conf/schema.json and conf/openapi.json anew
	$(CARGO) run --quiet --locked -- schema > conf/schema.json
	$(CARGO) run --quiet --locked -- schema --openapi > conf/openapi.json

docs: ## write the pages of docs/ that are made from the code anew
	UPDATE_GOLDEN=1 $(CARGO) test --quiet --locked --package tollgate --test integration documents::reference

bench: setup ## Tollgate beside bare Pingora, nginx, HAProxy and Envoy; ARGS="--quick"
	python3 bench/measure/run.py $(ARGS)

bench-pair: setup ## what keys and limits cost, or another build, to a percent; ARGS="--peers open,tollgate,other=FILE"
	python3 bench/measure/pair.py $(ARGS)

bench-replay: setup ## a trace of requests onto engines with prefix caches, policy after policy; ARGS="--rate 1.0,1.3 --peers sglang"
	python3 bench/measure/replay.py $(ARGS)

bench-upgrade: setup ## 20 upgrades under load; ARGS="--upgrades 5 --seconds 30"
	python3 bench/measure/upgrade.py $(ARGS)

bench-idle: setup ## what 10,000 connections cost that wait for a request; ARGS="--connections 2000"
	python3 bench/measure/idle.py $(ARGS)

bench-slow: setup ## 1,000 slow clients, and what others notice of them; ARGS="--rounds 3"
	python3 bench/measure/slow.py $(ARGS)

storm: setup ## 500 changes by the admin API under 2,000 requests/s and open streams; ARGS="--profile quick"
	python3 bench/measure/storm.py $(ARGS)

soak: setup ## half an hour of load, faults and changes: memory, files and threads stay flat; ARGS="--minutes 5"
	python3 bench/measure/soak.py $(ARGS)

fuzz: ## the fuzz targets, a minute each (needs nightly and cargo-fuzz)
	for target in peek sse config routes requests proxy_header; do $(CARGO) +nightly fuzz run $$target -- -max_total_time=60; done
