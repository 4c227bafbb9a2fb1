"""Joints -> BVH: constant bones, true rotations, the root's path, in centimetres at the motion's own rate.

Positions do not say how a bone is turned about itself. Where joints branch (pelvis, chest) the whole
orientation follows from the branches; along a limb a bone turns no more than it has to, seen from the bone
before.
"""

import warnings

import numpy as np
from scipy.spatial.transform import Rotation

from motion.files import whole_file
from motion.rotations import best_fit, shortest_arc, unit
from motion.skeletons import SMPL22

ORDER = "ZXY"
TIP = 0.08  # metres from a last joint to its End Site
# names that Blender's, Unity's and MotionBuilder's retargeting know
FAMILIAR = {
    SMPL22.name: ["Hips", "LeftUpLeg", "RightUpLeg", "Spine", "LeftLeg", "RightLeg", "Spine1", "LeftFoot"]
    + ["RightFoot", "Spine2", "LeftToeBase", "RightToeBase", "Neck", "LeftShoulder", "RightShoulder", "Head"]
    + ["LeftArm", "RightArm", "LeftForeArm", "RightForeArm", "LeftHand", "RightHand"]
}


def write_bvh(path, joints, fps, skeleton=SMPL22):
    """joints [T,J,3] in the skeleton's unit -> a BVH file, whole or not at all."""
    offsets, world = skeleton_pose(np.asarray(joints, dtype=np.float64), skeleton)
    with whole_file(path) as part:
        part.write_text(bvh_text(joints, offsets, world, fps, skeleton), encoding="ascii", newline="\n")


def skeleton_pose(joints, skeleton):
    """Constant offsets [J,3] of a T-pose, and the world rotations [T,J,3,3] that bring them to the joints."""
    children = [[k for k, parent in enumerate(skeleton.parents) if parent == j] for j in range(len(skeleton))]
    rest = rest_directions(skeleton)
    offsets = np.zeros((len(skeleton), 3))
    world = np.tile(np.eye(3), (len(joints), len(skeleton), 1, 1))
    for joint, parent in enumerate(skeleton.parents):
        before = world[:, max(parent, 0)]
        world[:, joint] = before
        kids = children[joint]
        if not kids:
            continue
        bones = joints[:, kids] - joints[:, [joint]]
        lengths = np.median(np.linalg.norm(bones, axis=-1), axis=0)[:, None]
        shape = rest[kids] * lengths
        if len(kids) == 1:
            seen = np.einsum("tji,tj->ti", before, unit(bones[:, 0]))  # in the frame of the bone before
            world[:, joint] = before @ shortest_arc(rest[kids[0]], seen).as_matrix()
        else:
            for _ in range(3):  # the mean shape of the branches, and the rotations that fit it
                turns = best_fit(shape, bones, before)
                shape = unit(np.einsum("tji,tkj->ki", turns, bones)) * lengths
            world[:, joint] = best_fit(shape, bones, before)
        offsets[kids] = shape
    return offsets, world


def rest_directions(skeleton):
    """Unit directions [J,3] of a T-pose: as in the skeleton, but arms out to the side and the head up."""
    rest = np.array(skeleton.directions, dtype=float)
    for side, axis in (("left", 1.0), ("right", -1.0)):
        for joint in ("shoulder", "elbow", "wrist"):
            rest[skeleton.joints.index(f"{side}_{joint}")] = axis, 0, 0
    rest[skeleton.head] = 0, 1, 0
    return rest


def bvh_text(joints, offsets, world, fps, skeleton):
    scale = 100 * skeleton.unit_m
    names = FAMILIAR.get(skeleton.name, skeleton.joints)
    lines, order = ["HIERARCHY"], []
    offsets = offsets * scale
    offsets[0, 1] = -_lowest(offsets, skeleton.parents)  # the T-pose stands on the floor
    _write_joint(0, 0, names, offsets, skeleton, lines, order)

    parents = np.array(skeleton.parents)
    local = world.copy()
    local[:, 1:] = np.swapaxes(world[:, parents[1:]], -1, -2) @ world[:, 1:]
    with (
        warnings.catch_warnings()
    ):  # at the pole of the angles any split between the first and the last is right
        warnings.filterwarnings("ignore", message="Gimbal lock detected")
        angles = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_euler(ORDER, degrees=True)
    angles = np.unwrap(angles.reshape(len(joints), len(skeleton), 3)[:, order], axis=0, period=360)
    values = np.concatenate([np.asarray(joints)[:, 0] * scale, angles.reshape(len(joints), -1)], axis=1)
    lines += ["MOTION", f"Frames: {len(values)}", f"Frame Time: {1 / fps:.8f}"]
    lines += [" ".join(f"{x:.5f}" for x in row) for row in values]
    return "\n".join(lines) + "\n"


def _lowest(offsets, parents):
    height = np.zeros(len(offsets))
    for joint, parent in enumerate(parents[1:], start=1):
        height[joint] = height[parent] + offsets[joint, 1]
    return height.min()


def _write_joint(joint, depth, names, offsets, skeleton, lines, order):
    """A joint and those below it; `order` is the order of the channels."""
    order.append(joint)
    indent = "  " * depth
    turns = " ".join(f"{axis}rotation" for axis in ORDER)
    channels = f"6 Xposition Yposition Zposition {turns}" if joint == 0 else f"3 {turns}"
    lines += [f"{indent}{'JOINT' if depth else 'ROOT'} {names[joint]}", f"{indent}{{"]
    lines += [f"{indent}  OFFSET {_numbers(offsets[joint])}", f"{indent}  CHANNELS {channels}"]
    kids = [k for k, parent in enumerate(skeleton.parents) if parent == joint]
    for kid in kids:
        _write_joint(kid, depth + 1, names, offsets, skeleton, lines, order)
    if not kids:
        tip = _numbers(rest_directions(skeleton)[joint] * TIP * 100)
        lines += [f"{indent}  End Site", f"{indent}  {{", f"{indent}    OFFSET {tip}", f"{indent}  }}"]
    lines.append(f"{indent}}}")


def _numbers(row):
    return " ".join(f"{x:.6f}" for x in row)
