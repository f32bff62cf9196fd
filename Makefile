# make search   install, then search the quickstart space
# make test     install, then lint, type check and test
# make lint     ruff and mypy alone
# make integrations  install lm-eval and torchao too, then run the tests that need them
# make docs     the documentation, strict
# make schema   the JSON schemas that editors complete variants and spaces by
# make dist     sdist and wheel, tried outside the repository
# make clean    remove everything that make made

VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := test
.PHONY: search test integrations lint docs schema dist clean
.DELETE_ON_ERROR:

search: $(VENV)/.installed
	$(BIN)/ctxpeft search search/quickstart.yaml

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

integrations: $(VENV)/.installed-dev
	$(PIP) --editable '.[dev,eval,quant]'
	$(BIN)/python -m pytest tests/integrations tests/training/test_quantized.py tests/test_docs.py

lint: $(VENV)/.installed-dev schema
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: schema/variant.json schema/space.json

schema/%.json: $(VENV)/.installed $(wildcard ctxpeft/spec/*.py ctxpeft/blocks/*/*.py ctxpeft/search/spacefile.py)
	@mkdir -p schema
	$(BIN)/ctxpeft schema $* > $@

dist: schema
	rm -rf dist ctxpeft/_shipped
	mkdir -p ctxpeft/_shipped && cp -R schema ctxpeft/_shipped/
	$(BIN)/python -m build --no-isolation
	rm -rf ctxpeft/_shipped
	scripts/check_wheel.sh dist/*.whl

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site schema ctxpeft/_shipped .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@VENV="$(VENV)" PYTHON="$(PYTHON)" scripts/make_venv.sh

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[peft,plots]'
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[docs]'
	@touch $@ $(VENV)/.installed
