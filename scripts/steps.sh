# Sourced by the scripts that run several commands: each is run once, and a second sitting goes on where the first one
# stopped. They set $runs, the folder of the runs, and $logs, that of the logs; $phase may name the part that is run.

export TQDM_MININTERVAL=1 PYTHONUNBUFFERED=1
command="bash $0${*:+ $*}"

# step LOG COMMAND...: run it, its output on the screen and appended to the log; stop the script where it fails
step() {
    local log=$logs/$1.log code=0 begun=$SECONDS
    shift
    mkdir -p "$logs"
    echo "+ $*"
    echo "# $(date '+%Y-%m-%d %H:%M:%S')  $*" >>"$log"
    "$@" 2>&1 | tee -i -a "$log" || code=$?
    if [ "$code" -ne 0 ]; then
        echo
        echo "$0 stopped${phase:+ in $phase}: the command above ended with $code; its output is in $log." >&2
        echo "Mend the cause and run again: $command" >&2
        exit "$code"
    fi
    echo "  ($((SECONDS - begun)) s)" | tee -a "$log"
}

# once FOLDER LOG COMMAND...: `step`, unless FOLDER/LOG.done says that this command was finished, and later than the
# trainings whose markers $after lists
once() {
    local marker=$1/$2.done text="${*:3}" other
    text=${text% --is_continue}
    if [ "$(cat "$marker" 2>/dev/null)" = "$text" ] && current "$marker"; then
        echo "finished before: $text"
        return
    fi
    step "${@:2}"
    mkdir -p "$1"
    echo "$text" >"$marker"
}

current() {
    local training
    for training in ${after[@]+"${after[@]}"}; do
        if [ "$training" -nt "$1" ]; then return 1; fi
    done
}

# train_or_take NAME LOG COMMAND...: `once`, for the evaluators or the length estimator in the folder NAME, unless the one
# there came from elsewhere
train_or_take() {
    local folder=$runs/$1/model
    if [ ! -f "$folder/finest.tar" ] || [ -f "$folder/latest.tar" ]; then
        once "$folder" "${@:2}" $(continued "$1")
    fi
}

# distill RUN COMMAND...: `once`, for the one-step head of RUN; begun anew where a training in $after is newer than it
distill() {
    local folder=$runs/$1/onestep/model
    if [ -f "$folder/latest.tar" ] && ! current "$folder/latest.tar"; then rm -rf "$folder"; fi
    once "$folder" distill_mardm "${@:2}" $(continued "$1/onestep")
    after+=("$folder/distill_mardm.done")
}

# continued RUN: the flag that goes on with a training that was begun
continued() {
    if [ -f "$runs/$1/model/latest.tar" ]; then echo --is_continue; fi
}

# evaluate RECORD FLAGS...: the generator $run, whose flags are $named
evaluate() {
    once "$runs/$run/eval" "$1" python evaluation_MARDM.py "${named[@]}" --record "$@"
}

# guidance: the generator $run on val, by which its guidance is chosen
guidance() {
    local cfg
    for cfg in 1.5 2.5 4; do
        evaluate "val_cfg$cfg" --split val --cfg "$cfg" --sampler midpoint --repeat_times 2
    done
}
