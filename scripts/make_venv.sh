#!/bin/sh
# Make the virtual environment $VENV with $PYTHON, or with the first Python >= 3.11 on the path.
set -eu
venv=${VENV:-.venv}

new_enough() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if new_enough "$python"; then
        if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            echo "error: $python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2
            exit 1
        fi
        rm -rf "$venv"
        exec "$python" -m venv "$venv"
    fi
done
echo "error: ctxpeft needs Python 3.11 or newer, and ${PYTHON:-python3} is not; set PYTHON=/path/to/python" >&2
exit 1
