# The two commands of the README, and the ones that make them up.
.PHONY: demo test crash bench setup-demo setup-test lint unit schema conformance fuzz

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release/ashlar
DEBUG := $(TARGET)/debug/ashlar
# Of the conformance cases, those that `make conformance` also lets BuildKit build by way of Ashlar.
BUILDKIT_CASES := from-scratch-config-only copy-directory copy-from-later-index heredoc-run ignore-patterns mount-secret-file \
  run-fails stages-chain

# Installs what is needed, builds Ashlar, and shows a real build, its cache, its log and its image.
demo: setup-demo
	$(CARGO) build --release --locked --bin ashlar
	ASHLAR=$(abspath $(RELEASE)) scripts/demo

# Installs what the tests need and passes all of them. Needs root: the sandbox is tested for real.
test: setup-test lint unit schema conformance
	@echo "all tests passed"

setup-demo:
	scripts/setup demo

setup-test:
	scripts/setup test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy -p ashlar --all-targets --features otlp --locked -- -D warnings

unit:
	scripts/unit

# Property-based tests of the native API against its OpenAPI document.
schema: setup-test
	$(CARGO) build --locked --bin ashlar
	ASHLAR=$(abspath $(DEBUG)) scripts/schemathesis

conformance: setup-test
	$(CARGO) build --locked --bin ashlar
	python3 conformance/test_harness.py
	ASHLAR=$(abspath $(DEBUG)) conformance/check --live 10
	ASHLAR=$(abspath $(DEBUG)) conformance/check --backend buildkit $(BUILDKIT_CASES)
	ASHLAR=$(abspath $(DEBUG)) conformance/consumers

# Gives every parser a while of changed inputs; `make fuzz TARGETS=layer SECONDS_EACH=600` for one.
TARGETS ?= dockerfile ignore declarative layer archive manifest reference context log query
SECONDS_EACH ?= 30
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz:
	$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --locked
	cd crates/fuzz && for target in $(TARGETS); do \
	  $(CARGO) fuzz run --fuzz-dir . --features libfuzzer $$target -- -max_total_time=$(SECONDS_EACH) -rss_limit_mb=4096 || exit 1; done

# Kills a server a hundred times under fifty builds; `make test` does it twenty-five times.
crash: setup-test
	ASHLAR_CRASH_ROUNDS=100 $(CARGO) test --locked -p ashlar-api --test it crash:: -- --nocapture

# Prints the table of numbers beside BuildKit and buildah; starts them when they do not run.
bench: setup-test
	$(CARGO) build --release --locked --bin ashlar
	ASHLAR=$(abspath $(RELEASE)) bench/run
