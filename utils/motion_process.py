"""Convert joint positions to feature rows and back, as HumanML3D defines them (Guo et al., CVPR 2022).

A row has 4 + 3 (J-1) essential columns: root yaw velocity, root velocity x and z, root height, positions of
joints 1..J-1 in the root frame. The full row adds 6 (J-1) rotations, 3 J velocities and 4 foot contacts: 263
columns for SMPL22, 251 for KIT21. Lengths are in the skeleton's own unit, velocities per frame; the formulas
are in datasets/README.md.
"""

# T frames, J joints. theta: the body's heading about +Y, 0 = facing +Z.

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from motion.rotations import shortest_arc, unit
from utils.errors import BadInput

FACING_SIGMA = 20  # frames; the heading of a frame is an average over about two seconds
FACING_RULES = {"published": -1, "one_sign": 1}  # the sign of the hips in the heading


def essential_dim(skeleton):
    """Columns that the models work on: 67 for SMPL22, 64 for KIT21."""
    return 4 + 3 * (len(skeleton) - 1)


def feature_groups(joints_num):
    """The column ranges of a full row, by name, in order."""
    others = joints_num - 1
    sizes = {"yaw": 1, "xz": 2, "height": 1, "positions": 3 * others}
    sizes |= {"rotations": 6 * others, "velocities": 3 * joints_num, "contacts": 4}
    ends = np.cumsum(list(sizes.values()))
    return {name: slice(int(end - size), int(end)) for (name, size), end in zip(sizes.items(), ends)}


def joints_to_features(joints, skeleton, facing="published"):
    """joints [T,J,3] in the skeleton's unit, Y up -> full rows [T-1, 263 | 251] float32, placed by `place`.

    facing: one of FACING_RULES, see `headings`.
    """
    joints = place(check_joints(joints, skeleton), skeleton)
    return _rows(joints, headings(joints, skeleton, facing), skeleton, rest=slice(0, -1))


def recover_full(essential, skeleton):
    """Essential rows [T,67 | 64] -> full rows [T,263 | 251] float32, by kinematics. Raises BadInput.

    Heading and root path are those of the rows, not derived from the hips. The last row's velocities and
    contacts repeat those of the row before.
    """
    essential = np.asarray(essential, dtype=np.float64)
    if essential.ndim != 2 or len(essential) < 2 or essential.shape[1] < essential_dim(skeleton):
        expected = f"at least two rows of {essential_dim(skeleton)} columns"
        raise BadInput(f"features of shape {essential.shape}: {skeleton.name} needs {expected}")
    essential = essential[:, : essential_dim(skeleton)]
    rows = torch.from_numpy(essential)
    joints = recover_from_ric(rows, len(skeleton)).numpy()
    full = _rows(joints, 2 * _half_angle(rows).numpy(), skeleton, rest=slice(None))
    full[:, : essential.shape[1]] = essential
    return full


def check_joints(joints, skeleton):
    """joints as float64 [T,J,3], T >= 2, all finite. Raises BadInput."""
    joints = np.asarray(joints, dtype=np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (len(skeleton), 3) or len(joints) < 2:
        raise BadInput(f"joints of shape {joints.shape}: {skeleton.name} needs [T >= 2, {len(skeleton)}, 3]")
    if not np.isfinite(joints).all():
        raise BadInput("joints contain NaN or infinite values")
    return joints


def check_finite(motion):
    """Return motion; raise BadInput on NaN or inf."""
    if not torch.isfinite(motion).all():
        raise BadInput("the model makes NaN: its checkpoint is damaged, or its training diverged")
    return motion


def place(joints, skeleton):
    """joints [T,J,3] moved: lowest joint of all frames at y = 0; frame 0 above the origin, facing +Z."""
    right_hip, left_hip, right_shoulder, left_shoulder = joints[0, list(skeleton.facing)]
    forward = np.cross([0.0, 1.0, 0.0], (right_hip - left_hip) + (right_shoulder - left_shoulder))
    origin = np.array([joints[0, 0, 0], joints[..., 1].min(), joints[0, 0, 2]])
    return _turn(joints - origin, np.full(len(joints), -np.arctan2(forward[0], forward[2])))


def headings(joints, skeleton, facing="published"):
    """theta [T] of a placed clip, 0 at frame 0.

    Facing = up x [sign (right hip - left hip) + (right shoulder - left shoulder)]. The published features of
    HumanML3D and KIT-ML take the hips with the opposite sign to the shoulders ("published"); on bodies with
    narrow shoulders the two nearly cancel, and the heading jitters. "one_sign" adds them. Without a
    horizontal part, theta = 0.
    """
    right_hip, left_hip, right_shoulder, left_shoulder = np.moveaxis(joints[:, list(skeleton.facing)], 1, 0)
    across = FACING_RULES[facing] * (right_hip - left_hip) + (right_shoulder - left_shoulder)
    forward = np.cross([0.0, 1.0, 0.0], unit(across))
    from scipy.ndimage import gaussian_filter1d  # here: it takes half a second, and sampling needs none

    forward = gaussian_filter1d(forward, FACING_SIGMA, axis=0, mode="nearest")
    theta = np.arctan2(forward[:, 0], forward[:, 2])
    theta[0] = 0.0  # exactly, also where the filter sees a turn ahead
    return theta


def recover_root(data):
    """Rows [...,T,>=4] -> (quaternion wxyz [...,T,4], position [...,T,3]) of the root.

    The quaternion turns the world into the root's frame, by -theta about Y. Any float dtype, any batch shape.
    """
    half = -_half_angle(data)
    zero = torch.zeros_like(half)
    quaternion = torch.stack([half.cos(), zero, half.sin(), zero], dim=-1)
    # row t-1 holds the step from t-1 to t, seen in the frame of t
    x, z = _turned(_shifted(data[..., 1]), _shifted(data[..., 2]), -2 * half)
    return quaternion, torch.stack([x.cumsum(dim=-1), data[..., 3], z.cumsum(dim=-1)], dim=-1)


def root_path(data):
    """Rows [...,T,>=4] -> x, z and heading theta of the root [...,T,3]. Any float dtype, any batch shape."""
    position = recover_root(data)[1]
    return torch.stack([position[..., 0], position[..., 2], 2 * _half_angle(data)], dim=-1)


def joint_steps(data, joints_num):
    """Rows [...,T,>=4+3(J-1)] -> each joint's step from t to t+1 in the world, seen in the root's frame of
    t+1 [...,T-1,J,3], so it does not depend on where and in which direction the path began.
    """
    others = data[..., 4 : 4 + 3 * (joints_num - 1)].unflatten(-1, (joints_num - 1, 3))
    height = data[..., 3]
    root = torch.stack([torch.zeros_like(height), height, torch.zeros_like(height)], dim=-1)
    local = torch.cat([root[..., None, :], others], dim=-2)
    before, after, rows = local[..., :-1, :, :], local[..., 1:, :, :], data[..., :-1, None, :]
    x, z = _turned(before[..., 0], before[..., 2], 2 * rows[..., 0])
    return after - torch.stack([x - rows[..., 1], before[..., 1], z - rows[..., 2]], dim=-1)


def recover_from_ric(data, joints_num):
    """Rows [...,T,>=4+3(J-1)] -> joints [...,T,J,3], as `place` puts them. Any float dtype and batch."""
    _, root = recover_root(data)
    theta = 2 * _half_angle(data)[..., None]
    local = data[..., 4 : 4 + 3 * (joints_num - 1)].unflatten(-1, (joints_num - 1, 3))
    x, z = _turned(local[..., 0], local[..., 2], theta)
    others = torch.stack([x + root[..., None, 0], local[..., 1], z + root[..., None, 2]], dim=-1)
    return torch.cat([root[..., None, :], others], dim=-2)


def joints_in_root_frame(rows, skeleton):
    """Rows [T,>=4+3(J-1)] -> joints [T,J,3] float64 in the root's frame, the root at x = z = 0."""
    joints = np.zeros((len(rows), len(skeleton), 3))
    joints[:, 0, 1] = rows[:, 3]
    joints[:, 1:] = rows[:, 4 : essential_dim(skeleton)].reshape(len(rows), -1, 3)
    return joints


def with_pose(rows, joints):
    """Essential rows [T,D] with the pose of joints [T,J,3] in the root's frame; the root's path stays."""
    return np.concatenate([rows[:, :3], joints[:, 0, 1:2], joints[:, 1:].reshape(len(rows), -1)], axis=1)


def _rows(joints, theta, skeleton, rest):
    """Full rows of a placed clip joints [T,J,3], theta [T]; `rest` says which frames become rows.

    With slice(None) there are T rows, and the last repeats the velocities and contacts of the one before.
    """
    step = np.diff(joints, axis=0)
    turn = (np.diff(theta) + np.pi) % (2 * np.pi) - np.pi  # also where theta jumps from pi to -pi
    root_step = _turn(step[:, :1], -theta[1:])[:, 0]  # in the frame it leads to
    velocities = _turn(step, -theta[:-1])  # in the frame it starts from
    contacts = (step[:, list(skeleton.feet)] ** 2).sum(axis=-1) < skeleton.contact_threshold

    local = joints - joints[:, :1] * [1, 0, 1]
    local = _turn(local, -theta)[:, 1:]
    rotations = inverse_kinematics(joints[rest], theta[rest], skeleton)
    per_step = [-turn[:, None] / 2, root_step[:, [0, 2]], velocities.reshape(len(step), -1), contacts]
    count = len(joints[rest])
    yaw, xz, velocities, contacts = (np.concatenate([x, x[-1:]])[:count] for x in per_step)
    columns = [yaw, xz, joints[rest][:, 0, 1:2], local[rest].reshape(count, -1)]
    columns += [rotations.reshape(count, -1), velocities, contacts]
    return np.concatenate(columns, axis=1).astype(np.float32)


def inverse_kinematics(joints, theta, skeleton):
    """6-d rotations [T,J-1,6] of joints 1..J-1: the first two columns of R in a row (Zhou et al. 2019).

    A bone's rotation is the shortest arc from its rest direction to where it points; R is relative to the
    joint before it in its chain. As published, every chain starts from the root's rotation into its own frame
    (-theta about Y), even the two that start at the chest.
    """
    before = np.zeros(len(skeleton), dtype=int)  # the joint before in the chain; 0 = the chain starts here
    for chain in skeleton.chains:
        before[list(chain[2:])] = chain[1:-1]
    bones = joints[:, 1:] - joints[:, list(skeleton.parents[1:])]
    arcs = shortest_arc(np.array(skeleton.directions[1:], dtype=float), unit(bones))
    root = Rotation.from_rotvec(-theta[:, None] * [0.0, 1.0, 0.0]).as_matrix()
    world = np.concatenate([root[:, None], arcs.as_matrix().reshape(*bones.shape, 3)], axis=1)  # [T,J,3,3]
    local = np.swapaxes(world[:, before[1:]], -1, -2) @ world[:, 1:]
    return np.swapaxes(local[..., :2], -1, -2).reshape(*bones.shape[:2], 6)


def _turn(x, angle):
    """x [T,n,3] turned about Y by angle [T], frame by frame."""
    return x @ np.swapaxes(Rotation.from_rotvec(angle[:, None] * [0.0, 1.0, 0.0]).as_matrix(), -1, -2)


def _turned(x, z, angle):
    """Components x, z of vectors turned about Y by `angle` (torch)."""
    return angle.cos() * x + angle.sin() * z, angle.cos() * z - angle.sin() * x


def _half_angle(data):
    """theta / 2 [...,T]: column 0 holds minus half the turn to the next frame."""
    return -_shifted(data[..., 0]).cumsum(dim=-1)


def _shifted(x):
    """x [...,T] one frame later, 0 in front."""
    return torch.nn.functional.pad(x[..., :-1], (1, 0))
