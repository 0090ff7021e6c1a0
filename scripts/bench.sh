#!/usr/bin/env bash
# Prints every figure that benchmarks/ can measure here, one script after another, and keeps them in build/bench.txt.
# Takes about half an hour; figures mean something on a machine that does nothing else. $PYTHON runs the scripts.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p build

export PYTHONWARNINGS=ignore HF_HUB_DISABLE_PROGRESS_BARS=1
failed=0
bench() {
  echo "== python benchmarks/$*"
  "${PYTHON:-python3}" benchmarks/"$@" || { echo "failed"; failed=1; }
  echo
}

all() {
  bench server.py
  bench clients.py
  bench workers.py
  bench training.py --shape tiny
  bench training.py --shape 135M --repetitions 3
  bench stacked.py
  bench start.py 3
  bench estimate.py
  bench partition.py
  bench algorithms.py
  bench fuzz.py
  bench network.py
  bench growth.py --out build/growth
  return "$failed"
}

all 2>&1 | tee build/bench.txt
