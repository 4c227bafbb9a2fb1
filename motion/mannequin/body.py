"""A plain mannequin around a rest pose: tubes along its bones, hands with fingers, feet, a face with a visor.

Every body of one skeleton has the same triangles; only the vertices follow the lengths of the bones. Where
two bones meet, vertices follow both, so elbows and knees bend without a gap.
"""

# V vertices, F triangles, J joints, K rings of a tube; metres

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from motion.bvh.pose import rest_places
from motion.render.figure import LEFT, MIDDLE, RIGHT
from motion.rotations import unit

FACE = 3  # the colour group of the visor, beside MIDDLE, LEFT, RIGHT
LEG = 0.82  # from hip to ankle of the reference body, whose measures stand below
BLEND = 0.045  # to either side of a joint, within which vertices follow both bones
X, Y, Z = np.eye(3)

# rows: place, half width, half depth; places count joints (0 the first, 1.5 half-way from second to third)
LEG_SHAPE = [(-0.1, 0.088, 0.094), (0, 0.086, 0.092), (0.35, 0.078, 0.084), (0.75, 0.058, 0.062)]
LEG_SHAPE += [
    (1, 0.052, 0.055),
    (1.12, 0.05, 0.053),
    (1.35, 0.051, 0.057),
    (1.7, 0.037, 0.04),
    (2, 0.034, 0.037),
]
ARM_SHAPE = [(-0.06, 0.056, 0.056), (0.1, 0.057, 0.057), (0.4, 0.046, 0.047), (0.9, 0.038, 0.039)]
ARM_SHAPE += [(1.05, 0.038, 0.039), (1.3, 0.04, 0.039), (1.7, 0.031, 0.031), (2.0, 0.026, 0.023)]
# of the trunk: place from pelvis (0) to neck (1), share of the half width there, half depth
TRUNK_SHAPE = [
    (-0.21, 0.42, 0.06),
    (-0.12, 0.84, 0.1),
    (0.02, 0.98, 0.108),
    (0.26, 0.84, 0.094),
    (0.5, 0.92, 0.102),
]
TRUNK_SHAPE += [(0.72, 1.04, 0.108), (0.86, 0.98, 0.092), (0.95, 0.66, 0.068), (1.02, 0.27, 0.044)]
# of the foot, from heel (0) to tip (1): half width, height of the instep above the sole
FOOT_SHAPE = [(0, 0.026, 0.05), (0.12, 0.034, 0.075), (0.3, 0.036, 0.085), (0.55, 0.043, 0.06)]
FOOT_SHAPE += [(0.8, 0.046, 0.036), (1, 0.03, 0.022)]
# of the palm, metres from the wrist along the arm: half width, half thickness
PALM_SHAPE = [(-0.01, 0.026, 0.022), (0.03, 0.036, 0.018), (0.07, 0.041, 0.015), (0.092, 0.038, 0.013)]
FINGERS = [(-0.03, 0.058), (-0.01, 0.074), (0.011, 0.08), (0.031, 0.072)]  # place across the palm, length
SHORTEST = 0.001
SOLE = 0.012  # of the foot below the toe joint


@dataclass(frozen=True)
class Surface:
    """Triangles of a body in its rest pose, the pelvis at the origin, and what moves them."""

    vertices: np.ndarray  # [V,3]
    normals: np.ndarray  # [V,3]
    joints: np.ndarray  # [V,2] whose bones a vertex follows
    shares: np.ndarray  # [V] skinning weight of the first of them; the second has the rest
    triangles: np.ndarray  # [F,3] counter-clockwise from outside
    groups: np.ndarray  # [F] MIDDLE, LEFT, RIGHT or FACE


def mannequin(offsets, skeleton):
    """offsets [J,3] in metres of a rest pose (T-pose facing +Z) -> Surface. Bones are at least 1 mm long."""
    lengths = np.linalg.norm(offsets, axis=1, keepdims=True)
    offsets = np.where(lengths < SHORTEST, SHORTEST * np.array(skeleton.directions), offsets)
    return _Builder(rest_places(offsets, skeleton), skeleton).surface()


class _Builder:
    """Collects the tubes of a body."""

    def __init__(self, places, skeleton):
        self.places, self.skeleton = places, skeleton
        self.parts, self.count = [], 0
        trunk, *_ = [c for c in skeleton.chains if c[-1] == skeleton.head]
        legs = [[c for c in skeleton.chains if hip in c][0] for hip in skeleton.hips]
        legs = [chain[chain.index(hip) :] for chain, hip in zip(legs, skeleton.hips)]
        self.size = (
            np.mean([np.linalg.norm(np.diff(places[leg[:3],], axis=0), axis=1).sum() for leg in legs]) / LEG
        )
        self._trunk(trunk)
        self._head(*trunk[-2:])
        for side, sign, leg, shoulder, wrist in zip(
            (LEFT, RIGHT), (1, -1), legs, skeleton.shoulders, skeleton.wrists
        ):
            self._leg(leg[:3], side)
            self._foot(leg[2:], side)
            elbow = skeleton.parents[wrist]
            self._arm((skeleton.parents[shoulder], shoulder), (shoulder, elbow, wrist), side)
            self._hand(wrist, sign, side)

    def surface(self):
        vertices, joints, shares, triangles, groups = (np.concatenate(x) for x in zip(*self.parts))
        corners = vertices[triangles]
        faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.zeros_like(vertices)
        for corner in range(3):
            np.add.at(normals, triangles[:, corner], faces)
        return Surface(vertices, unit(normals), joints, shares, triangles, groups)

    def _add(self, rings, poles, joints, shares, groups):
        """A closed tube: rings [K,S,3] about an axis, a pole [3] at either end; joints, shares per ring."""
        n_rings, sides = rings.shape[:2]
        ring, side = np.divmod(np.arange((n_rings - 1) * sides), sides)
        a, b = ring * sides + side, ring * sides + (side + 1) % sides
        walls = np.stack([a, b, b + sides, a, b + sides, a + sides], axis=1).reshape(-1, 3)
        side, last, pole = np.arange(sides), (n_rings - 1) * sides, n_rings * sides
        turn = (side + 1) % sides
        first_cap = np.stack([np.full(sides, pole), turn, side], axis=1)
        last_cap = np.stack([np.full(sides, pole + 1), last + side, last + turn], axis=1)
        triangles = np.concatenate([walls, first_cap, last_cap])
        groups = np.concatenate([np.repeat(groups, 2), np.full(2 * sides, groups[0])])
        ends = [*np.repeat(np.arange(n_rings), sides), 0, n_rings - 1]
        vertices = np.concatenate([rings.reshape(-1, 3), poles])
        self.parts.append((vertices, joints[ends], shares[ends], triangles + self.count, groups))
        self.count += len(vertices)

    def _tube(self, joints, shape, across, side, points=None, grid=(14, 18), caps=(1, 1)):
        """A tube along joints. shape [k,3]: place, half width along `across`, half depth; see above.

        points: positions in place of the joints' own; grid: number of sides, of rings without the round ends;
        caps: depth of the two ends, relative to their smaller radius.
        """
        points = self.places[list(joints)] if points is None else np.asarray(points)
        sides, rings = grid
        shape = np.array(shape, dtype=float)
        bones = np.diff(points, axis=0)
        knots = np.concatenate([[0], np.cumsum(np.linalg.norm(bones, axis=1))])  # metres along the tube
        places = _extended(shape[:, 0], np.arange(len(points)), knots)
        bends = knots[1:-1, None] + self._reach(knots) * np.linspace(-0.9, 0.9, 5)
        metres = np.sort(np.concatenate([np.linspace(places[0], places[-1], rings), bends.ravel()]))
        radii = PchipInterpolator(places, shape[:, 1:])(metres)
        bone = np.clip(np.searchsorted(knots, metres, "right") - 1, 0, len(bones) - 1)
        along = unit(bones[bone])
        centres = points[bone] + along * (metres - knots[bone])[:, None]
        # round ends: rings of a half ellipsoid, as deep as the smaller radius
        angles = np.radians([60, 30] if sides < 12 else [72, 48, 24])
        start, end = caps
        first = centres[0] - along[0] * radii[0].min() * start * np.sin(angles)[:, None]
        last = centres[-1] + along[-1] * radii[-1].min() * end * np.sin(angles)[::-1, None]
        poles = [
            centres[0] - along[0] * radii[0].min() * start,
            centres[-1] + along[-1] * radii[-1].min() * end,
        ]
        centres = np.concatenate([first, centres, last])
        narrowed = np.cos(angles)[:, None]
        radii = np.concatenate([radii[0] * narrowed, radii, radii[-1] * narrowed[::-1]])
        pad = ((len(angles), len(angles)),)
        owners, shares = self._blend(np.asarray(joints), metres, knots)
        owners, shares = np.pad(owners, (*pad, (0, 0)), "edge"), np.pad(shares, pad, "edge")
        along = np.pad(along, (*pad, (0, 0)), "edge")
        other = unit(np.cross(along, across))
        angle = 2 * np.pi * np.arange(sides) / sides
        wide = radii[:, :1, None] * np.cos(angle)[:, None] * np.asarray(across)
        deep = radii[:, 1:, None] * np.sin(angle)[:, None] * other[:, None]
        groups = np.full((len(centres) - 1) * sides, side)
        self._add(centres[:, None] + wide + deep, poles, owners, shares, groups)

    def _reach(self, knots):
        """Metres to either side of each inner joint over which its bones blend [K-2,1]; knots [K]: joints."""
        lengths = np.diff(knots)
        return np.minimum(BLEND * self.size, 0.45 * np.minimum(lengths[1:], lengths[:-1]))[:, None]

    def _blend(self, joints, metres, knots):
        """Skinning of rings at `metres` [R] along bones that meet at `knots` -> joints [R,2], shares [R]."""
        if len(knots) < 3:
            return np.tile(joints[:1], (len(metres), 2)), np.ones(len(metres))
        inner, reach = knots[1:-1], self._reach(knots)[:, 0]
        near = np.searchsorted((inner[1:] + inner[:-1]) / 2, metres)
        u = np.clip(0.5 + 0.5 * (metres - inner[near]) / reach[near], 0, 1)
        return np.stack([joints[near], joints[near + 1]], axis=1), 1 - u * u * (3 - 2 * u)

    def _scaled(self, shape, places=False):
        """A shape of the reference body, scaled to this one; places: its places are metres and scale too."""
        return np.array(shape) * [self.size if places else 1, self.size, self.size]

    def _trunk(self, chain):
        places, size = self.places, self.size
        chain = list(chain[:-1])  # without the head
        hips = np.abs(places[list(self.skeleton.hips), 0]).mean() + 0.082 * size
        chest = np.abs(places[list(self.skeleton.shoulders), 0]).mean() - 0.012 * size
        lengths = np.linalg.norm(np.diff(places[chain], axis=0), axis=1)
        knots = np.concatenate([[0], np.cumsum(lengths) / lengths.sum()])
        shape = np.array(TRUNK_SHAPE)
        widths = np.interp(shape[:, 0], [0.1, 0.6], [hips, chest]) * shape[:, 1]
        at = _extended(shape[:, 0], knots, np.arange(len(chain)))
        shape = np.stack([at, widths, shape[:, 2] * size], axis=1)
        self._tube(chain, shape, X, MIDDLE, grid=(24, 18), caps=(0.6, 0.5))

    def _head(self, neck, head):
        size, places = self.size, self.places
        self._tube(
            (neck, head),
            self._scaled([(-0.15, 0.056, 0.056), (0.4, 0.049, 0.052), (1, 0.047, 0.052)]),
            X,
            MIDDLE,
            grid=(14, 7),
        )
        centre = places[head] + size * (0.062 * Y + 0.012 * Z)
        sides, latitudes = 26, np.radians(np.linspace(-78, 78, 17))
        angle = 2 * np.pi * np.arange(sides) / sides
        rise, ring = np.sin(latitudes), np.cos(latitudes)
        narrow = 1 - 0.24 * np.maximum(-rise, 0) ** 1.5  # towards the chin
        x = 0.077 * np.outer(ring * narrow, np.sin(angle))
        z = 0.097 * np.outer(ring, np.cos(angle)) + 0.014 * np.maximum(-rise, 0)[:, None]
        y = np.repeat(0.125 * rise[:, None], sides, axis=1)
        facing = np.cos(angle) > 0.3
        across = np.arctan2(np.sin(angle), np.cos(angle))
        bridge = np.exp(-((across / 0.2) ** 2)) * np.interp(rise, [-0.5, -0.3, 0.05], [0, 1, 0])[:, None]
        z += 0.03 * bridge  # the nose
        rings = centre + size * np.stack([x, y, z], axis=-1)
        poles = centre + size * np.array([[0, -0.125, 0.014], [0, 0.125, 0]])
        visor = np.zeros((len(latitudes) - 1, sides), dtype=bool)
        visor[8:11] = facing & np.roll(facing, -1)
        groups = np.where(visor, FACE, MIDDLE).ravel()
        self._add(rings, poles, np.full((len(rings), 2), head), np.ones(len(rings)), groups)

    def _leg(self, chain, side):
        self._tube(chain, self._scaled(LEG_SHAPE), X, side, grid=(16, 15))

    def _foot(self, chain, side):
        """Flat on its sole, from behind the ankle to beyond the toe joint; chain from ankle to toe."""
        size, (ankle, toe) = self.size, (self.places[chain[0]], self.places[chain[-1]])
        shape = np.array(FOOT_SHAPE)
        t = np.linspace(0, 1, 13)
        width, height = (size * PchipInterpolator(shape[:, 0], shape[:, 1:])(t)).T
        heel, tip = ankle[2] - 0.055 * size, toe[2] + 0.062 * size
        z, sole = heel + t * (tip - heel), min(toe[1], ankle[1] - 0.03 * size) - SOLE * size
        height = np.minimum(height, 1.25 * (ankle[1] - sole))
        angle = 2 * np.pi * np.arange(16) / 16
        box = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.8, np.sin(angle)
        x = ankle[0] + (toe[0] - ankle[0]) * t[:, None] + np.outer(width, box[0])
        low = np.maximum(box[1], -0.55) / 1.55 + 0.55 / 1.55  # a flat sole
        y = sole + np.outer(height, low)
        rings = np.stack([x, y, np.repeat(z[:, None], 16, axis=1)], axis=-1)
        poles = rings[[0, -1]].mean(axis=1) + size * np.array([[0, 0, -0.014], [0, 0, 0.014]])
        knots = self.places[list(chain), 2]
        owners, shares = self._blend(np.asarray(chain), z, knots)
        self._add(rings, poles, owners, shares, np.full((len(rings) - 1) * 16, side))

    def _arm(self, collar, chain, side):
        outward = unit(self.places[chain[1]] - self.places[chain[0]])
        self._tube(
            collar,
            self._scaled([(-0.35, 0.046, 0.05), (0.4, 0.052, 0.05), (0.9, 0.049, 0.046)]),
            Z,
            MIDDLE,
            grid=(14, 7),
        )
        self._tube(chain, self._scaled(ARM_SHAPE), unit(Z - outward * outward[2]), side, grid=(14, 13))

    def _hand(self, wrist, sign, side):
        """Palm down, the thumb ahead; fingers a little bent."""
        size, at = self.size, self.places[wrist]
        ahead = sign * X
        palm = self._scaled(PALM_SHAPE, places=True)
        self._tube((wrist, wrist), palm, Z, side, points=[at, at + ahead], grid=(12, 7))
        bones = [
            (at + size * (0.09 * ahead + z * Z), ahead - 0.22 * Y - 0.6 * z * Z, n, 0.0095)
            for z, n in FINGERS
        ]
        bones.append(
            (at + size * (0.025 * ahead + 0.026 * Z), 0.75 * ahead + 0.66 * Z - 0.2 * Y, 0.066, 0.0115)
        )
        for start, way, length, radius in bones:
            way = unit(way)
            middle = start + 0.5 * size * length * way
            points = [start, middle, middle + 0.5 * size * length * unit(way - 0.22 * Y)]
            across = unit(np.cross(way, Y))
            shape = self._scaled(
                [(0, radius, radius), (1, 0.95 * radius, 0.95 * radius), (2, 0.75 * radius, 0.75 * radius)]
            )
            self._tube((wrist, wrist, wrist), shape, across, side, points=points, grid=(7, 2))


def _extended(x, xs, ys):
    """Piecewise linear interpolation through (xs, ys), extrapolated beyond both ends."""
    below, above = np.minimum(x - xs[0], 0), np.maximum(x - xs[-1], 0)
    slopes = np.diff(ys) / np.diff(xs)
    return np.interp(x, xs, ys) + below * slopes[0] + above * slopes[-1]
