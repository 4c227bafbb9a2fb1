#!/usr/bin/env bash
# In how many rounds does a one-step head draw, and is every token then drawn once more? The val splits of three sets, five
# repeats of one generator each; needs what train_fsq_pipeline.sh --demo, cmu.sh and bandai_namco.sh train.
# Rule, set before the runs. A setting is worse than today's (nine rounds, --refine 0) on a set where FID, R-precision top 1,
# foot skate or the distance of root speed from real motion is worse by its 95% interval paired over clips. Of the settings
# with at most nine passes of the Transformer (a refinement takes two) that are worse on no set, and whose FID is on average
# at most 5% higher, the one whose feet slide least on average (as a share of real motion) becomes the default of one-step
# heads. Today's stays if there is none.
#   bash experiments/sampling/refine.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/setup.sh
source scripts/steps.sh

# study SET FLAGS...: all settings of a generator
study() {
    runs=checkpoints/$1 logs=logs/$1 run=$2 after=()
    named=(--dataset_name "$1" --num_workers 0 "${@:3}")
    for rounds in 9 7 6 5 4 3; do
        for refine in 0 1; do
            evaluate "val_${rounds}_$refine" --split val --sampler onestep --repeat_times 5 --time_steps "$rounds" --refine "$refine"
        done
    done
}

study CMU cmu_MARDM --weights cmu
study Demo demo_MARDM --demo
study BandaiNamco Equal_SiT_XS_3 --name Equal_SiT_XS_3
