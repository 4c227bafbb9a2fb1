"""Rotations from vectors, batched."""

import numpy as np
from scipy.spatial.transform import Rotation

TINY = 1e-9


def unit(x):
    """x [...,3] scaled to unit length; zero vectors stay zero."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > TINY)


def shortest_arc(u, v):
    """Rotations by the smallest angle from unit vectors u [...,3] to v [...,3]; batch axes are flattened.

    The quaternion is (u x v, 1 + u.v), normalised. Opposite vectors do not determine the axis: one
    perpendicular to u is taken. A zero vector v gives the identity.
    """
    u, v = np.broadcast_arrays(u, v)
    v = np.where((v == 0).all(axis=-1, keepdims=True), u, v)
    quaternion = np.concatenate([np.cross(u, v), 1 + (u * v).sum(axis=-1, keepdims=True)], axis=-1)  # x y z w
    opposite = np.linalg.norm(quaternion, axis=-1) < TINY
    if opposite.any():
        smallest = np.eye(3)[np.abs(u[opposite]).argmin(axis=-1)]
        quaternion[opposite, :3] = np.cross(u[opposite], smallest)
    return Rotation.from_quat(quaternion.reshape(-1, 4))


def quaternions(turns):
    """Rotations [T,J,3,3] -> quaternions x y z w [T,J,4], without sign flips between frames: interpolable."""
    rows = Rotation.from_matrix(turns.reshape(-1, 3, 3)).as_quat().reshape(*turns.shape[:2], 4)
    flips = np.where((rows[1:] * rows[:-1]).sum(axis=-1, keepdims=True) < 0, -1, 1)
    rows[1:] *= np.cumprod(flips, axis=0)
    return rows


def best_fit(rest, seen, prior):
    """The rotations R [T,3,3] with the least sum of |R rest - seen|^2; rest [k,3], seen [T,k,3] (Kabsch
    1976).

    Where the vectors do not determine R (all on one line), it stays near the prior [T,3,3].
    """
    cross = np.einsum("tki,kj->tij", seen, rest)
    size = np.linalg.norm(cross, axis=(1, 2), keepdims=True)
    left, _, right = np.linalg.svd(cross + 1e-6 * np.maximum(size, TINY) * prior)
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]  # a rotation, not a mirror image
    return left @ right
