"""Bodies that tests pose."""

import numpy as np


def rest_pose(skeleton, bone=1.0):
    """Joints [J,3] along the skeleton's rest directions, the root at 0. bone: length of all or of each."""
    pose, bones = np.zeros((len(skeleton), 3)), np.broadcast_to(bone, len(skeleton))
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        pose[joint] = pose[parent] + bones[joint] * np.array(skeleton.directions[joint], dtype=float)
    return pose
