"""Joints -> BVH: constant bone lengths, rotations, root path; centimetres, the motion's own frame rate."""

import warnings

import numpy as np
from scipy.spatial.transform import Rotation

from motion.bvh.pose import FRONT, fitted_pose, local_rotations
from motion.files import atomic_file
from motion.rotations import unit
from motion.skeletons import SMPL22

ORDER = "ZXY"
TIP = 0.08  # metres from a joint without children to its End Site
# names that Blender's, Unity's and MotionBuilder's retargeting know
FAMILIAR = {
    SMPL22.name: ["Hips", "LeftUpLeg", "RightUpLeg", "Spine", "LeftLeg", "RightLeg", "Spine1", "LeftFoot"]
    + ["RightFoot", "Spine2", "LeftToeBase", "RightToeBase", "Neck", "LeftShoulder", "RightShoulder", "Head"]
    + ["LeftArm", "RightArm", "LeftForeArm", "RightForeArm", "LeftHand", "RightHand"]
}


def write_bvh(path, joints, fps, skeleton=SMPL22, own=None):
    """joints [T,J,3] in the skeleton's unit -> a BVH file, whole or not at all.

    The root is exact; other joints are as near as constant bones allow. own: the frames that bone lengths are
    measured on (see `motion.bvh.pose.fit_bones`).
    """
    joints = np.asarray(joints, dtype=np.float64)
    offsets, world = fitted_pose(joints, skeleton, own)
    with atomic_file(path) as part:
        part.write_text(bvh_text(joints[:, 0], offsets, world, fps, skeleton), encoding="ascii")


def bvh_text(root, offsets, world, fps, skeleton):
    """Text of the file from root [T,3] and offsets [J,3] in the skeleton's unit, world rotations [T,J,3,3].

    The root's OFFSET is zero: its position channels are absolute, and some readers add the two.
    """
    scale = 100 * skeleton.unit_m
    lines, order = ["HIERARCHY"], []
    _write_joint(0, 0, scale * offsets, skeleton, lines, order)
    local = local_rotations(world, skeleton)
    with warnings.catch_warnings():  # in gimbal lock any split between the first and the last angle is right
        warnings.filterwarnings("ignore", message="Gimbal lock detected")
        angles = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_euler(ORDER, degrees=True)
    angles = np.unwrap(angles.reshape(local.shape[:3])[:, order], axis=0, period=360)
    values = np.concatenate([scale * root, angles.reshape(len(root), -1)], axis=1)
    lines += ["MOTION", f"Frames: {len(values)}", f"Frame Time: {1 / fps:.8f}"]
    lines += [" ".join(f"{x:.5f}" for x in row) for row in values]
    return "\n".join(lines) + "\n"


def _write_joint(joint, depth, offsets, skeleton, lines, order):
    """Append a joint and its descendants to `lines`, and to `order`, the order of the channels."""
    order.append(joint)
    indent = "  " * depth
    name = FAMILIAR.get(skeleton.name, skeleton.joints)[joint]
    turns = " ".join(f"{axis}rotation" for axis in ORDER)
    channels = f"6 Xposition Yposition Zposition {turns}" if joint == 0 else f"3 {turns}"
    lines += [f"{indent}{'JOINT' if depth else 'ROOT'} {name}", f"{indent}{{"]
    lines += [f"{indent}  OFFSET {_numbers(offsets[joint])}", f"{indent}  CHANNELS {channels}"]
    kids = [k for k, parent in enumerate(skeleton.parents) if parent == joint]
    for kid in kids:
        _write_joint(kid, depth + 1, offsets, skeleton, lines, order)
    if not kids:
        tip = _numbers(100 * TIP * _tip_direction(joint, offsets, skeleton))
        lines += [f"{indent}  End Site", f"{indent}  {{", f"{indent}    OFFSET {tip}", f"{indent}  }}"]
    lines.append(f"{indent}}}")


def _tip_direction(joint, offsets, skeleton):
    """Direction of a last joint's End Site: toes ahead along the floor, head up, hands along the arm."""
    if joint == skeleton.head:
        return np.array([0.0, 1, 0])
    return FRONT if joint in skeleton.feet else unit(offsets[joint])


def _numbers(row):
    return " ".join(f"{x:.6f}" for x in row)
