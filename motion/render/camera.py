"""Pin-hole camera that looks at a target, and the framing of whole motions.

Y is up. Azimuth 0 looks into the face of a person who faces +Z; positive azimuth moves to the left side (+X).
"""

from dataclasses import dataclass

import numpy as np

AZIMUTH, ELEVATION = np.radians(35.0), np.radians(18.0)  # a three-quarter view from the front, a little above
LENS = 3.5  # distance / span: a field of view of 2 atan(1 / 3.5) = 32 degrees
MARGIN = 0.86  # share of the picture that the motion may fill
FIXED_SPAN = 1.9  # metres; a motion that needs a wider view than this is followed instead
SMOOTH_S = 0.5  # seconds; standard deviation of the Gaussian that smooths the root's path for the camera


@dataclass(frozen=True)
class Camera:
    span: float  # half of the picture's height at the target, in metres
    azimuth: float = AZIMUTH
    elevation: float = ELEVATION

    @property
    def axes(self):
        """Rows right, up, towards the viewer -> [3,3]."""
        sa, ca = np.sin(self.azimuth), np.cos(self.azimuth)
        se, ce = np.sin(self.elevation), np.cos(self.elevation)
        return np.array([[ca, 0.0, -sa], [-se * sa, ce, -se * ca], [ce * sa, se, ce * ca]])

    def project(self, points, target):
        """points [...,3], target [...,3] -> picture [...,2] (the frame is [-1,1] squared), scale [...].

        scale: length in the picture of one metre at that depth; <= 0 behind the viewer.
        """
        x, y, toward = np.moveaxis((points - target) @ self.axes.T, -1, 0)
        distance = LENS * self.span
        scale = distance / (distance - toward) / self.span
        return np.stack([x * scale, y * scale], axis=-1), scale


def follow(root, fps):
    """Root positions on the floor [T,2] -> the same path, smoothed over about SMOOTH_S seconds [T,2]."""
    radius = max(1, round(2 * SMOOTH_S * fps))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (SMOOTH_S * fps)) ** 2)
    # odd reflection: no lag at the ends
    padded = np.pad(root, ((radius, radius), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(padded[:, k], kernel / kernel.sum(), mode="valid") for k in (0, 1)], axis=1)


def fit_camera(motions, fps):
    """One scale for all, a target per frame for each: motions [T,J,3] in metres -> Camera, list of [T,3].

    Where the whole path fits into a view that keeps people large the camera stands still, else it follows.
    """
    camera, targets = stand_still(motions)
    return (camera, targets) if camera.span <= FIXED_SPAN else walk_along(motions, fps)


def stand_still(motions):
    """The closest view that shows all of every motion at once -> Camera, list of [T,3], constant over T."""
    centres = [0.5 * (m.min(axis=(0, 1)) + m.max(axis=(0, 1))) for m in motions]
    targets = [np.repeat(centre[None], len(m), axis=0) for centre, m in zip(centres, motions)]
    for _ in range(3):  # perspective enlarges what is near: move the middle of the picture onto the target
        camera = _widen(motions, targets)
        targets = [_recentre(camera, m, t) for m, t in zip(motions, targets)]
    return _widen(motions, targets), targets


def walk_along(motions, fps):
    """A view of the person that goes with the smoothed root -> Camera, list of [T,3]."""
    targets = []
    for motion in motions:
        path = follow(motion[:, 0, [0, 2]], fps)
        height = 0.5 * (motion[..., 1].min() + motion[..., 1].max())
        targets.append(np.insert(path, 1, height, axis=1))
    return _widen(motions, targets), targets


def _recentre(camera, motion, target):
    """Shifts targets [T,3] in the plane of the picture so that the drawn motion lies in the middle of it."""
    picture, _ = camera.project(motion, target[:, None])
    middle = 0.5 * (picture.min(axis=(0, 1)) + picture.max(axis=(0, 1)))
    return target + camera.span * middle @ camera.axes[:2]


def _widen(motions, targets):
    """The narrowest camera (never under 1 m) that keeps every joint of every frame inside the margin."""
    radius = max(np.linalg.norm(m - t[:, None], axis=-1).max() for m, t in zip(motions, targets))
    low, high = 1.0, max(1.0, 2.0 * radius / MARGIN)
    for _ in range(20):
        span = 0.5 * (low + high)
        camera = Camera(span)
        fits = radius < LENS * span and all(
            np.abs(camera.project(m, t[:, None])[0]).max() <= MARGIN for m, t in zip(motions, targets)
        )
        low, high = (low, span) if fits else (span, high)
    return Camera(high)
