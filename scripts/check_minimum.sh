#!/bin/sh
# Install ctxpeft with the oldest versions that pyproject.toml allows (constraints-minimum.txt) into $VENV; lint, build the
# documentation and the distributions there, and run a core of the tests. Tests of versions themselves (schemas, pins) stay
# out, and so does trl of the extra dev, which needs newer versions of what the others need.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv-minimum}
VENV=$venv scripts/make_venv.sh
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --constraint constraints-minimum.txt \
    --editable '.[peft,data,plots,postgres,text,dashboard,docs]' \
    pytest pytest-timeout build pytest-xdist hypothesis hatchling jsonschema ruff mypy types-PyYAML pre-commit
"$venv/bin/python" -m pip check
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
"$venv/bin/pre-commit" validate-config .pre-commit-config.yaml
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
"$venv/bin/python" -m build --no-isolation --outdir "$built/dist" >/dev/null
"$venv/bin/mkdocs" build --quiet --strict --site-dir "$built/site"
"$venv/bin/python" -m pytest -n "${WORKERS:-2}" -q -m 'not slow' -p no:cacheprovider \
    tests/spec tests/adapters tests/tasks/test_data.py tests/hosts/test_with_peft.py tests/training/test_run.py \
    tests/analysis/test_statistics.py tests/analysis/test_compare.py tests/cli/test_train.py tests/cli/test_startup.py \
    tests/search/test_space.py tests/search/test_study.py tests/search/test_report.py
