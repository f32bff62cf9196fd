#!/bin/sh
# Install ctxpeft with the oldest versions that pyproject.toml allows (constraints-minimum.txt) into $VENV, and run a core
# of the tests there. Tests of versions themselves (schemas, pins) stay out.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv-minimum}
VENV=$venv scripts/make_venv.sh
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --constraint constraints-minimum.txt \
    --editable '.[peft,data,plots,postgres,text,dashboard]' pytest pytest-timeout hypothesis jsonschema
"$venv/bin/python" -m pip check
exec "$venv/bin/python" -m pytest -q -m 'not slow' -p no:cacheprovider \
    tests/spec tests/adapters tests/tasks/test_data.py tests/hosts/test_with_peft.py tests/training/test_run.py \
    tests/analysis/test_statistics.py tests/analysis/test_compare.py tests/cli/test_train.py tests/cli/test_startup.py \
    tests/search/test_space.py tests/search/test_study.py tests/search/test_report.py
