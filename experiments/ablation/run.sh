#!/usr/bin/env bash
# Continuous latents, FSQ grids and VQ code books at equal encoder, equal budget, on real motion capture. What is done
# is kept, what was begun goes on: run it again after an interruption, or to add seeds.
#   bash experiments/ablation/run.sh [--quick | --long]   SEEDS="1 2 3" by default, FSQ_MARDM_DATA=/path/to/data
# --quick: one seed, three autoencoders, three generators of 400 steps, 3 repeats; tables of the same form, not of worth.
# --long: the budget of experiments/bandai_namco.sh, wider and with two to three times as many steps, for what the
#   generators need alone.
# TOKENS="AE_Model FSQ_AE_High" trains and evaluates these and their generators, nothing else, so that several processes
# can share the work; the same command without it does the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/setup.sh
source scripts/steps.sh

data=${FSQ_MARDM_DATA:-../shared/data}/bandai_namco
seeds=${SEEDS:-1 2 3} folder=checkpoints/ablation out=results/ablation
budget=full width=128 ae_steps=2000 steps=2500 repeats=5 eval_every=4 eval_repeats=20
case "${1:-}" in
    "") ;;
    --quick)
        seeds=1 folder=checkpoints/ablation_quick out=results/ablation_quick
        budget=quick ae_steps=400 steps=400 repeats=3 eval_every=2 eval_repeats=3
        ;;
    --long)
        folder=checkpoints/ablation_long out=results/ablation_long
        budget=long width=192 ae_steps=7000 steps=5000 eval_every=8
        ;;
    *)
        echo "error: $1 is not known: see the head of $0" >&2
        exit 2
        ;;
esac
runs=$folder/BandaiNamco logs=$folder/logs
common=(--dataset_name BandaiNamco --checkpoints_dir "$folder" --num_workers 0)

# Every variant once: its name, its entry in AE_models, its own flags.
variant() {
    case $1 in
        AE_Model | FSQ_AE_*) echo "$1" ;;
        FSQ_888) echo FSQ_AE_Model --fsq_levels 8 8 8 ;;
        FSQ_75555) echo FSQ_AE_Model --fsq_levels 7 5 5 5 5 ;;
        VQ_[0-9]*) echo VQ_AE_Model --codebook_size "${1#VQ_}" ${vq_settings[2]} ;;
        VQ_tune_*) echo VQ_AE_Model ${vq_settings[${1#VQ_tune_}]} ;;
    esac
}
# What the VQ is tuned by; later flags beat the common ones. 2 is the best of them on val, and what the tables use.
vq_settings=(
    [1]="--commitment_cost 0.25"
    [2]="--commitment_cost 1.0"
    [3]="--commitment_cost 0.25 --lr 5e-4"
)
tokens=(${TOKENS:-AE_Model FSQ_AE_High VQ_4096})    # those that generators are trained on
others=(FSQ_888 VQ_512 FSQ_75555 FSQ_AE_Small FSQ_AE_Medium VQ_16384)
declare -A generator=([AE_Model]=MARDM [FSQ_AE_High]=FSQ-MARDM [VQ_4096]=VQ_MARDM)

finished() { [ -f "$runs/$1/eval/$2.json" ]; }

autoencoder() { # variant seed [split]
    local run=$1_$2 record=eval model
    if [ "${3:-test}" = val ]; then record=eval_val; fi
    if finished "$run" $record; then return; fi
    model=($(variant "$1"))
    if ! [ -f "$runs/$run/trained" ]; then
        step "$run" python train_AE.py "${common[@]}" --name "$run" --seed "$2" --width $width --batch_size 32 \
            --recipe mardm --max_iters $ae_steps --lr 1e-3 --warm_up_iter 100 --milestones $((ae_steps * 13 / 20)) \
            $((ae_steps * 7 / 8)) --lr_decay 0.3 --root_weight 4 --model "${model[@]}" $(continued "$run")
        touch "$runs/$run/trained"
    fi
    step "$run" python evaluation_AE.py "${common[@]}" --name "$run" --model "${model[0]}" --split "${3:-test}" \
        --repeat_times $eval_repeats --baselines
}

generator() { # autoencoder seed suffix flags...
    local kind=${generator[$1]}
    local run=${kind//-/_}$3_$2 ae=(--ae_name "$1_$2" --ae_model "$(variant "$1" | cut -d' ' -f1)")
    local this=("${common[@]}" "${ae[@]}" --name "$run" --model "$kind-SiT-XS")
    if finished "$run" eval; then return; fi
    if ! [ -f "$runs/$run/trained" ]; then
        step "$run" python train_MARDM.py "${this[@]}" --seed "$2" --batch_size 32 --max_iters $steps --lr 2e-3 \
            --warm_up_iter 100 --milestones $((steps * 2 / 3)) $((steps * 9 / 10)) --lr_decay 0.3 --ema_decay 0.999 \
            --dropout 0.1 --diffmlps_batch_mul 2 --log_every 10 --need_evaluation --eval_every $eval_every \
            --attention neighbours "${@:4}" \
            $(continued "$run")
        touch "$runs/$run/trained"
    fi
    step "$run" python evaluation_MARDM.py "${this[@]}" --repeat_times $repeats --baselines
}

setting() { # generator run, its autoencoder run, their models, record, flags...: one trained generator, drawn otherwise
    if finished "$1" "$5"; then return; fi
    step "$1" python evaluation_MARDM.py "${common[@]}" --name "$1" --ae_name "$2" --model "$3" --ae_model "$4" \
        --repeat_times $repeats --record "$5" "${@:6}"
}

[ -f datasets/BandaiNamco/spec.json ] || python prepare_dataset.py joints --input "$data" --name BandaiNamco
[ -f "$runs/text_mot_match/model/finest.tar" ] || step evaluator python train_Evaluators.py "${common[@]}" --which matching

for tokenizer in "${tokens[@]}"; do
    for seed in $seeds; do
        autoencoder "$tokenizer" "$seed"
        generator "$tokenizer" "$seed" ""
    done
done
if [ -n "${TOKENS:-}" ]; then exit; fi
if [ $budget = full ]; then
    for setting in 1 2 3; do autoencoder VQ_tune_$setting 1 val; done
    for tokenizer in "${others[@]}"; do
        for seed in $seeds; do autoencoder "$tokenizer" "$seed"; done
    done
fi
for seed in $seeds; do # drawn and trained otherwise: each of its own effects, on and off
    grid=("FSQ_MARDM_$seed" "FSQ_AE_High_$seed" FSQ-MARDM-SiT-XS FSQ_AE_High)
    setting "${grid[@]}" snap_off --snap off
    if [ $budget = long ]; then continue; fi
    setting "${grid[@]}" snap_end --snap end
    setting "${grid[@]}" no_ema --no_ema
    setting "MARDM_$seed" "AE_Model_$seed" MARDM-SiT-XS AE_Model no_ema --no_ema
    for tokenizer in "${tokens[@]}"; do generator "$tokenizer" "$seed" _flat --attention flat; done
    generator FSQ_AE_High "$seed" _flat_raw --attention flat --raw_targets
    generator AE_Model "$seed" _flat_raw --attention flat --raw_targets
done
if [ $budget = full ]; then
    for tokenizer in "${tokens[@]}"; do # 30 motions of each of 96 captions
        kind=${generator[$tokenizer]}
        for seed in $seeds; do
            setting "${kind//-/_}_$seed" "${tokenizer}_$seed" "$kind-SiT-XS" "$(variant "$tokenizer" | cut -d' ' -f1)" \
                multimodality --cal_mm --repeat_times 1
        done
    done
fi
for seed in $seeds; do # does snapping save solver steps?
    if [ $budget = long ]; then break; fi
    grid=("FSQ_MARDM_$seed" "FSQ_AE_High_$seed" FSQ-MARDM-SiT-XS FSQ_AE_High)
    for n in 1 2; do
        setting "${grid[@]}" snap_step_$n --sampler_steps $n
        setting "${grid[@]}" snap_off_$n --snap off --sampler_steps $n
    done
done

# What is read off the trained runs, and the report of everything.
names=()
for tokenizer in "${tokens[@]}" "${others[@]}"; do
    kind=${generator[$tokenizer]:-} model=$(variant "$tokenizer" | cut -d' ' -f1)
    for seed in $seeds; do
        if [ -f "$runs/${tokenizer}_$seed/model/latest.tar" ]; then names+=("${tokenizer}_$seed"); fi
        run=${kind//-/_}_$seed
        if [ -n "$kind" ] && ! finished "$run" memorisation; then
            step "$run" python -m experiments.nearest_neighbours "${common[@]}" --name "$run" --model "$kind-SiT-XS" \
                --ae_name "${tokenizer}_$seed" --ae_model "$model"
        fi
    done
done
step topology python analyze_topology.py "${common[@]}" --ae_names "${names[@]}" \
    --output "$runs/topology.png" --json "$runs/topology.json"
more=()
if [ $budget = full ]; then more=(--comparison fsq_ae_comparison.md --notes experiments/notes.md); fi
python -m experiments.ablation.report --folder "$folder" --out "$out" ${more[@]+"${more[@]}"}
