"""Mean and Std of a set's features, as HumanML3D computes them: Std is averaged within groups of columns."""

import numpy as np

from utils.errors import BadInput
from utils.motion_process import feature_groups

STD_FLOOR = 1e-4  # avoids division by 0 in a set in which nobody turns or moves


def mean_std(rows, joints_num):
    """rows: an iterable of motions [T, 4+3(J-1) or full width] -> (Mean, Std), float32 of that width.

    One pass in float64. Std is the population's, averaged over yaw | xz velocity | height | positions |
    rotations | velocities | contacts, so that within a group the axes keep their proportions.
    """
    count, shift, total, squares = 0, None, 0.0, 0.0
    for motion in rows:
        motion = np.asarray(motion, dtype=np.float64)
        if shift is None:
            shift = motion[0]  # sums relative to a typical row avoid cancellation
        centred = motion - shift
        count += len(centred)
        total = total + centred.sum(axis=0)
        squares = squares + (centred**2).sum(axis=0)
    if not count:
        raise BadInput("no motion to take Mean and Std of: the train split is empty")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    for group in feature_groups(joints_num).values():
        if group.stop <= len(std):
            std[group] = std[group].mean()
    return (shift + mean).astype(np.float32), np.maximum(std, STD_FLOOR).astype(np.float32)
