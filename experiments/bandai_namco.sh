#!/usr/bin/env bash
# Real motion capture on two CPU cores: prepare the data, train evaluator, autoencoder and generator, evaluate them.
# results/bandai_namco.md holds the results. Run it again after an interruption: what was finished is not repeated.
#   FSQ_MARDM_DATA=/path/to/data bash experiments/bandai_namco.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
source scripts/steps.sh

data=${FSQ_MARDM_DATA:-../shared/data}/bandai_namco
runs=checkpoints/BandaiNamco logs=logs/BandaiNamco
common=(--dataset_name BandaiNamco --num_workers 0)
ae=(--ae_name FSQ_AE_High --ae_model FSQ_AE_High)
generator=(--name FSQ_MARDM_SiT_XS --model FSQ-MARDM-SiT-XS)
after=() # the trainings so far

[ -f datasets/BandaiNamco/spec.json ] ||
    step prepare python prepare_dataset.py joints --input "$data" --name BandaiNamco
[ -f $runs/text_mot_match/model/finest.tar ] ||
    step evaluator python train_Evaluators.py "${common[@]}" --which matching
[ -f $runs/length_estimator/model/finest.tar ] ||
    step length_estimator python train_LengthEstimator.py "${common[@]}"

once $runs/FSQ_AE_High/model train_ae python train_AE.py "${common[@]}" --name FSQ_AE_High --model FSQ_AE_High \
    --width 192 --batch_size 32 --max_iters 9000 --lr 1e-3 --warm_up_iter 100 --root_weight 4 $(continued FSQ_AE_High)
after+=($runs/FSQ_AE_High/model/train_ae.done)
once $runs/FSQ_AE_High/eval evaluate_ae python evaluation_AE.py "${common[@]}" --name FSQ_AE_High \
    --model FSQ_AE_High --baselines

once $runs/FSQ_MARDM_SiT_XS/model train_mardm python train_MARDM.py "${common[@]}" "${ae[@]}" "${generator[@]}" \
    --batch_size 32 --max_iters 5000 --lr 2e-3 --warm_up_iter 100 --milestones 3300 4400 --lr_decay 0.3 \
    --ema_decay 0.999 --dropout 0.1 --diffmlps_batch_mul 2 --log_every 50 --need_evaluation --eval_every 20 \
    $(continued FSQ_MARDM_SiT_XS)
after+=($runs/FSQ_MARDM_SiT_XS/model/train_mardm.done)
distill FSQ_MARDM_SiT_XS python distill_MARDM.py "${common[@]}" "${ae[@]}" "${generator[@]}" --batch_size 4 \
    --max_iters 2000 --warm_up_iter 50 --teacher_steps 4
once $runs/FSQ_MARDM_SiT_XS/eval evaluate_mardm python evaluation_MARDM.py "${common[@]}" "${ae[@]}" \
    "${generator[@]}" --sampler midpoint --repeat_times 5 --baselines
once $runs/FSQ_MARDM_SiT_XS/eval evaluate_onestep python evaluation_MARDM.py "${common[@]}" "${ae[@]}" \
    "${generator[@]}" --sampler onestep --repeat_times 5 --record onestep
