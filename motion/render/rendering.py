"""Draw motions as mp4, gif or contact sheet. Left limbs are blue, right limbs orange, trunk and head grey.

Own perspective projection onto flat Matplotlib artists, which are made once and updated in place; only they
are drawn per frame, and the raw frames go straight into FFmpeg. No pyplot, no global state.
"""

import contextlib
import subprocess
import tempfile
import warnings
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imsave

from motion.captions import wrap_caption
from motion.files import atomic_file
from motion.render.camera import fit_camera
from motion.render.figure import (
    HEAD_SIZE,
    LEFT,
    MIDDLE,
    NOSE_SIZE,
    RIGHT,
    TRUNK_SIZE,
    bones,
    faces,
    in_metres,
)
from motion.skeletons import SMPL22

SIDE_COLOURS = ("#4a4f57", "#2166c4", "#e0701a")  # middle, left, right
PAPER, FLOOR, SHADOW, PATH, INK = "#f7f7f5", "#9aa0a6", "#c9ccd0", "#2a9d6f", "#202124"
PANEL = 512  # pixels
BLOCK = 16  # sides are multiples of it, as video encoders like it
LINE, LETTER = 17, 7.4  # pixels: from one line of the caption to the next, from one letter to the next
MAX_COLUMNS = 4
PATH_STEPS = 500  # of the root's path, drawn before and after a frame, so that all frames cost alike
CELL = 0.5  # metres between two floor lines
EDGE = 3.0  # pixels of paper around each limb, so that crossing limbs stay apart
DPI = 72  # one point is one pixel
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Source Han Sans SC", "PingFang SC")
CJK_FONTS += ("Microsoft YaHei", "SimHei", "Arial Unicode MS")


def render_video(path, motions, skeleton=SMPL22, fps=20, caption="", titles=None, panel=PANEL):
    """Write .mp4 or .gif (by the suffix of `path`). motions: one [T,J,3] or a list, side by side.

    A motion that ends before the longest keeps its last pose, faded. Returns the path.
    """
    path = Path(path)
    if path.suffix.lower() not in VIDEO_OPTIONS:
        raise ValueError(f"{path.name}: videos are written as {' or '.join(VIDEO_OPTIONS)}")
    motions = in_metres(motions, skeleton)
    camera, targets = fit_camera(motions, fps)
    titles = titles or [""] * len(motions)
    columns = min(len(motions), MAX_COLUMNS)
    canvas, axes = _page(len(motions), columns, panel, caption, titles)
    actors = [_Actor(ax, *scene, camera, skeleton) for ax, *scene in zip(axes, motions, targets)]
    width, height = canvas.get_width_height()
    clock = canvas.figure.text(10 / width, 8 / height, "", animated=True, **_font(13))
    n_frames = max(len(motion) for motion in motions)
    with atomic_file(path) as part, _text_without_glyph_warnings():
        canvas.draw()
        empty = canvas.copy_from_bbox(canvas.figure.bbox)
        with _ffmpeg(part, (width, height), fps) as send:
            for t in range(n_frames):
                canvas.restore_region(empty)
                for actor in actors:
                    actor.draw(t)
                clock.set_text(f"frame {t + 1}/{n_frames}   {t / fps:5.2f} s")
                canvas.figure.draw_artist(clock)
                send(canvas.buffer_rgba())
    return path


def contact_sheet(path, motions, skeleton=SMPL22, fps=20, titles=None, n_frames=8, panel=256):
    """Write one picture: a row per motion, `n_frames` moments spread over its length. Returns the path.

    titles: a line for each row, above its first moment.
    """
    path = Path(path)
    motions = in_metres(motions, skeleton)
    camera, targets = fit_camera(motions, fps)
    moments = [np.linspace(0, len(motion) - 1, n_frames).round().astype(int) for motion in motions]
    of_rows = [text for title in titles or [""] * len(motions) for text in (title, *[""] * (n_frames - 1))]
    canvas, axes = _page(len(of_rows), n_frames, panel, "", of_rows, title_width=n_frames * panel)
    with atomic_file(path) as part, _text_without_glyph_warnings():
        canvas.draw()
        for i, ax in enumerate(axes):
            row, column = divmod(i, n_frames)
            t = moments[row][column]
            ax.draw_artist(ax.text(0.02, 0.03, f"{t / fps:.2f} s", transform=ax.transAxes, **_font(13)))
            _Actor(ax, motions[row], targets[row], camera, skeleton).draw(t)
        imsave(part, np.asarray(canvas.buffer_rgba()))
    return path


class _Actor:
    """One person in one panel: floor, path, shadow, body; the artists live as long as the picture."""

    def __init__(self, ax, motion, target, camera, skeleton):
        self.ax, self.motion, self.target, self.camera = ax, motion, target, camera
        self.pixels = ax.bbox.height / 2  # of one unit of the picture
        self.bones, sides, sizes = bones(skeleton)
        self.sizes = np.r_[sizes, HEAD_SIZE, NOSE_SIZE]  # head and nose come last
        self.colours = np.array([to_rgb(SIDE_COLOURS[side]) for side in [*sides, MIDDLE]] + [to_rgb(INK)])
        self.outlined = self.sizes != TRUNK_SIZE  # the spine is one piece
        self.face = faces(motion, skeleton)
        self.head, self.neck = skeleton.head, skeleton.parents[skeleton.head]
        self.floor, self.future, self.past, self.shadow, self.body = (
            ax.add_collection(LineCollection([], capstyle="round", animated=True), autolim=False)
            for _ in range(5)
        )
        self.floor.set(colors=FLOOR, linewidths=1)
        self.future.set(colors=PATH, alpha=0.3, linewidths=2, capstyle="butt")
        self.past.set(colors=PATH, linewidths=2.5)
        self.shadow.set(colors=SHADOW)
        # Else Agg snaps both ends of an upright or level part to one pixel, and the ball of the head is gone.
        self.body.set(snap=False)

    def draw(self, t):
        """Frame t, or the last pose, faded, where the motion is over by then."""
        ended, t = t >= len(self.motion), min(t, len(self.motion) - 1)
        self._set_floor(self.target[t])
        self._set_path(t)
        self._set_body(t, fade=0.65 if ended else 0.0)
        for artist in (self.floor, self.shadow, self.future, self.past, self.body):
            self.ax.draw_artist(artist)

    def _set_floor(self, target):
        """A grid that stays where it is in the world and fades out with the distance from the target."""
        lines, alpha = _floor_lines(target, radius=min(12, max(2.5, 2.2 * self.camera.span)))
        picture, scale = self.camera.project(lines, target)
        visible = (scale > 0).all(axis=1)
        self.floor.set_segments(picture[visible])
        self.floor.set_alpha(alpha[visible])

    def _set_path(self, t):
        """Where the root has been (strong) and will be (faint), laid on the floor."""
        first = max(t - PATH_STEPS, 0)
        ground = self.motion[first : t + PATH_STEPS + 1, 0] * (1, 0, 1)
        picture, scale = self.camera.project(ground, self.target[t])
        steps = np.stack([picture[:-1], picture[1:]], axis=1)
        visible = (scale[:-1] > 0) & (scale[1:] > 0)
        now = t - first
        self.past.set_segments(steps[:now][visible[:now]])
        self.future.set_segments(steps[now:][visible[now:]])

    def _set_body(self, t, fade):
        joints, target = self.motion[t], self.target[t]
        parts = np.concatenate([joints[self.bones], self._head_parts(joints, self.face[t])])  # [P,2,3]
        picture, scale = self.camera.project(parts, target)
        scale = scale.mean(axis=1)
        widths = self.sizes * scale * self.pixels
        self.shadow.set_segments(self.camera.project(parts[:-1] * (1, 0, 1), target)[0])
        self.shadow.set_linewidths(0.8 * widths[:-1])
        # Far parts first; under each a wider one in the colour of the paper, which cuts what lies behind it.
        order = np.repeat(np.argsort(scale), 2)
        edge = np.tile([True, False], len(parts))
        colours = np.where(edge[:, None], to_rgb(PAPER), self.colours[order])
        self.body.set_segments(picture[order])
        self.body.set_linewidths(np.where(edge, self.outlined[order] * (widths[order] + EDGE), widths[order]))
        self.body.set_colors(colours + fade * (np.array(to_rgb(PAPER)) - colours))

    def _head_parts(self, joints, face):
        """A ball over the neck and a nose that points where the person faces -> [2,2,3]."""
        up = joints[self.head] - joints[self.neck]
        ball = joints[self.head] + 0.04 * up / max(np.linalg.norm(up), 1e-6)
        nose = ball + 0.5 * HEAD_SIZE * face
        return np.stack([np.stack([ball, ball + 1e-4]), np.stack([nose, nose + 0.04 * face])])


def _floor_lines(target, radius):
    """Pieces of the floor grid within `radius` metres of the target -> segments [N,2,3], alpha [N]."""
    reach = int(np.ceil(radius / CELL))
    ticks = CELL * np.arange(-reach, reach + 1)
    centre = CELL * np.round(target[[0, 2]] / CELL)
    across, along = np.meshgrid(ticks, ticks[:-1], indexing="ij")
    pieces = np.zeros((2, across.size, 2, 3))
    pieces[0, :, :, 0], pieces[1, :, :, 2] = across.reshape(-1, 1), across.reshape(-1, 1)
    pieces[0, :, :, 2] = pieces[1, :, :, 0] = along.reshape(-1, 1) + (0, CELL)
    pieces[..., [0, 2]] += centre
    pieces = pieces.reshape(-1, 2, 3)
    away = np.linalg.norm(pieces.mean(axis=1)[:, [0, 2]] - target[[0, 2]], axis=1)
    alpha = 0.8 * np.clip(1 - away / radius, 0, 1)
    return pieces[alpha > 0.02], alpha[alpha > 0.02]


def _page(n_panels, columns, panel, caption, titles, title_width=None):
    """A caption above empty panels in rows -> canvas, list of axes. The sides are even, as yuv420p needs.

    title_width: pixels for the title of a panel, if not the panel's.
    """
    panel = BLOCK * max(1, round(panel / BLOCK))
    rows = -(-n_panels // columns)
    lines = wrap_caption(caption, (panel * columns - 20) / LETTER)
    header = BLOCK * -(-(LINE * len(lines) + 12) // BLOCK) if lines else 0
    width, height = panel * columns, panel * rows + header
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    axes = []
    for i, title in zip(range(n_panels), titles):
        row, column = divmod(i, columns)
        bottom = height - header - panel * (row + 1)
        ax = figure.add_axes((column * panel / width, bottom / height, panel / width, panel / height))
        ax.set(xlim=(-1, 1), ylim=(-1, 1))
        ax.set_axis_off()
        title = "\n".join(wrap_caption(title, (title_width or panel) / LETTER))
        ax.text(0.02, 0.97, title, transform=ax.transAxes, va="top", **_font(13))
        axes.append(ax)
    for i, line in enumerate(lines):
        figure.text(0.5, 1 - (6 + LINE * i) / height, line, ha="center", va="top", **_font(14))
    right = 1 - 10 / width
    for x, side, label in ((right, RIGHT, "right"), (right - 40 / width, LEFT, "left")):
        figure.text(x, 8 / height, label, ha="right", **_font(13) | {"color": SIDE_COLOURS[side]})
    return canvas, axes


def _font(size):
    """Text settings; dollar signs are not read as math."""
    return {"fontsize": size, "color": INK, "fontfamily": _families(), "parse_math": False}


@lru_cache
def _families():
    """Matplotlib's own font, then an installed one for Chinese and Japanese, if there is one."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans"] + [name for name in CJK_FONTS if name in installed][:1]


@contextmanager
def _text_without_glyph_warnings():
    """A caption in a script that no installed font knows shows boxes; the video is still worth having."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


VIDEO_OPTIONS = {
    ".mp4": "-vcodec libx264 -pix_fmt yuv420p -crf 21 -preset veryfast -movflags +faststart",
    ".gif": "-vcodec gif -pix_fmt pal8 "
    "-vf split[a][b];[a]palettegen=stats_mode=full[p];[b][p]paletteuse=dither=none",
}


@contextmanager
def _ffmpeg(path, size, fps):
    """Yield a function that takes one RGBA frame; the file is complete when the block ends.

    Raises OSError where FFmpeg fails or ends early: what it leaves may look like a video.
    """
    options = f"-v error -f rawvideo -vcodec rawvideo -s {size[0]}x{size[1]} -pix_fmt rgba -r {fps:.2f} -i - "
    options += f"-an -y {VIDEO_OPTIONS[path.suffix.lower()]}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *options.split(), str(path)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
        broken = False
        try:
            yield process.stdin.write
            process.stdin.close()
        except BrokenPipeError:  # FFmpeg is ending; its messages, read below, say why
            broken = True
            process.wait()
        finally:
            if not process.stdin.closed:
                process.kill()
            code = process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        log.seek(0)
        messages = [line.rpartition("] ")[2] for line in log.read().decode(errors="replace").splitlines()]
    if code != 0 or broken:
        how = f"was ended by signal {-code}" if code < 0 else next(iter(messages), f"failed with code {code}")
        raise OSError(f"FFmpeg {how}")
