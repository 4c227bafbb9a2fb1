#!/usr/bin/env bash
# Real motion capture on two CPU cores: prepare the data, train evaluator, autoencoder and generator, evaluate them;
# then the same with continuous latents, both generators once more with another seed, and a finer grid.
# results/bandai_namco.md holds the results. Run it again after an interruption: what was finished is not repeated.
#   FSQ_MARDM_DATA=/path/to/data bash experiments/bandai_namco.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
source scripts/steps.sh

data=${FSQ_MARDM_DATA:-../shared/data}/bandai_namco
runs=checkpoints/BandaiNamco logs=logs/BandaiNamco
common=(--dataset_name BandaiNamco --num_workers 0)
set_folder=() # of the set that autoencoders and generators learn from, where that is another

[ -f datasets/BandaiNamco/spec.json ] ||
    step prepare python prepare_dataset.py joints --input "$data" --name BandaiNamco
train_or_take text_mot_match evaluator python train_Evaluators.py "${common[@]}" --which matching
train_or_take length_estimator length_estimator python train_LengthEstimator.py "${common[@]}"

# autoencoder NAME MODEL FLAGS...: train and evaluate it
autoencoder() {
    ae=$1 ae_model=$2 after=()
    once "$runs/$ae/model" train_ae python train_AE.py "${common[@]}" --name "$ae" --model "$ae_model" --width 192 \
        --batch_size 32 --max_iters 9000 --lr 1e-3 --warm_up_iter 100 --root_weight 4 \
        --windows_per_clip all ${set_folder[@]+"${set_folder[@]}"} "${@:3}" $(continued "$ae")
    after=("$runs/$ae/model/train_ae.done")
    once "$runs/$ae/eval" evaluate_ae python evaluation_AE.py "${common[@]}" --name "$ae" --model "$ae_model" --baselines
}

# generator NAME MODEL FLAGS...: train it on the tokens of the last autoencoder
generator() {
    run=$1 after=("$runs/$ae/model/train_ae.done")
    named=("${common[@]}" --ae_name "$ae" --ae_model "$ae_model" --name "$run" --model "$2")
    once "$runs/$run/model" train_mardm python train_MARDM.py "${named[@]}" --batch_size 32 --max_iters 5000 \
        --lr 2e-3 --warm_up_iter 100 --milestones 3300 4400 --lr_decay 0.3 --ema_decay 0.999 --dropout 0.1 \
        --diffmlps_batch_mul 2 --log_every 50 --need_evaluation --eval_every 20 ${set_folder[@]+"${set_folder[@]}"} "${@:3}" \
        $(continued "$run")
    after+=("$runs/$run/model/train_mardm.done")
}

# compare NAME MODEL FLAGS...: a generator, its one-step head, the test split by either
compare() {
    generator "$@"
    distill "$run" python distill_MARDM.py "${named[@]}" --batch_size 4 --max_iters 2000 --warm_up_iter 50 \
        --teacher_steps 4 ${set_folder[@]+"${set_folder[@]}"}
    evaluate midpoint --sampler midpoint --repeat_times 5 --baselines
    evaluate onestep --sampler onestep --time_steps 18 --order random --refine 0 --repeat_times 5
}

# chosen: a generator at the guidance that was chosen where that is not the default
chosen() {
    evaluate midpoint_cfg1.5 --sampler midpoint --repeat_times 5 --cfg 1.5
    evaluate onestep_cfg1.5 --sampler onestep --time_steps 18 --order random --refine 0 --repeat_times 5 --cfg 1.5
}

# last: a generator by its last weights, not by those that FID on val chose
last() {
    evaluate last_cfg1.5 --checkpoint latest --sampler midpoint --repeat_times 5 --cfg 1.5
}

# spread: how much motions of one caption differ, by either head
spread() {
    evaluate midpoint_mm_cfg1.5 --sampler midpoint --repeat_times 1 --cal_mm --cfg 1.5
    evaluate onestep_mm_cfg1.5 --sampler onestep --time_steps 18 --order random --refine 0 --repeat_times 1 --cal_mm --cfg 1.5
}

autoencoder FSQ_AE_High FSQ_AE_High
compare FSQ_MARDM_SiT_XS FSQ-MARDM-SiT-XS
guidance # 2.5, the default, is best
compare FSQ_MARDM_SiT_XS_2 FSQ-MARDM-SiT-XS --seed 2

autoencoder AE_Model AE_Model
compare MARDM_SiT_XS MARDM-SiT-XS
guidance # 1.5 is best
chosen
compare MARDM_SiT_XS_2 MARDM-SiT-XS --seed 2
chosen

autoencoder Finer_AE FSQ_AE_Model --fsq_levels 8 8 8 8 8 8 8 8
compare Finer_SiT_XS FSQ-MARDM-SiT-XS
guidance # 2.5 is best

# Added after these, with their rules before their runs: equally many windows of each clip in place of every window, in which
# long clips count most. The same commands and seeds. --windows_per_clip equal becomes the default of train_AE.py, and `all`
# that of --recipe mardm, if on test, beside the rows above, the reconstruction of the grid and of continuous latents has the
# lower FID and a root-aligned error that is no higher, and on CMU's val nothing speaks against it (experiments/cmu.sh).
# Generators: guidance by FID on val as above, and the test split beside seed 1
# Added after these were read: a second seed of either generator, at the guidance of the first; what is said of both kinds of
# tokens is said of both seeds. And three times the steps on the grid: it helps if FID and physical distance at the chosen
# guidance lie below those of both seeds of 5,000 steps
autoencoder FSQ_AE_High_equal FSQ_AE_High --windows_per_clip equal
compare Equal_SiT_XS FSQ-MARDM-SiT-XS
guidance # 1.5 is best
chosen
compare Equal_SiT_XS_2 FSQ-MARDM-SiT-XS --seed 2
chosen
compare Longer_SiT_XS FSQ-MARDM-SiT-XS --max_iters 15000 --milestones 9900 13200 --eval_every 60
chosen
last # added when `chosen` had been read
autoencoder AE_Model_equal AE_Model --windows_per_clip equal
compare Equal_MARDM_SiT_XS MARDM-SiT-XS
guidance # 1.5 is best
chosen
# Added after all of these were read, with its rules before its runs: three seeds of either kind of tokens. A difference counts
# where its 95% interval over the paired seeds (Student's t) leaves 0 out. FID on val may choose weights badly, as it did in
# Longer_SiT_XS: each new seed by its last weights too, at the chosen guidance. If these have the lower FID in all of them and
# in Longer_SiT_XS, docs/training.md advises --checkpoint latest. And one evaluation by today's rounds, and
# MultiModality
compare Equal_MARDM_SiT_XS_2 MARDM-SiT-XS --seed 2
chosen
last
evaluate refined_cfg1.5 --sampler onestep --repeat_times 5 --cfg 1.5
spread
compare Equal_MARDM_SiT_XS_3 MARDM-SiT-XS --seed 3
chosen
last
evaluate refined_cfg1.5 --sampler onestep --repeat_times 5 --cfg 1.5
spread
ae=FSQ_AE_High_equal ae_model=FSQ_AE_High
compare Equal_SiT_XS_3 FSQ-MARDM-SiT-XS --seed 3
chosen
last
evaluate refined_cfg1.5 --sampler onestep --repeat_times 5 --cfg 1.5
spread

# Added after these, with the rule before the runs: mirrored twins of the training clips, with mirrored captions, so that
# autoencoder and generator see each clip half as often. All else as with equal windows; evaluated on the same clips without
# twins. They help if in both seeds FID and physical distance at the chosen guidance lie below those of the same seed of
# Equal_SiT_XS
set_folder=(--dataset_dir datasets/twins)
[ -f datasets/twins/BandaiNamco/spec.json ] ||
    step prepare_twins python prepare_dataset.py joints --input "$data" --name BandaiNamco --mirror "${set_folder[@]}"
autoencoder Twins_AE FSQ_AE_High --windows_per_clip equal
compare Twins_SiT_XS FSQ-MARDM-SiT-XS
# FID 1.54 at guidance 2.5, of Equal_SiT_XS .23, so guidance 1.5 and the second seed were left out. Every token drawn once or
# twice more, for results/sampling.md
for passes in 0 1 2; do evaluate "refine_$passes" --sampler onestep --time_steps 9 --repeat_times 5 --refine "$passes"; done
for passes in 0 1; do evaluate "midpoint_refine_$passes" --sampler midpoint --repeat_times 5 --refine "$passes"; done
