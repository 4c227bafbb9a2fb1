#!/usr/bin/env bash
# Real motion capture on two CPU cores: prepare, judge, autoencoder, generator, evaluations. results/bandai_namco.md
# holds what came out. Run it again after an interruption: what is done is kept, what was begun goes on.
#   FSQ_MARDM_DATA=/path/to/data bash experiments/bandai_namco.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

data=${FSQ_MARDM_DATA:-../shared/data}/bandai_namco
runs=checkpoints/BandaiNamco
common=(--dataset_name BandaiNamco --num_workers 0)
ae=(--ae_name FSQ_AE_High --ae_model FSQ_AE_High)
generator=(--name FSQ_MARDM_SiT_XS --model FSQ-MARDM-SiT-XS)
mkdir -p logs/BandaiNamco

timed() {
    local name=$1 begun=$SECONDS
    shift
    echo "+ $*"
    "$@" 2>&1 | tee "logs/BandaiNamco/$name.log"
    echo "$name: $((SECONDS - begun)) s" | tee -a logs/BandaiNamco/seconds.txt
}

going_on() {
    if [ -f "$runs/$1/model/latest.tar" ]; then echo --is_continue; fi
}

[ -f datasets/BandaiNamco/spec.json ] ||
    timed prepare python prepare_dataset.py joints --input "$data" --name BandaiNamco
[ -f $runs/text_mot_match/model/finest.tar ] ||
    timed judge python train_Evaluators.py "${common[@]}" --which matching
[ -f $runs/length_estimator/model/finest.tar ] ||
    timed length_estimator python train_LengthEstimator.py "${common[@]}"

timed train_ae python train_AE.py "${common[@]}" --name FSQ_AE_High --model FSQ_AE_High --width 192 --batch_size 32 \
    --max_iters 7000 --lr 1e-3 --warm_up_iter 100 --milestones 4500 6200 --lr_decay 0.3 --root_weight 4 \
    $(going_on FSQ_AE_High)
timed evaluate_ae python evaluation_AE.py "${common[@]}" --name FSQ_AE_High --model FSQ_AE_High --baselines

timed train_mardm python train_MARDM.py "${common[@]}" "${ae[@]}" "${generator[@]}" --batch_size 32 --max_iters 5000 \
    --lr 2e-3 --warm_up_iter 100 --milestones 3300 4400 --lr_decay 0.3 --ema_decay 0.999 --dropout 0.1 \
    --diffmlps_batch_mul 2 --log_every 50 --need_evaluation --eval_every 8 $(going_on FSQ_MARDM_SiT_XS)
timed evaluate_mardm python evaluation_MARDM.py "${common[@]}" "${ae[@]}" "${generator[@]}" --repeat_times 5 --baselines
