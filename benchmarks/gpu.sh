#!/usr/bin/env bash
# Everything that only a GPU can tell, in 25 minutes or less on one: parity with the CPU, NCCL, speed, memory.
# Writes results/gpu.md and results/gpu.json; exits with 1 where parity, NCCL or a timing fails. `--help` explains more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
setup_lists=(requirements.txt requirements-clip.txt)
source scripts/setup.sh
exec python -m benchmarks.gpu "$@"
