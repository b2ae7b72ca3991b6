# The project's front door. `make run` needs the Rust toolchain alone; `make test` installs what else it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.tools/bin:$(PATH)

.PHONY: help run run-rabbitmq test test-latest test-cluster setup lint fmt test-rust test-web dist book fuzz bench clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

run: ## Build and serve everything on http://127.0.0.1:8080
	cargo build --release --locked
	@printf '\n  the page    http://127.0.0.1:8080/\n  the API     http://127.0.0.1:8080/api/v1/messages\n  readiness   http://127.0.0.1:8080/readyz\n  stop it with Ctrl-C\n\n'
	@exec ./target/release/fpesa up

run-rabbitmq: ## RabbitMQ, PostgreSQL, two gateways, workers and nginx, all of its own, on http://127.0.0.1:8888
	@exec deploy/run-rabbitmq

test: ## Install what is missing, then run every test
	scripts/setup
	scripts/test

setup: ## Install what the tests need
	scripts/setup

lint: ## Formatting, clippy, cargo-deny, ESLint, types
	scripts/test lint

fmt: ## Format everything
	cargo fmt --all
	cd frontend && npm run --silent format

test-rust: ## The Rust tests
	scripts/test rust

test-latest: ## The tests of servers, on the newest RabbitMQ and PostgreSQL that Debian has
	scripts/setup
	scripts/servers latest
	scripts/test latest

test-cluster: ## Three nodes of RabbitMQ, each killed under full load (a part of make test)
	cargo nextest run --locked --no-capture -E 'test(/^cluster::/)'

test-web: ## The page's tests
	scripts/test web

dist: ## Rebuild frontend/dist
	cd frontend && npm ci --no-fund --no-audit && npm run --silent build

book: ## Build the book into target/book (installs mdbook into .tools, once)
	@command -v mdbook >/dev/null || cargo install --quiet --locked --root .tools mdbook
	mdbook build docs

fuzz: ## The property tests with other inputs, for some minutes; prints the seed of each round
	@for round in 1 2 3 4 5; do \
	  seed=$$(od -An -N8 -tu8 /dev/urandom | tr -d ' '); \
	  printf 'round %s, PROPTEST_RNG_SEED=%s\n' "$$round" "$$seed"; \
	  PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=2000 cargo nextest run --locked --workspace --lib; \
	done

bench: ## Measure, and print README's table
	bench/run

clean: ## Delete what was built
	cargo clean
	rm -rf frontend/node_modules frontend/test-results tests/asyncapi/node_modules
