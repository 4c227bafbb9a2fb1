"""Motion that passes given places at given times: the best of many samples, its worst section drawn again,
and a smooth warp of the root's path that closes the remaining distance.

The warp changes turns and speeds in feature rows, which are relative to the body, so the body turns with its
path. Both changes are cubic B-splines over time. The motion begins at the origin, in the direction that fits
best. The ground plane is complex here, p = z + ix: a turn by phi about +Y is a product with exp(i phi).
"""

# T frames, D columns, J joints, W waypoints, K candidates, n spline coefficients

import math
from dataclasses import asdict, dataclass

import numpy as np
import scipy  # submodules are imported at their first use: it takes a second
import torch

from models.AE import STRIDE
from models.LengthEstimator import MAX_FRAMES
from motion.feet import fix_feet
from utils.errors import BadInput
from utils.generation.windows import draw_hidden, part_key
from utils.motion_process import recover_from_ric

CANDIDATES = 64  # of which the best is kept
BATCH = 64  # candidates at a time
AGAIN_KEYS = 2 * 10**12  # for sections drawn again: beyond the keys of all parts and joins
FASTEST = 3.0  # metres a second between two waypoints; the demo set's runners reach it
FARTHEST = 0.25  # metres: a motion that still misses a waypoint by more is left out
NAMED = 3  # how many of these the error names
CLOSE = 0.02  # metres: within these nothing is drawn again
SPEED = 0.15  # the most by which a step grows or shrinks, as a share
# scales of the cost: metres and radians off, radians a second, share of the speed
OFF, ASKEW, TURN, PACE = 0.005, math.radians(1), math.radians(12), 0.06
STANDING = 0.2  # metres a second: a body this slow is turned half as much, so that its feet slide less
KNOTS = 1.5  # spline coefficients a second
ENOUGH = 30  # evaluations of the fit: at its bounds, hundreds more lower the cost by 0.3%


@dataclass(frozen=True)
class Waypoint:
    frame: int
    x: float  # metres from where the motion begins
    z: float
    heading: float | None = None  # radians, 0 = +Z, a quarter turn = +X


def read_waypoints(text):
    """ "1.5,0@2.0 1.5,2@4.5:90" -> list of (word, x, z, seconds, degrees or None). Raises BadInput."""
    read = []
    for word in text.split():
        place, _, time = word.partition("@")
        time, _, heading = time.partition(":")
        try:
            x, z = (float(value) for value in place.split(","))
            seconds, degrees = float(time), float(heading or 0)
        except ValueError:
            raise BadInput(f"--waypoints {word}: write x,z@seconds or x,z@seconds:degrees") from None
        if not all(map(math.isfinite, (x, z, seconds, degrees))):
            raise BadInput(f"--waypoints {word}: not a finite number")
        read.append((word, x, z, seconds, degrees if heading else None))
    if not read:
        raise BadInput("--waypoints is empty: write x,z@seconds, e.g. 0,2@2.5")
    return read


def parse_waypoints(text, fps):
    """ "1.5,0@2.0 1.5,2@4.5:90" -> list of Waypoint: x,z in metres @ seconds : heading in degrees.

    Raises BadInput, also if a waypoint cannot be reached in its time.
    """
    points, before = [], Waypoint(0, 0.0, 0.0)
    for word, x, z, seconds, degrees in read_waypoints(text):
        frame = round(max(min(seconds * fps, MAX_FRAMES), 0))  # 1e308 seconds have no number of frames
        if not before.frame < frame < MAX_FRAMES:
            after = f"that of the one before ({before.frame / fps:g} s)" if points else "the start (0 s)"
            raise BadInput(
                f"--waypoints {word}: its time must lie after {after}, and below {MAX_FRAMES / fps:g} s"
            )
        pace = math.hypot(x - before.x, z - before.z) * fps / (frame - before.frame)
        if pace > FASTEST:
            raise BadInput(
                f"--waypoints {word}: needs {pace:.1f} m/s, {FASTEST:g} are the most: give it more time"
            )
        before = Waypoint(frame, x, z, None if degrees is None else math.radians(degrees))
        points.append(before)
    return points


def frames_for(points, asked=0):
    """Frames of a motion: those asked for, else until the last waypoint; whole tokens. Raises BadInput."""
    needed = points[-1].frame + 1
    frames = (asked or needed + STRIDE - 1) // STRIDE * STRIDE
    if frames < needed:
        raise BadInput(f"--waypoints: the last is in frame {needed}, the motion has {frames}")
    return frames


@dataclass(frozen=True)
class Warped:
    """A motion led along waypoints as far as the warp may go."""

    rows: np.ndarray  # [T,D] with the warp's turns and speeds
    facing: float  # heading in radians at the first frame, which rows do not hold
    cost: float
    drawn: np.ndarray  # [W] metres off without the warp, turned as a whole
    off: np.ndarray  # [W] metres off after the warp
    heading_error: np.ndarray  # radians off at the waypoints that ask for a heading
    pace: float  # the largest change of a step, as a share

    def joints(self, spec):
        """[T,J,3] in the skeleton's unit."""
        joints = recover_from_ric(torch.from_numpy(self.rows), len(spec.skeleton)).numpy()
        ground = (joints[..., 2] + 1j * joints[..., 0]) * np.exp(1j * self.facing)
        return np.stack([ground.imag, joints[..., 1], ground.real], axis=-1)


def warp(rows, points, fps, unit_m=1.0):
    """Lead feature rows [T,D] along waypoints -> Warped.

    Bounded least squares over the first facing, turns a [n] and changes of speed b [n], with
    phi_t = facing + sum of w (B a)_t, steps (1 + (B b)_t) v_t exp(i phi_t); w is small for a standing body.
    """
    rows = np.array(rows, dtype=np.float64)
    fit = PathFit(rows, points, fps, unit_m)
    most = np.concatenate([[np.inf], np.full(fit.n, 5 * TURN), np.full(fit.n, SPEED)])
    first = np.eye(1, 2 * fit.n + 1)[0] * fit.facing
    found = scipy.optimize.least_squares(fit.residuals, first, fit.jacobian, (-most, most), max_nfev=ENOUGH)
    off, heading_error = fit.errors(found.x)
    phi, _, scale = fit.moved(found.x)
    rows[:, 0] -= np.diff(phi, prepend=found.x[0]) / 2
    rows[:, 1:3] *= scale[:, None]
    pace = float(np.abs(scale - 1).max())
    return Warped(rows, found.x[0], found.cost, fit.drawn, np.abs(off), heading_error, pace)


class PathFit:
    """The least-squares problem of `warp`, in x = (facing, a [n], b [n])."""

    def __init__(self, rows, points, fps, unit_m):
        self.steps, own = ground_steps(rows, unit_m)
        self.basis = splines(len(rows), fps)
        self.n = self.basis.shape[1]
        speed = scipy.ndimage.gaussian_filter1d(np.abs(self.steps) * fps, 3, mode="nearest")
        self.turns = np.cumsum((speed / (speed + STANDING))[:, None] * self.basis, axis=0) / fps
        self.at = np.array([point.frame for point in points]) - 1  # the step that leads to each
        self.goal = np.array([point.z + 1j * point.x for point in points])
        self.at_heading = self.at[[k for k, point in enumerate(points) if point.heading is not None]]
        self.own = own[self.at_heading]
        self.asked = np.array([point.heading for point in points if point.heading is not None])
        before = np.cumsum(self.steps)[self.at]
        self.facing = float(np.angle((self.goal * before.conj()).sum()))  # the best without a warp
        self.drawn = np.abs(before * np.exp(1j * self.facing) - self.goal)  # [W] metres off with this facing

    def moved(self, x):
        """-> phi [T], the steps turned by it [T], their scale [T]"""
        phi = x[0] + self.turns @ x[1 : self.n + 1]
        return phi, self.steps * np.exp(1j * phi), 1 + self.basis @ x[self.n + 1 :]

    def errors(self, x):
        """-> complex metres off at each waypoint; radians off at those with a heading"""
        phi, turned, scale = self.moved(x)
        heading_error = np.angle(np.exp(1j * (self.own + phi[self.at_heading] - self.asked)))
        return np.cumsum(turned * scale)[self.at] - self.goal, heading_error

    def residuals(self, x):
        off, heading_error = self.errors(x)
        turns, paces = x[1 : self.n + 1] / TURN, x[self.n + 1 :] / PACE
        return np.concatenate([off.real / OFF, off.imag / OFF, heading_error / ASKEW, turns, paces])

    def jacobian(self, x):
        """Derivatives of the residuals (rows) by x (columns)."""
        _, turned, scale = self.moved(x)
        all_turns = np.concatenate([np.ones((len(turned), 1)), self.turns], axis=1)
        by_turn = np.cumsum(1j * (turned * scale)[:, None] * all_turns, axis=0)[self.at]
        by_pace = np.cumsum(turned[:, None] * self.basis, axis=0)[self.at]
        off = np.concatenate([by_turn, by_pace], axis=1) / OFF
        # speeds do not turn
        heading_error = np.pad(all_turns[self.at_heading], ((0, 0), (0, self.n))) / ASKEW
        size = np.concatenate([np.full(self.n, 1 / TURN), np.full(self.n, 1 / PACE)])
        return np.concatenate([off.real, off.imag, heading_error, np.pad(np.diag(size), ((0, 0), (1, 0)))])


def splines(frames, fps):
    """Cubic B-splines over time [T,n], KNOTS of them a second."""
    n = max(5, round(KNOTS * frames / fps) + 3)
    knots = np.pad(np.linspace(0, frames, n - 2), 3, mode="edge")
    return scipy.interpolate.BSpline.design_matrix(np.arange(frames) + 0.5, knots, 3).toarray()[:, :n]


def ground_steps(rows, unit_m):
    """Steps [T] on the ground in metres, complex, from each frame to the next, and the heading after each."""
    heading = -2 * np.cumsum(rows[:, 0])
    return unit_m * (rows[:, 2] + 1j * rows[:, 1]) * np.exp(1j * heading), heading


@dataclass(frozen=True)
class Arrival:
    """How far a motion is from its waypoints, as drawn and after the warp."""

    drawn_m: float  # mean over the waypoints, of the best sample, only turned as a whole
    mean_m: float
    worst_m: float
    heading_degrees: float  # the largest at waypoints with a heading
    speed_change: float  # the largest, as a share

    def __str__(self):
        return (
            f"waypoints: {100 * self.drawn_m:.0f} cm off as drawn, {100 * self.mean_m:.1f} in the end "
            f"(at most {100 * self.worst_m:.1f} cm, {self.heading_degrees:.0f} degrees); "
            f"speeds changed by up to {100 * self.speed_change:.0f}%"
        )


def draw_routes(pipeline, texts, sampling, repeats, route):
    """Every prompt and repeat -> (entry of samples.json, feature rows, joints), as sample.py draws them.

    route: (list of Waypoint, number of candidates). A motion that misses a waypoint is left out; when all
    are drawn, BadInput names the first few that were.
    """
    (points, candidates), missed = route, []
    for i, prompt in enumerate(texts.prompts):
        for r in range(repeats):
            keys = [part_key(i, r * candidates + k) for k in range(candidates)]
            text, frames = texts.rows[i][None], STRIDE * int(texts.m_lens[i])
            try:
                rows, one, arrival = draw_along(pipeline, text, points, frames, sampling, keys)
            except BadInput as error:
                missed.append(f"{prompt[:60]!r}, repeat {r}: {error}")
                continue
            yield {"prompt": prompt, "sample": i, "repeat": r, "waypoints": asdict(arrival)}, rows, one
    if missed:
        more = f" (and {len(missed) - NAMED} more)" if len(missed) > NAMED else ""
        total = repeats * len(texts.prompts)
        raise BadInput(f"{len(missed)} of {total} motions left out: {'; '.join(missed[:NAMED])}{more}")


@torch.no_grad()
def draw_along(pipeline, text, points, frames, sampling, keys):
    """One motion along waypoints, the best of K -> (rows [T,D], joints [T,J,3], Arrival). Raises BadInput.

    text [1,E]; keys: K integers, see MARDM.generate. Joints, in the skeleton's unit, have standing feet held
    in place, rows do not.
    """
    length, batches = frames // STRIDE, [keys[first : first + BATCH] for first in range(0, len(keys), BATCH)]

    def draw(some):
        m_lens = torch.full((len(some),), length, device=pipeline.device)
        many = text.expand(len(some), *text.shape[1:])
        return pipeline.mardm.generate(pipeline.autoencoder.ae, many, m_lens, sampling, some)

    tokens = torch.cat([draw(some) for some in batches])
    first, best = _best(pipeline, tokens, points, sampling)
    result = first
    if first.off.max() > CLOSE:
        known = pipeline, text, tokens[best, None], _worst_stretch(first, points, length), sampling
        again = [draw_hidden(*known, [AGAIN_KEYS + key for key in some]) for some in batches]
        redrawn, _ = _best(pipeline, torch.cat(again), points, sampling)
        result = min(first, redrawn, key=lambda motion: motion.cost)
    if result.off.max() > FARTHEST:
        raise BadInput(
            f"--waypoints: the best of {len(keys)} drawings misses one by {result.off.max():.1f} m: give it "
            "more or less time, or a prompt that goes there"
        )
    spec = pipeline.spec
    heading_error = np.degrees(np.abs(result.heading_error).max(initial=0))
    off = [float(value) for value in (first.drawn.mean(), result.off.mean(), result.off.max(), heading_error)]
    return (
        result.rows.astype(np.float32),
        fix_feet(result.joints(spec), spec.fps, spec.skeleton),
        Arrival(*off, result.pace),
    )


def _best(pipeline, tokens, points, sampling):
    """Of K candidates [K,L,d] the one that the warp changes at the least cost -> (Warped, its index)."""
    spec = pipeline.spec
    frames = torch.full((len(tokens),), STRIDE * tokens.shape[1], device=tokens.device)
    rows, _ = pipeline.decode(tokens, frames, snap=sampling.snap != "off")
    warped = [warp(one, points, spec.fps, spec.skeleton.unit_m) for one in rows]
    best = min(range(len(warped)), key=lambda k: warped[k].cost)
    return warped[best], best


def _worst_stretch(motion, points, length):
    """bool [L], True on the section between waypoints in which the unwarped error grew most."""
    ends = [0, *(point.frame for point in points)]
    worst = int(np.argmax(np.diff(motion.drawn, prepend=0)))
    hidden = torch.zeros(length, dtype=torch.bool)
    hidden[ends[worst] // STRIDE : -(-ends[worst + 1] // STRIDE)] = True
    return hidden
