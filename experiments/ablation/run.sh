#!/usr/bin/env bash
# Continuous, narrow, FSQ and VQ tokens, diffusion and classification, by the rules of RULES.md beside it, then the
# report, into checkpoints/ablation_<size>/report.md. What is done is kept, what was begun goes on; started twice, two
# processes share the work.
#   bash experiments/ablation/run.sh [--size small | equal | reduced | full] [--data FOLDER] [--only "fsq_*/*"]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/setup.sh

size=reduced folder="" before=""
for word in "$@"; do
    if [ "$before" = --folder ]; then folder=$word; fi
    before=$word
    case "$word" in
        --folder=*) folder=${word#--folder=} ;;
        full | reduced | small | equal | tiny | --size=*) size=${word#--size=} ;;
        --list) exec python -m experiments.ablation.run "$@" ;; # which runs nothing: there is nothing to report
    esac
done
python -m experiments.ablation.run "$@"
folder=${folder:-checkpoints/ablation_$size}
if compgen -G "$folder/*/*/eval/*.json" >/dev/null; then # with --only there may be nothing evaluated yet
    python -m experiments.ablation.report --size "$size" --folder "$folder"
fi
