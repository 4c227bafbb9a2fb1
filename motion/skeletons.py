"""The skeletons that motion is written on: joint names, parents, mirror pairs, chains.

Both follow HumanML3D (Guo et al., CVPR 2022): SMPL22 is the first 22 joints of SMPL, KIT21 the 21 joints of
KIT-ML. Y is up, the person's left is +X while it faces +Z.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Skeleton:
    """A tree of J joints; joint 0 is the root (pelvis)."""

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]  # parents[0] = -1; a parent always comes before its children
    chains: tuple[tuple[int, ...], ...]  # from the root outwards: drawing, inverse kinematics
    directions: tuple[tuple[int, int, int], ...]  # unit bone direction of each joint in the rest pose [J,3]
    mirror: tuple[tuple[int, int], ...]  # (left, right) pairs; joints in no pair lie in the middle
    hips: tuple[int, int]  # (left, right)
    shoulders: tuple[int, int]  # (left, right)
    # (right hip, left hip, right shoulder, left shoulder), for the heading; in KIT21 sides are exchanged
    facing: tuple[int, int, int, int]
    # (left ankle, left toe, right ankle, right toe), the order of the four contacts; in KIT21 foot and toe,
    # the right side first
    feet: tuple[int, int, int, int]
    wrists: tuple[int, int]  # (left, right)
    head: int
    unit_m: float  # metres in one unit of the positions
    contact_threshold: float  # squared displacement per frame, in units^2, under which a foot joint stands

    def __len__(self):
        return len(self.joints)

    def check(self, motion, what="the motion"):
        """Raise ValueError where `motion` is not at least one frame [T,J,3] of finite numbers."""
        try:
            motion = np.asarray(motion, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{what} is no array of numbers: {error}") from None
        shape = motion.shape
        if len(shape) != 3 or shape[0] < 1 or shape[1:] != (len(self), 3):
            raise ValueError(f"{what} has shape {shape}: {self.name} needs [frames, {len(self)}, 3]")
        if bad := np.count_nonzero(~np.isfinite(motion)):
            raise ValueError(f"{what} has {bad} NaN or infinite numbers")


def _names(text):
    return tuple(text.split())


def _parents(n_joints, chains):
    parents = [-1] * n_joints
    for chain in chains:
        for parent, child in zip(chain, chain[1:]):
            parents[child] = parent
    return tuple(parents)


_SMPL22_CHAINS = (
    (0, 2, 5, 8, 11),
    (0, 1, 4, 7, 10),
    (0, 3, 6, 9, 12, 15),
    (9, 14, 17, 19, 21),
    (9, 13, 16, 18, 20),
)
_KIT21_CHAINS = (
    (0, 11, 12, 13, 14, 15),
    (0, 16, 17, 18, 19, 20),
    (0, 1, 2, 3, 4),
    (3, 5, 6, 7),
    (3, 8, 9, 10),
)
_LEFT, _RIGHT, _UP, _DOWN, _FRONT = (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1)

SMPL22 = Skeleton(
    name="smpl22",
    joints=_names(
        "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 "
        "left_foot right_foot neck left_collar right_collar head left_shoulder right_shoulder "
        "left_elbow right_elbow left_wrist right_wrist"
    ),
    parents=_parents(22, _SMPL22_CHAINS),
    chains=_SMPL22_CHAINS,
    directions=(
        ((0, 0, 0), _LEFT, _RIGHT, _UP, _DOWN, _DOWN, _UP, _DOWN, _DOWN, _UP, _FRONT)
        + (_FRONT, _UP, _LEFT, _RIGHT, _FRONT, _DOWN, _DOWN, _DOWN, _DOWN, _DOWN, _DOWN)
    ),
    mirror=((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21)),
    hips=(1, 2),
    shoulders=(16, 17),
    facing=(2, 1, 17, 16),
    feet=(7, 10, 8, 11),
    wrists=(20, 21),
    head=15,
    unit_m=1.0,
    contact_threshold=0.002,
)
KIT21 = Skeleton(
    name="kit21",
    joints=_names(
        "pelvis spine1 spine2 neck head left_shoulder left_elbow left_wrist right_shoulder right_elbow "
        "right_wrist left_hip left_knee left_ankle left_foot left_toe "
        "right_hip right_knee right_ankle right_foot right_toe"
    ),
    parents=_parents(21, _KIT21_CHAINS),
    chains=_KIT21_CHAINS,
    directions=(
        ((0, 0, 0), _UP, _UP, _UP, _UP, _LEFT, _DOWN, _DOWN, _RIGHT, _DOWN, _DOWN)
        + (_LEFT, _DOWN, _DOWN, _FRONT, _FRONT, _RIGHT, _DOWN, _DOWN, _FRONT, _FRONT)
    ),
    mirror=((5, 8), (6, 9), (7, 10), (11, 16), (12, 17), (13, 18), (14, 19), (15, 20)),
    hips=(11, 16),
    shoulders=(5, 8),
    # HumanML3D's script takes KIT-ML's left side for the right one in `facing` and `feet`; so do its features
    facing=(11, 16, 5, 8),
    feet=(19, 20, 14, 15),
    wrists=(7, 10),
    head=4,
    unit_m=0.001,
    contact_threshold=0.05,
)
SKELETONS = {skeleton.name: skeleton for skeleton in (SMPL22, KIT21)}


def mirror_joints(joints, skeleton):
    """The mirror image of joints [...,J,3]: left and right joints swapped, x negated. Same shape, dtype."""
    order = np.arange(len(skeleton))
    for left, right in skeleton.mirror:
        order[[left, right]] = right, left
    return joints[..., order, :] * np.array([-1, 1, 1], dtype=joints.dtype)
