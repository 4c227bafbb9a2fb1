"""Read BVH files: hierarchy, channels, positions of every joint at every frame.

Angles are degrees in the file; a joint's local rotation is the product of its rotation channels in the order
in which they are listed, whatever that order is (column vectors).
"""

# F frames, J joints, C channels

import io
import os
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from motion.bvh.parser import Hierarchy, frame_lines, header_tokens, read_values

MAX_BYTES = 200 * 2**20  # a file of this size holds about an hour at 120 fps
FEW = 2**20  # joints times frames that any file may have; more than these need a byte of file each


@dataclass(frozen=True)
class Bvh:
    """A parsed BVH file, in its own unit of length. Parents precede children; joint 0 is the root."""

    names: tuple[str, ...]
    parents: tuple[int, ...]  # -1 for the root
    offsets: np.ndarray  # [J,3]
    end_sites: dict  # joint -> offset [3] of its End Site
    fps: float
    positions: np.ndarray  # [F,J,3] of each joint in its parent's frame
    rotations: np.ndarray  # [F,J,4] local, quaternions x y z w

    def __len__(self):
        return len(self.positions)

    def forward(self):
        """World rotations [F,J,3,3] and positions [F,J,3] of all joints, float64, in the file's unit."""
        count = len(self.names)
        local = Rotation.from_quat(self.rotations.reshape(-1, 4)).as_matrix().reshape(len(self), count, 3, 3)
        turns, places = np.empty_like(local), np.empty_like(self.positions)
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                turns[:, joint], places[:, joint] = local[:, joint], self.positions[:, joint]
                continue
            turns[:, joint] = turns[:, parent] @ local[:, joint]
            moved = turns[:, parent] @ self.positions[:, joint, :, None]
            places[:, joint] = places[:, parent] + moved[..., 0]
        return turns, places

    def resampled(self, fps):
        """The same motion at another rate: splines through the rotations, so that bones keep their lengths.

        floor((F-1) fps / own fps) + 1 frames; the first is the file's first.
        """
        count = int((len(self) - 1) * fps / self.fps + 1e-6) + 1
        if len(self) == 1 or abs(fps / self.fps - 1) < 1e-9:
            return replace(self, fps=fps)
        old, new = np.arange(len(self)) / self.fps, np.arange(count) / fps
        new = np.minimum(new, old[-1])
        # a quaternion and its negative are the same rotation: take the one next to the frame before
        flips = np.sign((self.rotations[1:] * self.rotations[:-1]).sum(axis=-1))
        signs = np.cumprod(np.concatenate([np.ones_like(flips[:1]), np.where(flips == 0, 1, flips)]), axis=0)
        from scipy.interpolate import CubicSpline  # not at the top: takes half a second, and few need it

        rotations = CubicSpline(old, self.rotations * signs[..., None])(new)
        rotations /= np.linalg.norm(rotations, axis=-1, keepdims=True)
        return replace(self, fps=fps, positions=CubicSpline(old, self.positions)(new), rotations=rotations)


def read_bvh(path, position_channels="auto"):
    """Read a BVH file -> Bvh. Raises ValueError with a one-line reason, OSError where it cannot be read.

    position_channels: whether position channels below the root "replace" their OFFSET or "add" to it; "auto"
    decides by the values of most joints.
    """
    size = os.path.getsize(path)
    if size > MAX_BYTES:
        raise ValueError(f"{size >> 20} MB: more than {MAX_BYTES >> 20} MB, cut it into parts")
    with _opened(path) as file:
        tokens, line_number = header_tokens(file)
        names, parents, offsets, channels, end_sites = Hierarchy(tokens).parse()
        frames, frame_time, line_number = frame_lines(file, line_number)
        count = sum(map(len, channels))
        if count == 0:
            raise ValueError("no joint has a channel: there is no motion in the file")
        if frames * count * 2 > size:  # a number and a blank take two bytes at least
            raise ValueError(f"truncated: too small for {frames} frames of {count} values")
        if frames * len(names) > max(size, FEW):  # joints without channels take memory, too
            raise ValueError(
                f"{frames} frames of {len(names)} joints from {count} channels: leave out joints that never "
                "move, or cut it into parts"
            )
        values = read_values(file, frames, count, line_number)
    positions, rotations = _local_motion(values, offsets, channels, parents, position_channels)
    return Bvh(names, parents, offsets, end_sites, _rate(frame_time), positions, rotations)


def _opened(path):
    """Open a file for binary reading; the line ends of old Macs (CR alone) become LF, in memory."""
    file = open(path, "rb")  # noqa: SIM115  # the caller closes it
    start = file.read(FEW)
    file.seek(0)
    if b"\n" in start or b"\r" not in start:
        return file
    with file:
        return io.BytesIO(file.read().replace(b"\r", b"\n"))


def _rate(frame_time):
    """Frames per second, without the file's rounding: 0.0333333 is 30, 0.0333667 is 30000/1001."""
    fps = 1 / frame_time
    ntsc = round(fps) * 1000 / 1001  # 29.97, 59.94, 23.976
    if abs(fps - ntsc) < 1e-5 * fps:
        return ntsc
    return float(round(fps)) if round(fps) > 0 and abs(fps - round(fps)) < 2e-3 * fps else fps


def _local_motion(values, offsets, channels, parents, position_channels):
    """Channel values [F,C] -> local positions [F,J,3], local rotations [F,J,4]."""
    moved = np.repeat(offsets[None], len(values), axis=0)
    rotations = np.zeros((len(values), len(offsets), 4))
    rotations[..., 3] = 1
    given = np.zeros(offsets.shape, dtype=bool)  # which coordinates have a position channel
    column = 0
    for joint, kinds in enumerate(channels):
        turn = None
        for kind, axis in kinds:
            if kind == "position":
                moved[:, joint, axis] = values[:, column]
                given[joint, axis] = True
            else:
                step = Rotation.from_euler("xyz"[axis], values[:, column, None], degrees=True)
                turn = step if turn is None else turn * step
            column += 1
        if turn is not None:
            rotations[:, joint] = turn.as_quat()
    below = given & (np.array(parents) >= 0)[:, None]
    if _adds(moved, offsets, below, position_channels):
        moved += offsets * below
    return moved, rotations


def _adds(moved, offsets, below, position_channels):
    """Whether position channels below the root add to OFFSET: most joints' are nearer to 0 than to it."""
    if position_channels != "auto":
        return position_channels == "add"
    joints = (below & (offsets != 0)).any(axis=1)
    values, offsets = (x[..., joints, :] * below[joints] for x in (moved, offsets))
    about_zero = np.median(np.linalg.norm(values, axis=-1), axis=0)
    about_offset = np.median(np.linalg.norm(values - offsets, axis=-1), axis=0)
    return (about_zero < about_offset).sum() > joints.sum() / 2
