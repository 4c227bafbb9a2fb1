#!/usr/bin/env bash
# Text-to-motion from nothing: train FSQ-AE, evaluate it, train and distill FSQ-MARDM, evaluate it, sample videos.
#   bash train_fsq_pipeline.sh --demo                  the embedded demo set, sized for two CPU cores
#   bash train_fsq_pipeline.sh                         HumanML3D at full size (a GPU; days)
#   bash train_fsq_pipeline.sh --dataset_name kit      another data set at full size
# Options:
#   --ae_model NAME, --model NAME     another autoencoder of AE_models, another generator of MARDM_models
#   --ae_epochs N, --epochs N         passes over the training set of stage 1, of stage 2
#   --skip N                          leave phase N (1 to 5) out; may be given several times
#   --device {auto,cuda,cpu,mps}      [auto]
#   --help
# Makes .venv and installs what is missing. Run the same command again after an interruption: what was finished is not
# repeated, an interrupted training goes on where it was saved. To train anew, remove the run's folder in checkpoints/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# ---- what to train: everything that is ever tuned stands here ----

full_size() {
    DATASET=t2m
    AE_NAME=FSQ_AE_High AE_MODEL=FSQ_AE_High
    NAME=FSQ_MARDM_SiT_XL MODEL=FSQ-MARDM-SiT-XL
    EVALUATOR_FLAGS=()
    LENGTH_FLAGS=()
    AE_FLAGS=(--epoch 50 --batch_size 256)
    MARDM_FLAGS=(--epoch 500 --batch_size 64 --need_evaluation --eval_every 10)
    DISTILL_FLAGS=(--epoch 25 --batch_size 64)
    EVAL_AE_FLAGS=()
    EVAL_MARDM_FLAGS=()
}

demo_size() {
    DATASET=Demo
    AE_NAME=FSQ_AE_High AE_MODEL=FSQ_AE_High
    NAME=FSQ_MARDM_SiT_XS MODEL=FSQ-MARDM-SiT-XS
    EVALUATOR_FLAGS=(--epoch 15 --num_workers 0)
    LENGTH_FLAGS=()
    # MARDM's losses: with those of the root's path and the velocities 2,500 steps lose waves (results/autoencoder.md)
    AE_FLAGS=(--recipe mardm --width 128 --root_weight 4 --batch_size 32 --epoch 1000 --max_iters 2500 --lr 1e-3
        --warm_up_iter 100 --milestones 1800 2300 --lr_decay 0.3 --num_workers 0)
    # the words alone: by the pooled vector a generator plays the orders of its training set (checkpoints/Demo/README.md)
    MARDM_FLAGS=(--text_tokens on --text_refiner 2 --pooled_drop_prob 1 --batch_size 32 --epoch 1000 --max_iters 3000
        --lr 2e-3 --warm_up_iter 100 --milestones 2000 2600 --lr_decay 0.3 --ema_decay 0.999 --dropout 0.1
        --diffmlps_batch_mul 2 --need_evaluation --eval_every 15 --num_workers 0)
    DISTILL_FLAGS=(--batch_size 4 --epoch 100 --max_iters 800 --warm_up_iter 50 --teacher_steps 4 --num_workers 0)
    EVAL_AE_FLAGS=(--repeat_times 5 --num_workers 0)
    EVAL_MARDM_FLAGS=(--repeat_times 3 --num_workers 0)
}

PROMPTS="a person walks in a curve to the left
a person walks forward and then waves with their left hand
a person jumps up
someone sits down on a chair
a man kicks with his right leg
a woman bows"

# ---- how it goes ----

usage() {
    sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

refuse() {
    echo "train_fsq_pipeline.sh: $* (see --help)" >&2
    exit 2
}

full_size
device=auto
options=("$@")
chosen_dataset="" chosen_ae="" chosen_model="" skipped=""
ae_epochs=() epochs=()
while [ $# -gt 0 ]; do
    case "$1" in
        --demo) demo_size ;;
        --dataset_name | --device | --ae_model | --model | --ae_epochs | --epochs | --skip)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            case "$1" in
                --dataset_name) chosen_dataset=$2 ;;
                --device) device=$2 ;;
                --ae_model) chosen_ae=$2 ;;
                --model) chosen_model=$2 ;;
                --ae_epochs) ae_epochs=(--epoch "$2" --max_iters 0) ;;
                --epochs) epochs=(--epoch "$2" --max_iters 0) ;;
                --skip)
                    case "$2" in [1-5]) skipped+=$2 ;; *) refuse "--skip $2: phases are 1 to 5" ;; esac
                    ;;
            esac
            shift
            ;;
        -h | --help) usage && exit 0 ;;
        *) refuse "unknown option $1" ;;
    esac
    shift
done
DATASET=${chosen_dataset:-$DATASET}
if [ -n "$chosen_ae" ]; then AE_MODEL=$chosen_ae AE_NAME=$chosen_ae; fi
if [ -n "$chosen_model" ]; then MODEL=$chosen_model NAME=${chosen_model//-/_}; fi
AE_FLAGS+=(${ae_epochs[@]+"${ae_epochs[@]}"})
MARDM_FLAGS+=(${epochs[@]+"${epochs[@]}"})

case "$DATASET" in t2m | kit) setup_lists=(requirements.txt requirements-clip.txt) ;; esac
source scripts/setup.sh
source scripts/steps.sh "${options[@]+"${options[@]}"}"

runs=checkpoints/$DATASET
logs=logs/$DATASET
common=(--dataset_name "$DATASET" --device "$device")
tokens=(--ae_name "$AE_NAME" --ae_model "$AE_MODEL")
generated=generation/${NAME}_$DATASET
after=() # the trainings so far

# begin N TITLE: the phase's headline; fails where the phase is to be left out
begin() {
    phase="phase $1"
    echo "=== Phase $1: $2 ==="
    case "$skipped" in *"$1"*) echo "skipped" && return 1 ;; esac
}

phase="the preparation"
echo "=== Preparation: data set, evaluators, length estimator ==="
if [ "$DATASET" = Demo ] && [ ! -f datasets/Demo/spec.json ]; then
    step prepare python prepare_dataset.py demo
fi
if [ ! -f "$runs/text_mot_match/model/finest.tar" ]; then
    case "$DATASET" in
        t2m | kit) echo "No evaluators in $runs: training our own. Figures compare with others' only under the published ones (docs/training.md)." ;;
    esac
fi
train_or_take text_mot_match evaluators python train_Evaluators.py "${common[@]}" ${EVALUATOR_FLAGS[@]+"${EVALUATOR_FLAGS[@]}"}
train_or_take length_estimator length_estimator python train_LengthEstimator.py "${common[@]}" ${LENGTH_FLAGS[@]+"${LENGTH_FLAGS[@]}"}

if begin 1 "Train FSQ-AE ($AE_MODEL)"; then
    once "$runs/$AE_NAME/model" train_ae python train_AE.py "${common[@]}" --name "$AE_NAME" --model "$AE_MODEL" "${AE_FLAGS[@]}" \
        $(continued "$AE_NAME")
fi
after+=("$runs/$AE_NAME/model/train_ae.done")
if begin 2 "Evaluate FSQ-AE"; then
    once "$runs/$AE_NAME/eval" evaluate_ae python evaluation_AE.py "${common[@]}" --name "$AE_NAME" --model "$AE_MODEL" \
        ${EVAL_AE_FLAGS[@]+"${EVAL_AE_FLAGS[@]}"}
fi
if begin 3 "Train FSQ-MARDM ($MODEL), distill its head"; then
    once "$runs/$NAME/model" train_mardm python train_MARDM.py "${common[@]}" "${tokens[@]}" --name "$NAME" \
        --model "$MODEL" "${MARDM_FLAGS[@]}" $(continued "$NAME")
    after+=("$runs/$NAME/model/train_mardm.done")
    case "$MODEL" in
        *-Softmax-*) ;; # draws a token in one evaluation as it is
        *) distill "$NAME" python distill_MARDM.py "${common[@]}" "${tokens[@]}" --name "$NAME" --model "$MODEL" \
            "${DISTILL_FLAGS[@]}" ;;
    esac
fi
after+=("$runs/$NAME/model/train_mardm.done" "$runs/$NAME/onestep/model/distill_mardm.done")
if begin 4 "Evaluate FSQ-MARDM"; then
    once "$runs/$NAME/eval" evaluate_mardm python evaluation_MARDM.py "${common[@]}" "${tokens[@]}" --name "$NAME" \
        --model "$MODEL" ${EVAL_MARDM_FLAGS[@]+"${EVAL_MARDM_FLAGS[@]}"}
fi
if begin 5 "Sample"; then
    mkdir -p "$logs"
    printf '%s\n' "$PROMPTS" >"$logs/prompts.txt"
    once "$generated" sample python sample.py "${common[@]}" "${tokens[@]}" --name "$NAME" --model "$MODEL" \
        --text_path "$logs/prompts.txt" --export npy mp4 html
    for name in "$AE_NAME" "$NAME"; do
        step "plot_$name" python plot_loss.py --log_dir "$runs/$name/model" --output "$logs/$name.png"
    done
fi

echo "=== All phases completed! ==="
case "$skipped" in
    *4*) ;;
    *) tail -n 36 "$logs/evaluate_mardm.log" ;; # table, ceiling, shares of the real R-precision, FID
esac
cat <<END
videos, pages      $generated/
loss curves        $logs/$AE_NAME.png, $logs/$NAME.png
console logs       $logs/
checkpoints        $runs/
all curves         tensorboard --logdir $runs --port 6006    (from .venv/bin)
time               $((SECONDS / 60)) min $((SECONDS % 60)) s
END
