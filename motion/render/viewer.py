"""Write an HTML file that plays motions, without any other file or network.

Positions travel as 16-bit integers (steps of 0.5 mm within 16 m of the origin), and so do the vertices of a
mannequin and the rotations of its bones. Own WebGL of 200 lines draws it, since three.js would add 0.7 MB to
every page; without WebGL the page shows a stick figure. Captions are data: they sit in a JSON block that no
markup can end, are shown as text, and a content policy lets only our own script run.
"""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from motion.bvh.pose import fitted_pose
from motion.captions import clean_text
from motion.files import atomic_file
from motion.mannequin.body import mannequin
from motion.render.camera import AZIMUTH, ELEVATION, FIXED_SPAN, LENS, stand_still, walk_along
from motion.render.figure import HEAD_SIZE, NOSE_SIZE, bones, in_metres
from motion.rotations import quaternions
from motion.skeletons import SMPL22

ASSETS = Path(__file__).parent / "viewer_assets"
FINEST = 0.0005  # metres per integer step; coarser only where a motion goes too far for 16 bits
STEPS = 32767


def write_html(path, motions, captions, fps=20, skeleton=SMPL22, closed=False):
    """Write the page of `viewer_page` -> path."""
    page = viewer_page(motions, captions, fps, skeleton, closed)
    with atomic_file(path) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
    return Path(path)


def viewer_page(motions, captions, fps=20, skeleton=SMPL22, closed=False):
    """The HTML text. motions: one [T,J,3] or a list, side by side; captions: one or one each.

    closed: loops, each of which ends with the pose that begins its next cycle; it does not count as a frame.
    """
    motions = in_metres(motions, skeleton)
    captions = [captions] * len(motions) if isinstance(captions, str) else list(captions)
    if len(captions) != len(motions):
        raise ValueError(f"{len(captions)} captions for {len(motions)} motions: one for each, or one for all")
    return fill(
        (ASSETS / "viewer.html").read_text(encoding="utf-8"),
        title=html.escape(clean_text(captions[0])[:100] or "Motion"),
        data=safe_json(scene(motions, captions, fps, skeleton, closed)),
        **_with_hash("style", "viewer.css"),
        **_with_hash("script", "mannequin.js", "viewer.js"),
    )


def viewer_frame(page, rows=1):
    """The viewer as part of another page: in a frame that may run its script and nothing else.

    rows: number of rows, of two panels each, that are visible without scrolling.
    """
    page, height = html.escape(page), 160 + 400 * rows
    return f'<iframe sandbox="allow-scripts" title="Motion" height="{height}" srcdoc="{page}"></iframe>'


def floor_plan(reach=3):
    """HTML of a top view in metres on which clicks set waypoints; `floor` of page.js draws on it."""
    ends = (f'{{0}}1="{{1}}" {{0}}2="{{1}}" {{2}}1="{-reach}" {{2}}2="{reach}"').format
    lines = "".join(
        f"<line {ends('x', k, 'y')}/><line {ends('y', k, 'x')}/>" for k in range(-reach, reach + 1)
    )
    person = '<path d="M0 -.2 L.12 .12 L0 .05 L-.12 .12 Z"/>'
    return (
        f'<button>clear</button><svg viewBox="{-reach} {-reach} {2 * reach} {2 * reach}">{lines}'
        f"<polyline/><g></g>{person}</svg>"
    )


def page_script(function, settings=None):
    """JavaScript that runs a function of page.js on the element of an HTML component of app.py."""
    text = (ASSETS / "page.js").read_text(encoding="utf-8")
    return f"{text}\n{function}(element, {json.dumps(settings or {})}, watch);"


def time_line(frames, fps):
    """HTML of a time line with seconds, on which `timeline` of page.js selects a range of frames."""
    ticks = "".join(
        f'<span style="left: {100 * second * fps / frames:.3f}%">{second} s</span>'
        for second in range(0, int(frames / fps) + 1, 1 + int(frames / fps / 12))
    )
    return f'<div data-frames="{frames}" role="img" aria-label="Time line"><i></i>{ticks}</div>'


def scene(motions, captions, fps, skeleton, closed=False):
    """Data of the page as a plain dict: motions in metres, the skeleton, both cameras."""
    still, still_targets = stand_still(motions)
    walk, walk_targets = walk_along(motions, fps)
    pairs, sides, sizes = bones(skeleton)
    rig, bodies = _mannequins(motions, skeleton)
    return {
        "fps": fps,
        "joints": len(skeleton),
        "bones": [[int(a), int(b), int(side), size] for (a, b), side, size in zip(pairs, sides, sizes)],
        "head": skeleton.head,
        "neck": skeleton.parents[skeleton.head],
        "hips": skeleton.hips,
        "shoulders": skeleton.shoulders,
        "sizes": {"head": HEAD_SIZE, "nose": NOSE_SIZE},
        "azimuth": AZIMUTH,
        "elevation": ELEVATION,
        "lens": LENS,
        "spans": {"still": still.span, "follow": walk.span},
        "follow": bool(still.span > FIXED_SPAN),
        "mannequin": rig,
        "motions": [
            {
                "caption": clean_text(caption),
                "frames": len(motion) - closed,
                "still": stays[0].round(3).tolist(),
                "targets": goes.round(3).tolist(),
                "body": body,
                **quantise(motion),
            }
            for motion, caption, stays, goes, body in zip(
                motions, captions, still_targets, walk_targets, bodies
            )
        ],
    }


def _mannequins(motions, skeleton):
    """-> (data that all bodies share, list of data of each body); motions in metres.

    A bone belongs to a joint with children; a joint without moves with its parent's bone.
    """
    inner = sorted(set(skeleton.parents[1:]))
    bone_of = [inner.index(j if j in inner else skeleton.parents[j]) for j in range(len(skeleton))]
    bodies = []
    for motion in motions:
        offsets, world = fitted_pose(motion, replace(skeleton, unit_m=1.0))
        surface = mannequin(offsets, skeleton)
        turns = quaternions(world[:, inner])
        step = float(np.abs(surface.vertices).max()) / STEPS
        bodies.append(
            {
                "unit": step,
                "places": _packed(surface.vertices / step, "<i2"),
                "normals": _packed(127 * surface.normals, "i1"),
                "turns": _packed(STEPS * turns, "<i2"),
                "offsets": offsets[inner].round(4).tolist(),
            }
        )
    order = np.argsort(surface.groups, kind="stable")
    rig = {
        "parents": [inner.index(skeleton.parents[j]) if j else -1 for j in inner],
        "owners": _packed(np.array(bone_of)[surface.joints], "u1"),
        "shares": _packed(255 * surface.shares, "u1"),
        "triangles": _packed(surface.triangles[order], "<u2"),
        "groups": (3 * np.bincount(surface.groups)).tolist(),
    }
    return rig, bodies


def _packed(array, kind):
    """Numbers, rounded, as base64 of little-endian integers."""
    return base64.b64encode(np.rint(array).astype(kind).tobytes()).decode()


def quantise(motion):
    """[T,J,3] in metres -> {"unit": metres a step, "positions": base64 of little-endian int16}."""
    unit = max(FINEST, float(np.abs(motion).max()) / STEPS)
    return {
        "unit": unit,
        "positions": _packed(motion / unit, "<i2"),
    }


def safe_json(value):
    """JSON that can stand inside <script>: without < > & no markup can begin or end in it. ASCII only."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def fill(template, **parts):
    """Replace {{name}} by parts[name] in one pass, so that a {{name}} inside a part is left alone."""
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


def _with_hash(name, *files):
    """Assets, joined, and the hash by which the page's content policy knows them."""
    text = "\n".join((ASSETS / file).read_text(encoding="utf-8") for file in files)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {name: text, f"{name}_hash": f"sha256-{digest}"}
