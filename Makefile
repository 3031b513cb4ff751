# Two commands do everything: `make demo` and `make test`. The environment is the project's own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check native bench soak clean

$(VENV)/.ready: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "postern needs Python 3.11 or newer; set PYTHON=python3.11 (Debian: apt-get install python3 python3-venv)")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@command -v cargo >/dev/null && echo "cargo is here: the native engine is built as well, which takes some minutes once" || true
	$(BIN)/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.ready
	@$(BIN)/python -m examples.boutique.demo $(if $(ONCE),--once)

test: $(VENV)/.ready
	@$(BIN)/python -m pytest -m 'not soak' --cov --cov-report=term:skip-covered

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy proxy nameresolution sentry policies telemetry tests examples
	$(BIN)/lint-imports

native:
	cd proxy/native && cargo clippy --locked --all-targets && cargo test --locked --quiet

bench: $(VENV)/.ready
	@$(BIN)/python -m tests.bench

soak: $(VENV)/.ready
	@$(BIN)/python -m pytest -m soak --timeout 1800

clean:
	rm -rf $(VENV) build *.egg-info .demo .bench
