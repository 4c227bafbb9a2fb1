"""What a resumed training continues from, and what it must not change."""

from utils.errors import BadInput
from utils.runs import Run, weights_hash
from utils.safe_load import AGAIN, State, load_state

# Settings that a resumed run may change: nothing learned so far depends on them.
MAY_CHANGE = {
    *("name", "dataset_dir", "checkpoints_dir", "checkpoint", "device", "num_workers", "grad_accum"),
    *("epoch", "max_iters", "log_every", "save_every", "is_continue"),
    *("lr", "weight_decay", "warm_up_iter", "milestones", "lr_decay", "schedule", "clip_norm"),  # from now on
    *("precision", "compile", "no_tf32", "deterministic", "ema_decay", "dataset"),
}

OF_DATA = ("fps", "skeleton", "facing")  # what must stay of "dataset"; its name and folder may change

ADDED = {"windows_per_clip": "all"}  # settings that older checkpoints lack -> how these were trained

CHECKPOINTS = {"latest.tar": "latest", "net_best_fid.tar": "best"}  # files as values of --checkpoint


def refuse_other_settings(run, asked, stored):
    """BadInput for the first setting in `asked` that differs from the stored one and must not."""
    stored = ADDED | stored
    for key, value in asked.items():
        before = stored.get(key)
        if key == "dataset" and isinstance(before, dict):
            refuse_other_settings(run, {k: value[k] for k in OF_DATA if k in before}, before)
        if key in MAY_CHANGE or key not in stored:
            continue
        if isinstance(value, dict) and isinstance(before, dict):  # trained weights that the run depends on
            if before.get("sha256") != value.get("sha256"):
                raise BadInput(_other_weights(run, key, before, value))
        elif before != value:
            raise BadInput(
                f"{run.latest} was trained with {key} {before}, not {value}: continue it with the "
                f"flags of its opt.json, or remove {run.root} to train anew"
            )


def _other_weights(run, key, before, now):
    """The error line, with its remedy, for an autoencoder or teacher other than the run began with."""
    file, remedy = before.get("file"), f"bring that {key} back"
    if file != now.get("file") and file in CHECKPOINTS and _still_there(run, key, before, now):
        remedy = f"pass --checkpoint {CHECKPOINTS[file]}"
    anew = "train a new run under another --name" if key == "autoencoder" else f"remove {run.root}"
    own = f"{key} {before.get('name')} ({file}" + (f", step {before['step']})" if "step" in before else ")")
    begun = f"needs the {own} with which it was begun"
    return f"{run.latest} {begun}, these are other weights: {remedy}, or {anew}"


def _still_there(run, key, before, now):
    """Whether the file that the run began with still holds its weights: it may have been trained on."""
    if key == "autoencoder":
        owner, weights = Run(run.root.with_name(now["name"])), "ae"
    else:  # a distillation lies within its teacher
        owner, weights = Run(run.root.parent), "ema_mardm"
    file = owner.model / before["file"]
    try:
        return weights_hash(State(load_state(file), file).weights(weights, key)) == before.get("sha256")
    except BadInput:
        return False


def read_back(run):
    """The state in latest.tar. If that is damaged, BadInput says so, and offers latest.prev.tar if whole."""
    if not run.latest.is_file():
        raise BadInput(f"--is_continue: there is no {run.latest} to go on from: train without the flag first")
    try:
        return load_state(run.latest)
    except BadInput as error:
        trouble = str(error).removesuffix(AGAIN)
    try:
        step = load_state(run.previous)["total_it"]
    except (BadInput, KeyError):
        raise BadInput(f"{trouble}; there is no whole {run.previous.name} either: train anew") from None
    remedy = f"cp {run.previous} {run.latest}"
    raise BadInput(f"{trouble}; the save before it is whole (step {step}): {remedy}") from None
