"""Scalars from TensorBoard's event files, and their smoothing."""

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.errors import BadInput

EVENT_FILES = "events.out.tfevents.*"


def event_folder(log_dir):
    """The folder with the event files of `log_dir`: itself, its `model`, or the only one below it."""
    log_dir = Path(log_dir)
    if not log_dir.is_dir():
        raise BadInput(f"{log_dir}: no such folder; give a run's folder, e.g. checkpoints/t2m/AE/model")
    folders = sorted({file.parent for file in log_dir.rglob(EVENT_FILES)})
    for folder in (log_dir, log_dir / "model"):  # not a run's onestep/model
        if folder in folders:
            return folder
    if not folders:
        raise BadInput(f"{log_dir}: no TensorBoard event files ({EVENT_FILES}) in it; train first")
    if len(folders) > 1:
        names = ", ".join(map(str, folders))
        raise BadInput(f"{log_dir}: event files of {len(folders)} runs, choose one: {names}")
    return folders[0]


def run_name(log_dir):
    """checkpoints/t2m/AE/model -> AE: every run has a folder "model"."""
    folder = event_folder(log_dir).resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def check_names(names, log_dirs):
    """BadInput unless every run has a name and all differ."""
    if len(names) != len(log_dirs):
        raise BadInput(f"--names: {len(names)} for {len(log_dirs)} runs; give one name for each run")
    if len(set(names)) < len(names):
        raise BadInput(f"--names: {' '.join(names)}: a name stands twice; give each run its own")


def read_points(log_dir):
    """Every scalar of a run -> {tag: (steps int64 [N], values float64 [N], seconds since 1970 [N])}."""
    folder = event_folder(log_dir)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})  # 0 keeps every point
    events.Reload()
    tags = sorted(events.Tags()["scalars"])
    if not tags:
        raise BadInput(f"{folder}: the event files hold no scalars yet; train for longer")
    columns = ("step", "value", "wall_time")
    return {
        tag: tuple(np.array([getattr(p, c) for p in events.Scalars(tag)]) for c in columns) for tag in tags
    }


def smooth(values, weight):
    """Exponential moving average without bias to the first value: s_n = sum_i w^(n-i) x_i / sum_i w^(n-i).

    Values that are not finite are left out; until the first finite one the result is NaN.
    """
    total, mass, result = 0.0, 0.0, []
    for value in values:
        total, mass = weight * total, weight * mass
        if np.isfinite(value):
            total, mass = total + value, mass + 1
        result.append(total / mass if mass else np.nan)
    return np.array(result)
