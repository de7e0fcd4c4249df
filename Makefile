# `make` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: run
run: ## Run the server, optimised, with the defaults
	$(CARGO) run --release

.PHONY: test
test: setup ## Run all tests, installing the programs they compare with
	$(CARGO) test --locked

.PHONY: setup
setup: ## Install what the tests compare with (Debian packages, once)
	@tests/setup

.PHONY: check
check: ## Run the quick gate: format, lints, docs, layers
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --no-deps --document-private-items
	$(CARGO) test --locked --test it -- layers

.PHONY: bench
bench: setup ## Measure ingest, queries, disk and memory beside VictoriaMetrics
	$(CARGO) build --locked --release
	$(CARGO) bench --locked

.PHONY: golden
golden: ## Rewrite the golden files of the tests; read the difference before committing it
	LUMINATE_TEST_GOLDEN=rewrite $(CARGO) test --locked --test it

.PHONY: fmt
fmt: ## Format the source
	$(CARGO) fmt
