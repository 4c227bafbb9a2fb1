"""Physical features of a clip, and distances between sets of clips in these features.

FID on a learned embedding hardly reacts to noise, drift or lost fine motion; these features do.
T frames, J joints, N clips, F features.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

HEADING_SIGMA = 5  # frames of smoothing
WALKING = 0.5  # m/s of the real clip's root, above which the clip counts for path_speed
_END_FEATURES = ("speed", "speed_95", "acceleration", "jerk")
_END_FEATURES += ("lateral", "up", "forward", "up_extent", "forward_extent")
# for KIT21 see Skeleton.feet
_END_EFFECTORS = ("head", "left_wrist", "right_wrist", "left_ankle", "right_ankle")
FEATURES = (
    *(f"{end}_{name}" for name in _END_FEATURES for end in _END_EFFECTORS),
    *("root_speed", "root_acceleration", "root_jerk"),
    *("skate", "path_displacement", "path_turning"),
)


def yaw(joints, skeleton):
    """Heading about +Y [T] in radians, unwrapped, from hips and shoulders. joints [T,J,3]"""
    (left_hip, right_hip), (left, right) = skeleton.hips, skeleton.shoulders
    across = joints[:, left_hip] - joints[:, right_hip] + joints[:, left] - joints[:, right]
    forward = np.cross(across, [0.0, 1.0, 0.0])
    forward = gaussian_filter1d(forward, HEADING_SIGMA, axis=0, mode="nearest")
    return np.unwrap(np.arctan2(forward[:, 0], forward[:, 2]))


def describe(joints, skeleton, fps, skate=0.0):
    """Features [F] of a clip of joints [T,J,3] in metres, y up, in the order of FEATURES.

    Speeds (mean, 95th percentile), accelerations and jerks of head, wrists, ankles in the world (m, s); their
    mean position and their extent in the root's frame (m); the root's horizontal speed, acceleration, jerk;
    skate, the given share of sliding frames; net displacement (m) and net turning (rad) of the root.
    """
    joints = np.asarray(joints, dtype=np.float64)
    ends = [skeleton.head, *skeleton.wrists, skeleton.feet[0], skeleton.feet[2]]
    theta = yaw(joints, skeleton)
    world, root = joints[:, ends], joints[:, 0]
    x, y, z = np.moveaxis(world - root[:, None], -1, 0)  # [T,5] each
    sin, cos = np.sin(theta)[:, None], np.cos(theta)[:, None]
    local = np.stack([cos * x - sin * z, y, sin * x + cos * z])  # lateral (left > 0), up, forward
    speed = derivative(world, 1, fps)
    of_ends = [
        *(speed.mean(axis=0), np.percentile(speed, 95, axis=0)),
        *(derivative(world, order, fps).mean(axis=0) for order in (2, 3)),
        *local.mean(axis=1),
        *np.ptp(local, axis=1)[1:],
    ]
    ground = root[:, None, [0, 2]]
    of_root = [derivative(ground, order, fps).mean() for order in (1, 2, 3)]
    path = [np.linalg.norm(ground[-1, 0] - ground[0, 0]), theta[-1] - theta[0]]
    return np.concatenate([*of_ends, of_root, [skate], path])


def derivative(positions, order, fps):
    """Norm of the order-th time derivative of positions [T,n,C] -> [T - order, n]; zero for shorter clips."""
    if len(positions) <= order:
        return np.zeros((1, positions.shape[1]))
    return np.linalg.norm(np.diff(positions, n=order, axis=0), axis=-1) * fps**order


def within_group_spread(features, groups):
    """Standard deviation [F] of features [N,F] about their group's mean; groups int [N]."""
    _, groups, counts = np.unique(groups, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), features.shape[1]))
    np.add.at(means, groups, features)
    residual = features - (means / counts[:, None])[groups]
    return np.sqrt(np.square(residual).sum(axis=0) / max(len(features) - len(counts), 1))


def energy_distance(real, pred, groups):
    """Energy distance of pred [N,F] to real [N,F] within groups [N], mean over clips; None if all are single.

    Per group 2 E|x - y| - E|x - x'| - E|y - y'| (Szekely & Rizzo 2013), over i != j also between the sets:
    unbiased, so it may be negative, and pairing by caption makes no difference. Features are
    standardised by the real clips' spread within groups.
    """
    spread = within_group_spread(real, groups)
    moving = spread > 1e-6 * (np.abs(real).mean(axis=0) + 1e-6)
    real, pred = real[:, moving] / spread[moving], pred[:, moving] / spread[moving]
    total, counted = 0.0, 0
    for group in np.unique(groups):
        x, y = real[groups == group], pred[groups == group]
        n = len(x)
        if n > 1:
            sums = 2 * off_diagonal(x, y) - off_diagonal(x, x) - off_diagonal(y, y)
            total, counted = total + sums / (n - 1), counted + n
    return float(total / counted) if counted else None


def off_diagonal(x, y):
    """Sum of the distances of x [n,F] to y [n,F] over i != j."""
    distances = cdist(x, y)
    return distances.sum() - np.trace(distances)


def path_distances(real, pred, groups):
    """Wasserstein distances of root paths -> dict. real, pred [N,F] of paired clips, groups [N].

    path_displacement (m) and path_turning (degrees) within groups, mean over clips; path_speed (m/s) over the
    rows whose real clip walks or runs, absent where none does.
    """

    def distance(name, rows):
        column = FEATURES.index(name)
        return float(wasserstein_distance(real[rows, column], pred[rows, column]))

    names, counts = np.unique(groups, return_counts=True)

    def within(name):
        return float(np.average([distance(name, groups == group) for group in names], weights=counts))

    values = {"path_displacement": within("path_displacement")}
    values["path_turning"] = float(np.degrees(within("path_turning")))
    walking = real[:, FEATURES.index("root_speed")] > WALKING
    if walking.any():
        values["path_speed"] = distance("root_speed", walking)
    return values
