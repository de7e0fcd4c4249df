# `make` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
FUZZ_SECONDS ?= 600
SOAK ?= 0
export SOAK KILLS POWER_SEEDS FLIPS
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard tests/fuzz/targets/*.rs)))

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 20

.PHONY: run
run: ## Run the server, optimised, with the defaults
	$(CARGO) run --locked --release

.PHONY: test
test: setup ## Run all tests, installing the programs they compare with
	@tests/stage "build" $(CARGO) test --locked --no-run
	@tests/stage "unit" $(CARGO) test --locked --lib
	@tests/stage "PromQL, command line, configuration" $(CARGO) test --locked --test it -- $(patsubst %,--skip %,$(FAULTS) $(PEERS) $(CLICKHOUSE) $(REDIS) $(DEPLOY))
	@tests/stage "faults" $(CARGO) test --locked --test it -- $(FAULTS)
	@tests/stage "comparison with Prometheus" $(CARGO) test --locked --test it -- $(PEERS)
	@tests/stage "Redis" $(CARGO) test --locked --test it -- $(REDIS)
	@tests/stage "ClickHouse" $(CARGO) test --locked --test it -- $(CLICKHOUSE) --skip $(GATEWAYS)
	@tests/stage "gateways" $(CARGO) test --locked --test it -- $(GATEWAYS) --nocapture
	@$(MAKE) --no-print-directory test-deploy

.PHONY: test-deploy
test-deploy: setup ## Check all of deployments/ and docker/, and run what they deploy
	@tests/stage "binary to deploy" $(CARGO) test --locked --no-run --test it
	@tests/stage "deployments" tests/deploy/run
	@tests/stage "deployments, running" $(CARGO) test --locked --test it -- $(DEPLOY)

# What of the integration tests has a stage of its own; the rest is together in one.
FAULTS := kill:: torture::
PEERS := prometheus:: credentials:: differential:: grafana:: remote_read:: federation:: promtool:: vmalert::
CLICKHOUSE := clickhouse::
REDIS := redis::
GATEWAYS := clickhouse::gateways
DEPLOY := deploy::

# Where the targets below look for ClickHouse.
CLICKHOUSE_URL ?= http://127.0.0.1:8123

.PHONY: clickhouse-local
clickhouse-local: ## Run a ClickHouse for trying things out, on 127.0.0.1:8123, until Ctrl-C
	@tests/clickhouse/local

.PHONY: clickhouse-setup
clickhouse-setup: ## Make Luminate's tables in the ClickHouse at CLICKHOUSE_URL
	$(CARGO) run --locked --quiet -- schema apply --address "$(CLICKHOUSE_URL)"

.PHONY: docker-build
docker-build: ## Build the image DOCKER_REGISTRY/DOCKER_REPO/luminate:VERSION, for this machine
	@docker/build

.PHONY: docker-push
docker-push: ## Build the image, for PLATFORMS if set, and push it
	@docker/build --push

.PHONY: sbom
sbom: target/sbom/bin/python ## Write target/luminate.cdx.json: what is compiled into the binary, as CycloneDX
	@$(CARGO) metadata --locked --format-version 1 --filter-platform "$$(rustc --print host-tuple)" >target/metadata.json
	@target/sbom/bin/python docker/sbom target/metadata.json Cargo.lock >target/luminate.cdx.json
	@echo target/luminate.cdx.json

target/sbom/bin/python: docker/requirements.txt
	@python3 -m venv target/sbom
	@target/sbom/bin/python -m pip install -q -r docker/requirements.txt
	@touch $@

# What is deployed: scalable, gateways over ClickHouse and a Redis, or standalone, one process with a disk. What
# else can be set is at the top of deployments/kubernetes/deploy.
OVERLAY ?= scalable
KUBECTL ?= kubectl
export OVERLAY KUBECTL

.PHONY: k8s-deploy
k8s-deploy: ## Deploy to the Kubernetes cluster that KUBECTL reaches (OVERLAY=scalable or standalone)
	@deployments/kubernetes/deploy up

.PHONY: k8s-status
k8s-status: ## Show pods, autoscaler and services of what is deployed
	@deployments/kubernetes/deploy status

.PHONY: k8s-logs
k8s-logs: ## Follow the logs of all pods
	@deployments/kubernetes/deploy logs

.PHONY: k8s-delete
k8s-delete: ## Delete what is deployed, but not disks and secrets (CONFIRM=yes does not ask)
	@deployments/kubernetes/deploy delete

.PHONY: setup
setup: ## Install what the tests compare with (Debian packages, once)
	@tests/setup

.PHONY: check
check: ## Run the quick gate: format, lints, docs, layers
	@tests/stage "format" $(CARGO) fmt --check
	@tests/stage "lints" $(CARGO) clippy --locked --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" \
	tests/stage "docs" $(CARGO) doc --locked --no-deps --document-private-items
	@tests/stage "layers" $(CARGO) test --locked --test it -- layers::

.PHONY: bench
bench: setup ## Measure ingest, queries, disk and memory beside VictoriaMetrics, over ClickHouse, and what limits cost
	$(CARGO) bench --locked --bench peers
	$(CARGO) bench --locked --bench query
	$(CARGO) bench --locked --bench clickhouse
	$(CARGO) bench --locked --bench chunks
	$(CARGO) bench --locked --bench keys
	$(CARGO) bench --locked --bench gateway
	$(CARGO) bench --locked --bench death
	$(CARGO) bench --locked --bench redis

.PHONY: torture
torture: ## Kill, cut the power, flip bits and fill the disk for hours (KILLS, POWER_SEEDS, FLIPS; SOAK=seconds soaks, too)
	@tests/torture

.PHONY: fuzz
fuzz: ## Fuzz each of FUZZ_TARGETS for FUZZ_SECONDS (needs `cargo install cargo-fuzz`)
	@for target in $(FUZZ_TARGETS); do \
		RUSTC_BOOTSTRAP=1 tests/stage "fuzz $$target" $(CARGO) fuzz run --fuzz-dir tests/fuzz -s none $$target -- \
			-max_total_time=$(FUZZ_SECONDS); \
	done

.PHONY: golden
golden: ## Rewrite tests/golden; read the difference before committing it
	LUMINATE_TEST_GOLDEN=rewrite $(CARGO) test --locked --test it -- golden::

.PHONY: helm-sync helm-docs
helm-docs: helm-sync
helm-sync: ## Make those parts of the Helm chart that are said elsewhere: alerts, dashboards, schema, README
	@"$$(tests/deploy/setup)/venv/bin/python" deployments/helm/sync

.PHONY: fmt
fmt: ## Format the source
	$(CARGO) fmt
