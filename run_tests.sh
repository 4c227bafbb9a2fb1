#!/usr/bin/env bash
# Everything that CI checks: ruff, then the tests. Makes .venv and installs what is missing by itself.
#   bash run_tests.sh                        the fast tests (under 10 minutes on 2 cores)
#   bash run_tests.sh --all                  the tests marked slow as well
#   bash run_tests.sh tests/test_FSQ.py -x   anything else is handed to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

case "${1:-}" in
    -h | --help)
        sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
esac

setup_lists=(requirements.txt requirements-clip.txt requirements-app.txt requirements-dev.txt)
source scripts/setup.sh

select=(-m "not slow")
if [ "${1:-}" = --all ]; then
    select=()
    shift
fi
ruff check .
ruff format --check .
python -m pytest ${select[@]+"${select[@]}"} --durations=10 "$@"
