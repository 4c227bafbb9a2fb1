#!/usr/bin/env bash
# In how many rounds does a one-step head draw, and is every token then drawn once more? The val splits of three sets, five
# repeats: the released weights of CMU and the demo, and of BandaiNamco three generators, trained as briefly as those of the
# ablation's size `equal`. Needs data and evaluators of cmu.sh, bandai_namco.sh and train_fsq_pipeline.sh --demo.
# Rule, set before the runs. A setting is worse than today's (nine rounds, --refine 0) on a set where FID, R-precision top
# 1, foot skate or the distance of root speed from real motion is worse by its 95% interval paired over clips (BandaiNamco:
# over its three generators, Student's t). Of the settings with at most nine passes of the Transformer (a refinement takes
# two) that are worse on no set, and whose FID is on average at most 5% higher, the one whose feet slide least on average
# (as a share of real motion) becomes the default of one-step heads. Today's stays if there is none.
#   bash experiments/sampling/refine.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/setup.sh
source scripts/steps.sh

# study RECORD SET RUN FLAGS...: all settings of a generator, compared in results/sampling/rounds/RECORD.json
study() {
    local files=() names=()
    runs=checkpoints/$2 logs=logs/$2 run=$3
    named=(--dataset_name "$2" --num_workers 0 "${@:4}")
    for rounds in 9 7 6 5 4 3; do
        for refine in 0 1; do
            evaluate "val_${rounds}_$refine" --split val --sampler onestep --repeat_times 5 --time_steps "$rounds" --refine "$refine"
            files+=("$runs/$run/eval/val_${rounds}_$refine.json") names+=("$rounds+$refine")
        done
    done
    python analyze_evaluations.py "${files[@]}" --names "${names[@]}" --json "results/sampling/rounds/$1.json"
}

# brief SEED: an autoencoder, a generator and its one-step head on BandaiNamco
brief() {
    local ae=Brief_AE_$1
    run=Brief_SiT_XS_$1 runs=checkpoints/BandaiNamco logs=logs/BandaiNamco
    common=(--dataset_name BandaiNamco --num_workers 0)
    once "$runs/$ae/model" train_ae python train_AE.py "${common[@]}" --name "$ae" --model FSQ_AE_High --width 96 \
        --recipe mardm --root_weight 4 --batch_size 16 --windows_per_clip equal --max_iters 3000 --lr 1e-3 --warm_up_iter 100 \
        --lr_decay 0.3 --milestones 1950 2625 --seed "$1" $(continued "$ae")
    after=("$runs/$ae/model/train_ae.done")
    named=("${common[@]}" --ae_name "$ae" --name "$run" --model FSQ-MARDM-SiT-XS)
    once "$runs/$run/model" train_mardm python train_MARDM.py "${named[@]}" --batch_size 16 --max_iters 2400 --lr 2e-3 \
        --warm_up_iter 100 --milestones 1600 2160 --lr_decay 0.3 --ema_decay 0.999 --dropout 0.1 --diffmlps_batch_mul 2 \
        --seed "1$1" $(continued "$run")
    after+=("$runs/$run/model/train_mardm.done")
    distill "$run" python distill_MARDM.py "${named[@]}" --batch_size 4 --max_iters 800 --warm_up_iter 50 --teacher_steps 4
}

after=()
study cmu CMU cmu_MARDM --weights cmu
study demo Demo demo_MARDM --demo
for seed in 1 2 3; do
    brief "$seed"
    study "bandai_namco_$seed" BandaiNamco "$run" --name "$run"
done
