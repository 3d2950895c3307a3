# Verbs. Each is a line or two; what needs logic lives in xtask or .ci/run.

# What there is.
default:
    @just --list

# Everything a change must pass before review, short of the release build.
check: fmt lint test tidy

# Formatting.
fmt:
    cargo fmt --all -- --check

# Clippy on all targets, warnings denied.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# All tests that need nothing but the checkout.
test *ARGS:
    cargo test --workspace {{ARGS}}

# The same through nextest.
nextest *ARGS:
    cargo nextest run --workspace {{ARGS}}

# The optional exporter of spans.
opentelemetry:
    cargo test -p patarm --features opentelemetry --test cli collector

# Sizes, arrows, invariants.
tidy:
    cargo xtask tidy

# Documentation, warnings denied.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences and sources of dependencies.
deny:
    cargo deny check

# Fetch the small real model for the marked tests.
model:
    .ci/fetch-model target/models

# Remake golden files with PyTorch; only on purpose.
golden:
    python testdata/make_goldens.py

# The binary.
build:
    cargo build --release

# The whole job, small.
quickstart *ARGS:
    cargo run --release -- quickstart {{ARGS}}

# Everything, as on a clean checkout.
ci:
    .ci/run

# Debian's browser for the browser tests; run once.
browser-install:
    apt-get install -y --no-install-recommends chromium chromium-driver

# Pages in a real headless browser; pictures are kept in target/browser.
browser:
    cargo build -p patarm
    python3 -B -m unittest discover -s browser -v

# The real clients of trainers against the real server; installs gigabytes of Python.
conformance *ARGS:
    cargo build --release -p patarm
    test -d target/conformance || python3 -m venv target/conformance
    target/conformance/bin/pip install -q -r clients/python/conformance/requirements.txt
    target/conformance/bin/pip install -q -r clients/python/conformance/requirements-verl.txt
    target/conformance/bin/pip install -q --no-deps verl==0.9.1
    target/conformance/bin/pip install -q --no-deps ./clients/python
    target/conformance/bin/python clients/python/conformance/run.py target/release/patarm {{ARGS}}

# The Python clients against a stand-in for the server.
clients:
    cd clients/python && python3 -B -m unittest

# That the tables of the documentation are those of the kept results.
tables:
    cd experiments && python3 -B -m unittest

# Every fuzz target in turn, SECONDS each; needs nightly Rust and cargo-fuzz.
fuzz SECONDS="60" *TARGETS:
    python3 -B fuzz/seeds.py
    for target in $(echo {{TARGETS}} | grep . || cargo +nightly fuzz list); do \
        cargo +nightly fuzz run -s none "$target" -- -max_total_time={{SECONDS}} -timeout=10 -rss_limit_mb=2048 -max_len=65536 || exit 1; \
    done
