# The two commands of the README, and the ones that make them up.
.PHONY: demo test bench setup-demo setup-test lint unit conformance fuzz

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release/ashlar
DEBUG := $(TARGET)/debug/ashlar

# Installs what is needed, builds Ashlar, and shows a real build, its cache, its log and its image.
demo: setup-demo
	$(CARGO) build --release --locked --bin ashlar
	ASHLAR=$(abspath $(RELEASE)) scripts/demo

# Installs what the tests need and passes all of them. Needs root: the sandbox is tested for real.
test: setup-test lint unit conformance
	@echo "all tests passed"

setup-demo:
	scripts/setup demo

setup-test:
	scripts/setup test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

unit:
	scripts/unit

conformance: setup-test
	$(CARGO) build --locked --bin ashlar
	python3 conformance/test_harness.py
	ASHLAR=$(abspath $(DEBUG)) conformance/check --live 10
	ASHLAR=$(abspath $(DEBUG)) conformance/consumers

# Prints the table of numbers beside BuildKit and buildah; starts them when they do not run.
bench: setup-test
	$(CARGO) build --release --locked --bin ashlar
	ASHLAR=$(abspath $(RELEASE)) bench/run
