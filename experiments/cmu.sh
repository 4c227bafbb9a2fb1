#!/usr/bin/env bash
# Real language on two CPU cores: CMU's motion with HumanML3D's captions. Prepare, train evaluators, lengths,
# autoencoder, generators XS and S with one-step heads, evaluate them. results/cmu.md holds the results.
# Run it again after an interruption: what was finished is not repeated.
#   FSQ_MARDM_DATA=/path/to/data bash experiments/cmu.sh
# From the public BVH files instead of packed joints: prepare_dataset.py cmu (datasets/README.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
source scripts/steps.sh

data=${FSQ_MARDM_DATA:-../shared/data}/cmu_humanml3d
runs=checkpoints/CMU logs=logs/CMU
common=(--dataset_name CMU --num_workers 0)
after=() # the trainings so far

[ -f datasets/CMU/spec.json ] ||
    step prepare python prepare_dataset.py joints --input "$data" --name CMU --mirror
[ -f $runs/text_mot_match/model/finest.tar ] ||
    step evaluator python train_Evaluators.py "${common[@]}" --which matching --text minilm --batch_size 128 \
        --weight_decay 0.05 --epoch 24
[ -f $runs/length_estimator/model/finest.tar ] ||
    step length_estimator python train_LengthEstimator.py "${common[@]}"

once $runs/FSQ_AE_High/model train_ae python train_AE.py "${common[@]}" --name FSQ_AE_High --model FSQ_AE_High \
    --width 192 --batch_size 32 --max_iters 6000 --lr 1e-3 --warm_up_iter 100 --root_weight 4 --velocity_weight 0.05 \
    $(continued FSQ_AE_High)
after+=($runs/FSQ_AE_High/model/train_ae.done)
once $runs/FSQ_AE_High/eval evaluate_ae python evaluation_AE.py "${common[@]}" --name FSQ_AE_High \
    --model FSQ_AE_High --baselines

# generator SIZE STEPS: train it, judged on val every tenth epoch; distill its head; evaluate it with either head
generator() {
    local size=$1 steps=$2 after=("${after[@]}")
    local run=FSQ_MARDM_SiT_$size
    local named=("${common[@]}" --ae_name FSQ_AE_High --ae_model FSQ_AE_High --name "$run"
        --model "FSQ-MARDM-SiT-$size")
    once "$runs/$run/model" train_mardm python train_MARDM.py "${named[@]}" --text_tokens on --batch_size 32 \
        --max_iters "$steps" --lr 2e-3 --warm_up_iter 100 --milestones $((steps * 49 / 60)) $((steps * 56 / 60)) \
        --lr_decay 0.3 --ema_decay 0.999 --dropout 0.1 --diffmlps_batch_mul 2 --log_every 50 --need_evaluation \
        --eval_every 10 $(continued "$run")
    after+=("$runs/$run/model/train_mardm.done")
    distill "$run" python distill_MARDM.py "${named[@]}" --batch_size 4 --max_iters 800 --warm_up_iter 50 \
        --teacher_steps 4
    once "$runs/$run/eval" evaluate python evaluation_MARDM.py "${named[@]}" --sampler midpoint \
        --repeat_times 5 --baselines
    once "$runs/$run/eval" evaluate_onestep python evaluation_MARDM.py "${named[@]}" --sampler onestep \
        --repeat_times 5 --record onestep
}

generator XS 3000
generator S 3000
