# make search   install, then search the quickstart space
# make test     install, then lint, type check and test
# make lint     ruff and mypy alone
# make integrations  install lm-eval and torchao too, then run the tests that need them
# make bench    speed and memory against the frozen model and HF PEFT; writes docs/performance.md
# make docs     the documentation, strict
# make schema   docs/schema, by which editors complete variants and spaces, after a change of the specs
# make minimum  the oldest versions that pyproject.toml allows, in an environment of their own: linters, docs, a core of the tests
# make notebook the outputs of docs/tutorial.ipynb, written anew
# make dist     sdist and wheel, tried outside the repository
# make clean    remove everything that make made

VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := test
.PHONY: search test integrations lint bench docs schema notebook minimum dist clean
.DELETE_ON_ERROR:

search: $(VENV)/.installed
	$(BIN)/ctxpeft search search/quickstart.yaml

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

integrations: $(VENV)/.installed-dev
	$(PIP) --editable '.[dev,eval,quant]'
	$(BIN)/python -m pytest tests/integrations tests/training/test_quantized.py tests/test_docs.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

schema: $(VENV)/.installed
	$(BIN)/ctxpeft schema variant > docs/schema/variant.json
	$(BIN)/ctxpeft schema space > docs/schema/space.json

notebook: $(VENV)/.installed
	$(BIN)/python scripts/run_notebook.py docs/tutorial.ipynb

minimum:
	VENV="$(VENV)-minimum" PYTHON="$(PYTHON)" scripts/check_minimum.sh

dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	PYTHON="$(abspath $(BIN))/python" scripts/check_wheel.sh dist/*.whl

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(VENV)-minimum build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@VENV="$(VENV)" PYTHON="$(PYTHON)" scripts/make_venv.sh

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing into $(VENV): 1.5 GB, some minutes, silent unless something is wrong"
	$(PIP) --editable '.[peft,plots]'
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[docs]'
	@touch $@ $(VENV)/.installed
