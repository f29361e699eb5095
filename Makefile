# Two commands set everything up on a fresh machine: `make demo` and `make test`.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
PYTEST = $(BIN)/python -m pytest
# On a machine without a GPU, level 2 still shows an error about CUDA.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow test-all test-jax lint format docs notebooks bench clean

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/installed-jax: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[test,jax]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[test,docs]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/python examples/digits_demo.py --output demo

test: $(VENV)/installed
	$(PYTEST) -m 'not slow' -n 2 --cov --cov-report=term --cov-fail-under=90 tests ensemble_keras

test-slow: $(VENV)/installed-jax
	$(PYTEST) -m slow -n 2 tests

test-all: test test-slow

test-jax: $(VENV)/installed-jax
	KERAS_BACKEND=jax $(PYTEST) -m 'not slow' -n 2 tests ensemble_keras

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Into site/, without a network; a warning is an error.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Executes the notebooks and saves them with their outputs.
notebooks: $(VENV)/installed
	$(BIN)/python notebooks/execute.py

bench: $(VENV)/installed
	$(BIN)/python benchmarks/feature_cache.py
	$(BIN)/python benchmarks/linear_heads.py
	$(BIN)/python benchmarks/import_time.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache demo site
