"""The motion that an edit starts from: a file -> joints in its own world, and feature rows for the model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.AE import STRIDE
from motion.bvh.rigs import HUMANML3D_BONES, bones_m, wrong_size
from motion.skeletons import SMPL22
from utils.data.bvh_dataset import Reading
from utils.data.feature_cache import as_float32, load_array
from utils.errors import BadInput, unreadable
from utils.generation.anchoring import on_bones
from utils.motion_process import joints_to_features, recover_from_ric

BONES = ("own", "humanml3d")
MAX_SOURCE = 12_000  # frames
UNITS_M = {1.0: "metres", 0.001: "millimetres"}
OTHER_UP = {"y": "pass --up z if the file has Z up", "z": "leave --up out if the file has Y up"}
Y_UP = "if it should not, turn it: joints have Y up"


@dataclass(frozen=True)
class Source:
    """A motion to edit."""

    joints: np.ndarray  # [T,J,3] in the file's world coordinates
    rows: np.ndarray  # float64 [4 ceil(T/4),D]; past T the body continues its last movement


def is_bvh(path):
    return Path(path).suffix.lower() == ".bvh"


def read_source(path, spec, reading=None, flag="--source_motion", shortest=STRIDE):
    """A motion file -> Source. reading: how to read a .bvh; flag: for errors. Raises BadInput."""
    where = f"{flag} {path}"
    reading = reading or Reading(spec.fps)
    array = _read_bvh(path, spec, reading, where) if is_bvh(path) else _read_npy(path, flag)
    joints = len(spec.skeleton)
    if array.shape[1:] != (joints, 3) and (array.ndim != 2 or array.shape[1] < spec.dim):
        raise BadInput(
            f"{where}: shape {array.shape}; expected rows of at least {spec.dim} columns or "
            f"joints [T,{joints},3]"
        )
    frames = len(array)
    if not shortest <= frames <= MAX_SOURCE:  # before anything is computed
        pose = "; for a single pose use --keep_pose" if 0 < frames < shortest else ""
        count = f"{frames} frame{'s' * (frames != 1)}"
        raise BadInput(f"{where}: {count}; {shortest} to {MAX_SOURCE} can be edited{pose}")
    if not np.isfinite(as_float32(array)).all():
        raise BadInput(f"{where} holds NaN, infinite or absurd values")
    array = array.astype(np.float64)
    missing = -frames % STRIDE
    if array.ndim == 3:
        size = wrong_size(bones_m(array, spec.skeleton))
        if size:  # of a .bvh it is right: the reading has seen to it
            unit = UNITS_M.get(spec.skeleton.unit_m, f"units of {spec.skeleton.unit_m:g} m")
            raise BadInput(f"{where}: {size}: write joints in {unit}")
        trunk = array[:, spec.skeleton.head] - array[:, 0]
        if (trunk[:, 1] < np.linalg.norm(trunk, axis=-1) / 2).all():
            print(f"{where}: the body lies in every frame; {OTHER_UP[reading.up] if is_bvh(path) else Y_UP}")
        step = (array[-1, 0] - array[-2:][0, 0]) * [1, 0, 1]  # T frames give T - 1 rows
        ahead = array[-1] + step * np.arange(1, missing + 2)[:, None, None]
        rows = joints_to_features(np.concatenate([array, ahead]), spec.skeleton, spec.facing)[:, : spec.dim]
        return Source(array, rows.astype(np.float64))
    rows = np.pad(array[:, : spec.dim], [(0, missing), (0, 0)], mode="edge")
    return Source(joints_of(rows, spec)[:frames], rows)


def _read_npy(path, flag):
    if Path(path).suffix.lower() != ".npy":
        raise BadInput(f"{flag} {path}: a .npy or .bvh file is needed")
    try:
        return load_array(path)
    except BadInput as error:
        raise BadInput(f"{flag} {error}") from None


def _read_bvh(path, spec, reading, where):
    """A BVH file, of a known rig or one with a joint map -> joints [T,22,3] at the model's frame rate."""
    if spec.skeleton is not SMPL22:
        raise BadInput(f"{where}: a .bvh needs a model of 22 joints; pass features or joints")
    try:
        return reading.joints(path)
    except OSError as error:
        raise unreadable(where, error) from None
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from None


def joints_of(rows, spec):
    """Rows [T,D] -> joints [T,J,3], starting at the origin."""
    return recover_from_ric(torch.from_numpy(rows), len(spec.skeleton)).numpy()


def bodies(source, spec, bones):
    """The source's rows on each of the bone lengths that --bones allows -> {name: rows}. Raises BadInput."""
    if bones == "humanml3d" and spec.skeleton is not SMPL22:
        raise BadInput("--bones humanml3d is of 22 joints, which this model does not have: leave it out")
    result = {"own": source.rows}
    if spec.skeleton is SMPL22 and bones != "own":
        result["humanml3d"] = rows = on_bones(source.rows, HUMANML3D_BONES)
        rows[:, [3, *range(5, spec.dim, 3)]] -= joints_of(rows, spec)[..., 1].min()  # stands on the floor
    return result if bones == "auto" else {bones: result.get(bones, source.rows)}


@torch.no_grad()
def best_reproduced(autoencoder, rows_by_body):
    """The name of the body on which the autoencoder reproduces a motion best. rows_by_body: see `bodies`."""

    def error(name):
        motion = model_rows(autoencoder, rows_by_body[name])
        return float((autoencoder.ae.detokenize(autoencoder.ae.tokenize(motion)[1]) - motion).abs().mean())

    return min(rows_by_body, key=error)


def model_rows(autoencoder, rows):
    """Rows [T,D] -> z-normalised input of the autoencoder [1,T,D], on its device."""
    device = next(autoencoder.ae.parameters()).device
    return autoencoder.normalizer(torch.from_numpy(rows).float()).to(device)[None]
