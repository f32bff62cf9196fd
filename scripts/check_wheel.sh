#!/bin/sh
# Install a wheel with its dependencies in a new environment outside the repository, and use it there.
set -eu
if [ $# -ne 1 ] || [ ! -f "$1" ]; then
    echo "error: usage: scripts/check_wheel.sh WHEEL" >&2
    exit 2
fi
wheel=$(realpath "$1")
scripts=$(realpath "$(dirname "$0")")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
VENV="$folder/venv" "$scripts/make_venv.sh"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    --constraint "$scripts/../constraints.txt" "$wheel"
mkdir "$folder/empty"
cd "$folder/empty"
exec </dev/null
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -I "$scripts/use_installed.py" "$folder/venv"
