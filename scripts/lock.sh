#!/usr/bin/env bash
# Writes constraints.txt: the exact versions of everything fedit, its extras and its tools need.
# Resolved from pyproject.toml in a fresh environment; run it on purpose, then run the whole check.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=2.13.0

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
pip=("$tmp/venv/bin/python" -m pip)

# torch first, so that no other package chooses its version
"${pip[@]}" install -q "torch==$torch" hatchling editables
"${pip[@]}" install -q --no-build-isolation -e '.[dev,quantised,tensorboard,wandb,mlflow,web,ray]'

{
  echo "# Exact versions for: pip install -c constraints.txt -e '.[dev]'"
  echo "# Written by scripts/lock.sh (make lock); do not edit."
  # Not fedit itself; no local part of a version (torch's "+cpu"); no CUDA packages, which torch pins itself.
  "${pip[@]}" freeze --all --exclude-editable --exclude pip |
    sed -E 's/\+[A-Za-z0-9.]+$//' | grep -vE '^(nvidia|cuda|triton)'
} > "$tmp/constraints.txt"
mv "$tmp/constraints.txt" constraints.txt
