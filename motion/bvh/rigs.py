"""Map the skeletons of other programs to the 22 joints; guess their unit of length, change bone lengths.

A rig is recognised part by part, by joint names: a spine of one program with the legs of another is fine.
"""

import os
import re

import numpy as np

from motion.rotations import unit
from motion.skeletons import SMPL22

# A row: one program's names of a part's joints, in the part's order. A+B is the middle between A and B
# (repeated names weigh more), A|B the first that exists, NAME_end the End Site of NAME, {} the side.
SPINE = ("pelvis", "spine1", "spine2", "spine3", "neck", "head")
SPINES = (
    "pelvis spine1 spine2 spine3 neck head",  # SMPL
    "Hips Spine Spine1+Spine2 Spine4 Neck Head",  # Maya
    "Hips Spine Spine1+Spine2 Spine3 Neck Head",  # BEAT
    "Hips Spine Spine1 Spine2 Neck Head",  # Mixamo, MotionBuilder, LAFAN1, Noitom
    "Hips Hips+Spine Spine Spine1 Neck1 Head",  # CMU
    "Hips Spine Spine+Spine1 Spine1 Neck Head",
    "Hips Spine Chest UpperChest Neck Head",  # Unity, VRM
    "Hips Spine Spine+Chest Chest Neck Head",  # Bandai-Namco
    "Hips Chest Chest2+Chest3 Chest4 Neck Head",  # Xsens
    "Hips Chest Chest2 Chest3 Neck Head",
    "Hips Chest Chest+Chest2 Chest2 Neck Head",
    "Hips Spine1 Spine2+Spine3 Spine4 Neck Head",  # Rokoko
    "Hips Spine1 Spine2 Spine3 Neck Head",
    "Pelvis Spine Spine1+Spine2 Spine3 Neck Head",  # 3ds Max Biped
    "Pelvis Spine Spine1 Spine2 Neck Head",
    "Pelvis Spine Spine+Spine1 Spine1 Neck Head",
    "pelvis spine_01 spine_02+spine_03 spine_05 neck_01 head",  # Unreal 5
    "pelvis spine_01 spine_02 spine_03 neck_01 head",  # Unreal 4
    "Hip Waist Spine01 Spine02 NeckTwist01 Head",  # Character Creator
    "hip abdomen abdomen+chest chest neck head",  # Poser, DAZ
)
LEG = ("hip", "knee", "ankle", "foot")
LEGS = (
    "{}hip {}knee {}ankle {}foot",  # SMPL
    "{}UpLeg {}Leg {}Foot {}ToeBase|{}Toe|{}Toes|{}Foot_end",  # Mixamo, MotionBuilder, CMU, LAFAN1
    "{}UpperLeg {}LowerLeg {}Foot {}Toes|{}Toe|{}ToeBase|{}Foot_end",  # Unity, VRM
    "UpperLeg{} LowerLeg{} Foot{} Toes{}|Toe{}|Foot{}_end",  # Bandai-Namco
    "{}Hip {}Knee {}Ankle {}Toe|{}Foot|{}Ankle_end",  # Xsens
    "{}Thigh {}Calf {}Foot {}Toe0|{}ToeBase|{}Toe|{}Foot_end",  # 3ds Max Biped, Character Creator
    "{}Thigh {}Shin {}Foot {}Toe|{}ToeBase|{}Foot_end",  # Rokoko, Poser
    "Thigh{} Calf{} Foot{} Ball{}|Foot{}_end",  # Unreal
)
ARM = ("collar", "shoulder", "elbow", "wrist")
ARMS = (
    "{}collar {}shoulder {}elbow {}wrist|{}Elbow_end",  # SMPL, Xsens
    "{}Shoulder {}Arm {}ForeArm {}Hand|{}ForeArm_end",  # Mixamo, MotionBuilder, CMU, LAFAN1, Rokoko
    "{}Shoulder {}UpperArm {}LowerArm {}Hand|{}LowerArm_end",  # Unity, VRM
    "Shoulder{} UpperArm{} LowerArm{} Hand{}|LowerArm{}_end",  # Bandai-Namco
    "{}Clavicle {}UpperArm {}Forearm {}Hand|{}Forearm_end",  # 3ds Max Biped, Character Creator
    "{}Collar {}Shldr {}ForeArm {}Hand",  # Poser
    "Clavicle{} UpperArm{} LowerArm{} Hand{}",  # Unreal
)
SIDES = {"left": ("left", "l"), "right": ("right", "r")}

# metres in one unit
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254, "foot": 0.3048, "cmu": 0.0254 / 0.45}
BONES_M = (0.9, 13)  # metres of all bones together: of a doll of 0.35 m, of a giant of 5 m; most have 4.4
CHANGE_M = 0.15  # metres by which a generated bone may differ from its usual length
BODY = (0.95, 1.9)  # metres of thigh + shin + pelvis to head that pass as a person; most have 1.2 to 1.5
# metres, in HumanML3D's skeleton, of the bone that ends at each joint
HUMANML3D_BONES = (
    *(0.0, 0.1031, 0.1099, 0.1316, 0.3936, 0.3902, 0.1432, 0.4324, 0.4256, 0.0574, 0.1434),
    *(0.1494, 0.2194, 0.1375, 0.1434, 0.103, 0.1316, 0.123, 0.2568, 0.2631, 0.266, 0.2699),
)


def map_joints(names, end_sites=(), joint_map=None):
    """Find the joints of a file that make up each of the 22 -> 22 lists of indices into names + End Sites.

    names [J]; end_sites: the joints that have one, in order; joint_map: {"pelvis": "Hips", "spine2":
    ["Spine", "Chest"], ...} overrides recognition where it names a joint. Raises ValueError with the joints
    that could not be found.
    """
    every = [*names, *(f"{names[joint]}_end" for joint in end_sites)]
    prefix = re.match(r".*_|", os.path.commonprefix(names))[0]  # Skel_ of Skel_Hips, Skel_Spine, ...
    known = {}  # plain name -> indices into `every`
    for index, name in enumerate(every):
        for plain in {_plain(name), _plain(name.removeprefix(prefix))} - {""}:
            known.setdefault(plain, []).append(index)
    mapped = _recognise(known)
    for joint, sources in (joint_map or {}).items():
        sources = [sources] if isinstance(sources, str) else sources
        where = f"joint map: {joint!r}"
        if joint not in SMPL22.joints:
            raise ValueError(f"{where}: not one of the 22 joints")
        if not sources:
            raise ValueError(f"{where}: no joint of the file is named")
        mapped[joint] = [_named(source, every, known, where) for source in sources]
    missing = [joint for joint in SMPL22.joints if joint not in mapped]
    if missing:
        theirs = ", ".join(names[:60])
        raise ValueError(
            f'unknown rig: pass --joint_map map.json with {{"{missing[0]}": "ITS NAME IN THE FILE", ...}}; '
            f"not recognised: {', '.join(missing)}; the file has {theirs}"
        )
    return [mapped[joint] for joint in SMPL22.joints]


def _named(source, every, known, where):
    """The index of the one joint that a joint map's entry names: exactly, else by its plain name."""
    found = [i for i, name in enumerate(every) if name == source] or known.get(_plain(source), [])
    if not found:
        raise ValueError(f"{where}: {source} not found")
    if len(found) > 1:
        theirs = ", ".join(every[index] for index in found[:5])
        raise ValueError(f"{where}: {source} may be {theirs}: write one name in full, unlike all others")
    return found[0]


def _recognise(known):
    mapped = _part(known, SPINE, SPINES, "")
    for side, words in SIDES.items():
        for joints, rows in ((LEG, LEGS), (ARM, ARMS)):
            for word in words:
                part = _part(known, [f"{side}_{joint}" for joint in joints], rows, word)
                if part:
                    mapped |= part
                    break
    return mapped


def _part(known, joints, rows, side):
    """Match the first row of which the file has every joint -> dict joint: indices; {} without a match."""
    for row in rows:
        sources = [_first(known, cell.replace("{}", side)) for cell in row.split()]
        if all(sources):
            return dict(zip(joints, sources))
    return {}


def _first(known, cell):
    for choice in cell.split("|"):
        plain = [_plain(name) for name in choice.split("+")]
        if all(name in known for name in plain):
            return [known[name][0] for name in plain]
    return None


def _plain(name):
    """A joint's name in lower case, without its program's prefix, blanks and punctuation."""
    name = name.rsplit(":", 1)[-1].lower()
    name = re.sub(r"^(mixamorig|bip|character|cc_base_|def[-_])\d*[ _]?", "", name)
    return re.sub(r"[\W_]", "", name)


def to_joints22(bvh, joint_map=None, unit=None, up="y"):
    """Convert a Bvh -> joints [F,22,3] in metres, Y up. unit: key of UNITS; None: by the body's height."""
    ends = list(bvh.end_sites)
    sources = map_joints(bvh.names, ends, joint_map)
    turns, places = bvh.forward()
    tips = [places[:, joint] + turns[:, joint] @ bvh.end_sites[joint] for joint in ends]
    places = np.concatenate([places, np.stack(tips, axis=1)], axis=1) if ends else places
    joints = np.stack([places[:, source].mean(axis=1) for source in sources], axis=1)
    if up == "z":
        joints = joints[..., [0, 2, 1]] * [1, 1, -1]
    return joints * UNITS[unit or guess_unit(joints)]


def guess_unit(joints):
    """Unit in which joints [F,22,3] have the size of a person. Raises ValueError if none does."""
    lengths = bone_lengths(joints, SMPL22)
    chain = [SMPL22.joints.index(joint) for joint in ("spine1", "spine2", "spine3", "neck", "head")]
    legs = [SMPL22.joints.index(f"{side}_{joint}") for side in SIDES for joint in ("knee", "ankle")]
    body = lengths[chain].sum() + lengths[legs].sum() / 2
    for name, metres in UNITS.items():
        if BODY[0] <= body * metres < BODY[1]:
            return name
    raise ValueError(
        f"legs and trunk measure {body:.4g} units, which no unit makes a person: pass --unit, e.g. --unit cm"
    )


def bone_lengths(joints, skeleton):
    """Median length over time of the bone that ends at each joint [J], 0 for the root."""
    bones = joints[:, 1:] - joints[:, list(skeleton.parents[1:])]
    return np.concatenate([[0.0], np.median(np.linalg.norm(bones, axis=-1), axis=0)])


def changing_bone(joints, skeleton, fps):
    """Which bone differs from its median length the most, and when, as text; "" if by less than CHANGE_M."""
    bones = skeleton.unit_m * np.linalg.norm(joints[:, 1:] - joints[:, list(skeleton.parents[1:])], axis=-1)
    usual = np.median(bones, axis=0)
    frame, bone = np.unravel_index(np.abs(bones - usual).argmax(), bones.shape)
    if abs(bones[frame, bone] - usual[bone]) < CHANGE_M:
        return ""
    parent, joint = (skeleton.joints[i].replace("_", " ") for i in (skeleton.parents[bone + 1], bone + 1))
    return (
        f"at {frame / fps:.1f} s {parent} and {joint} are {100 * bones[frame, bone]:.0f} cm apart, else "
        f"{100 * usual[bone]:.0f}; a .bvh or .glb has bones of constant length"
    )


def bones_m(joints, skeleton):
    """Metres of all bones together. joints [T,J,3] in the skeleton's unit."""
    return float(bone_lengths(joints, skeleton).sum()) * skeleton.unit_m


def wrong_size(metres):
    """What is wrong with a body whose bones together measure so many metres, as text; "" for a person's."""
    if BONES_M[0] < metres < BONES_M[1]:
        return ""
    return f"all bones together measure about {float(f'{metres:.1g}'):g} m, a person's 4.4"


def with_bone_lengths(joints, lengths, skeleton):
    """Set bone lengths [J], keep directions; the root's path scales with the legs. joints, result [F,J,3]."""
    legs = [
        joint for foot in (skeleton.feet[0], skeleton.feet[2]) for joint in (foot, skeleton.parents[foot])
    ]
    before = bone_lengths(joints, skeleton)[legs].sum()
    scale = np.asarray(lengths)[legs].sum() / before if before > 0 else 1.0
    moved = np.empty_like(joints)
    moved[:, 0] = joints[:, 0] * scale
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        bone = joints[:, joint] - joints[:, parent]
        moved[:, joint] = moved[:, parent] + lengths[joint] * unit(bone)
    return moved
