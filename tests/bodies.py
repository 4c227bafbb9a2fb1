"""Rest poses and real motion for tests."""

import numpy as np
from scipy.spatial.transform import Rotation


def rest_pose(skeleton, bone=1.0):
    """Joints [J,3] along the skeleton's rest directions, the root at 0. bone: length of all or of each."""
    pose, bones = np.zeros((len(skeleton), 3)), np.broadcast_to(bone, len(skeleton))
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        pose[joint] = pose[parent] + bones[joint] * np.array(skeleton.directions[joint], dtype=float)
    return pose


def packed_clips(folder, chosen=slice(None), world=False):
    """{name: joints [T,22,3] in metres} of a packed set. world: as placed and turned in its recording."""
    with np.load(folder / "motions.npz") as file:
        data = dict(file)
    clips = {}
    for i in range(len(data["names"]))[chosen]:
        start, end = data["offsets"][i : i + 2]
        joints = data["joints"][start:end].astype(np.float64) * float(data["unit_m"])
        if world:
            turn = Rotation.from_euler("y", data["yaw"][i]).as_matrix()
            joints = joints @ turn.T + data["origin_m"][i]
        clips[str(data["names"][i])] = joints
    return clips
