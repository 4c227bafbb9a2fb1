"""Find motion that occurs in two splits, whatever its clips are called and wherever they start.

A frame is described by the distances between root, head, wrists and toes. They do not depend on heading,
position and floor height, in which two sections of one recording may differ. Frames whose distances agree to
a millimetre are the same frame.
"""

from itertools import combinations

import numpy as np
from scipy.spatial import cKDTree

from utils.motion_process import feature_groups, joints_in_root_frame

PAIRS = tuple(combinations(range(6), 2))  # of root, head, left and right wrist, two toes
_SWAPPED = (0, 1, 3, 2, 5, 4)
MIRRORED = [PAIRS.index(tuple(sorted((_SWAPPED[a], _SWAPPED[b])))) for a, b in PAIRS]  # of the mirror image
TOLERANCE = 1e-3  # m; sections of one recording differ by 0.1 mm, two recordings hardly ever by < 1


def pose_distances(joints, skeleton):
    """joints [T,J,3] in the skeleton's unit -> distances [T,15] float32 in metres."""
    ends = joints[:, [0, skeleton.head, *skeleton.wrists, skeleton.feet[1], skeleton.feet[3]]]
    apart = [np.linalg.norm(ends[:, a] - ends[:, b], axis=-1).astype(np.float32) for a, b in PAIRS]
    return np.stack(apart, axis=1) * np.float32(skeleton.unit_m)


def clip_joints(rows, skeleton):
    """All frames of a clip as joints in the root's frame: full rows [T,D] -> [T+1,J,3], others -> [T,J,3].

    A clip's last frame has no row of its own; it follows from the velocities of the last row.
    """
    joints = joints_in_root_frame(rows, skeleton)
    step = np.float64(rows[-1:, feature_groups(len(skeleton))["velocities"]])
    if step.size != joints[-1].size or not np.isfinite(step).all():
        return joints
    return np.concatenate([joints, joints[-1:] + step.reshape(1, -1, 3)])


def shared_frames(poses, others):
    """Share of each clip's frames that also occur in other clips.

    poses, others: {name: distances [T,15]} of two splits. -> {name of poses: 0..1}, without those at 0.
    """
    if not others:
        return {}
    tree = cKDTree(np.concatenate(list(others.values())), balanced_tree=False)
    shares = {}
    for name, pose in poses.items():
        distance, _ = tree.query(pose, distance_upper_bound=TOLERANCE, p=np.inf)
        shares[name] = float(np.isfinite(distance).mean())
    return {name: share for name, share in shares.items() if share > 0}
