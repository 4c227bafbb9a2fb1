"""Export motions under safe, unique names."""

import itertools
import sys
import tempfile
import unicodedata
import weakref
import webbrowser
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motion.files import atomic_file
from motion.skeletons import Skeleton

NAME_BYTES = 200  # of the whole file name; common file systems stop at 255
LONGEST_SUFFIX = ".features.npy"
NAMELESS = "untitled"
SEPARATORS = "/\\"
FORBIDDEN = '<>:"|?*'
# they can disguise a name
DIRECTION_MARKS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@dataclass(frozen=True, eq=False)
class Motion:
    """A motion with the metadata that file formats need. A notebook shows it in the web viewer."""

    joints: np.ndarray  # [T,J,3] in the skeleton's unit
    caption: str
    fps: float
    skeleton: Skeleton
    features: np.ndarray | None = None  # [T,D] rows of the data set, e.g. 263 columns
    own: np.ndarray | None = None  # bool [T], frames that bones of .bvh, .glb are measured on; None: all
    closing: np.ndarray | None = None  # [1,J,3], loops only: the first pose, where the next cycle begins

    def __len__(self):
        return len(self.joints)

    def __repr__(self):
        return f"Motion({self.caption!r}, {len(self)} frames, {self.fps:g} fps, {self.skeleton.name})"

    @property
    def keys(self):
        """Joints for formats that interpolate frames: [T,J,3]; of a loop with `closing`, [T+1,J,3]."""
        return self.joints if self.closing is None else np.concatenate([self.joints, self.closing])

    @property
    def own_keys(self):
        """`own` for each frame of `keys`; bones are not measured on the closing pose."""
        return self.own if self.own is None or self.closing is None else np.append(self.own, False)

    def save(self, path):
        """Write the format that the suffix names (see FORMATS) -> Path.

        Raises ValueError for another suffix, for .features.npy where there are no features, and for joints
        that do not fit the skeleton.
        """
        path = Path(path)
        # the longest suffix that fits: .features.npy before .npy
        name = max(
            (name for name, (suffix, _) in FORMATS.items() if path.name.lower().endswith(suffix)),
            key=lambda name: len(FORMATS[name][0]),
            default=None,
        )
        if name is None:
            known = ", ".join(suffix for suffix, _ in FORMATS.values())
            raise ValueError(f"{path.name}: end the name in one of {known}")
        check_formats([name], has_features=self.features is not None)
        self.skeleton.check(self.joints)
        FORMATS[name][1](path, self)
        return path

    def show(self):
        """Play the motion: in a notebook below the cell, elsewhere in the web browser."""
        ipython = sys.modules.get("IPython")
        if ipython and hasattr(ipython.get_ipython(), "kernel"):  # IPython in a terminal has none
            ipython.display.display(self)
        else:
            folder = Path(tempfile.mkdtemp(prefix="motion_"))
            webbrowser.open(self.save(folder / "motion.html").as_uri())

    def _repr_html_(self):
        from motion.render.viewer import viewer_frame, viewer_page

        closed = self.closing is not None
        frame = viewer_frame(viewer_page(self.keys, self.caption, self.fps, self.skeleton, closed))
        return frame.replace("<iframe ", '<iframe width="100%" ', 1)


def export_motion(path_stem, motion, formats=("npy", "mp4")) -> dict:
    """Write a Motion in each of `formats` to `path_stem` + suffix -> dict format: path.

    In the order of FORMATS, whatever order was asked for: the motion is on disk before anything is drawn.
    Raises ValueError, with nothing written, for joints that do not fit the skeleton.
    """
    check_formats(formats, has_features=motion.features is not None)
    motion.skeleton.check(motion.joints)
    path_stem = Path(path_stem)
    written = {}
    for name, (suffix, write) in FORMATS.items():
        if name in formats:
            written[name] = path_stem.with_name(path_stem.name + suffix)
            write(written[name], motion)
    return written


def in_place(joints):
    """joints [T,J,3] without the root's horizontal motion, for games that move the character themselves."""
    joints = np.asarray(joints)
    return joints - (joints[:, :1] - joints[:1, :1]) * [1, 0, 1]


def check_formats(formats, has_features=True):
    """Raise ValueError for an unknown format, or for feature rows where there are none."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"unknown export format {', '.join(unknown)}: choose from {', '.join(FORMATS)}")
    if "features" in formats and not has_features:
        raise ValueError("export format features needs the feature rows of the motion, and none were given")


def _write_array(path, array):
    with atomic_file(path) as part, open(part, "wb") as file:
        np.save(file, np.asarray(array, dtype=np.float32))


# What a format needs is imported when it is written: matplotlib alone takes a second.


def _write_bvh(path, motion):
    from motion.bvh.writer import write_bvh

    write_bvh(path, motion.keys, motion.fps, motion.skeleton, motion.own_keys)


def _write_glb(path, motion):
    from motion.mannequin.gltf import write_glb

    write_glb(path, motion.keys, motion.fps, motion.caption, motion.skeleton, motion.own_keys)


def _write_html(path, motion):
    from motion.render.viewer import write_html

    closed = motion.closing is not None
    write_html(path, motion.keys, motion.caption, motion.fps, motion.skeleton, closed)


def _write_video(path, motion):
    from motion.render.rendering import render_video

    render_video(path, motion.joints, motion.skeleton, motion.fps, motion.caption)


FORMATS = {  # data before pictures
    "npy": (".npy", lambda path, motion: _write_array(path, motion.joints)),
    "features": (".features.npy", lambda path, motion: _write_array(path, motion.features)),
    "bvh": (".bvh", _write_bvh),
    "glb": (".glb", _write_glb),
    "mp4": (".mp4", _write_video),
    "gif": (".gif", _write_video),
    "html": (".html", _write_html),
}


def safe_caption(text, max_bytes=NAME_BYTES, plain=True):
    """Text as a part of a file name: no separators, control characters, leading dots or letters that the
    locale's file names lack, at most `max_bytes`.

    plain: also without a leading "-" (programs read it as an option) and what Windows, FFmpeg and scp refuse.
    """
    kept, files = [], sys.getfilesystemencoding()
    for character in text:
        if character in SEPARATORS:
            kept.append("_")
        elif unicodedata.category(character) in ("Cc", "Zl", "Zp") or not character.encode(files, "ignore"):
            kept.append(" ")
        elif character not in DIRECTION_MARKS and not (plain and character in FORBIDDEN):
            kept.append(character)
    words = " ".join("".join(kept).split()).lstrip(" .-" if plain else " .")
    words = words.encode()[:max_bytes].decode(errors="ignore")  # a character cut in the middle is dropped
    return words.rstrip(" .") or NAMELESS[:max_bytes]


def file_stem(caption, sample, repeat, length, prefix="", copy=1):
    """`<text>_sample<i>_repeat<r>_len<n>`, with room for the suffix; copy > 1 numbers the text.

    prefix: "caption:" for MARDM's names; without one the text is made plain (see `safe_caption`).
    """
    tail = (f" ({copy})" if copy > 1 else "") + f"_sample{sample}_repeat{repeat}_len{length}"
    room = NAME_BYTES - len((prefix + tail + LONGEST_SUFFIX).encode())
    return prefix + safe_caption(caption, room, plain=not prefix) + tail


class Names:
    """Unique path stems in one folder: none is given twice, none is that of a file there, in any format.

    Other processes may write into the folder too: an empty hidden file reserves a name until the next one is
    requested, by when its motion is written. One that a killed process leaves keeps its name reserved.

    Names that differ only in case or in Unicode form count as equal, as they do on Windows and macOS.
    plain: names that every system accepts; otherwise MARDM's, `<prefix>:<text>_...`.
    """

    def __init__(self, folder, prefix="caption", plain=True):
        self.folder, self.prefix = Path(folder), "" if plain else f"{prefix}:"
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        self.taken = {stem for file in files for stem in _stems(file.name)}
        self.release = None  # removes the last claim's file, at the latest when this object goes

    def stem(self, caption, sample, repeat, length):
        """Path without suffix, for `export_motion`."""
        for copy in itertools.count(1):
            name = file_stem(caption, sample, repeat, length, self.prefix, copy)
            if _key(name) not in self.taken:
                self.taken.add(_key(name))
                if self._claim(name):
                    return self.folder / name

    def _claim(self, name):
        """Reserve a name -> whether it is free, that is, no other process has taken it."""
        if self.release:
            self.release()
        claim = self.folder / f".{name}.claim"
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError:  # writing the motion will report it
            return True
        self.release = weakref.finalize(self, claim.unlink, missing_ok=True)
        return not any((self.folder / (name + suffix)).exists() for suffix, _ in FORMATS.values())


def _key(name):
    return unicodedata.normalize("NFC", name).casefold()


def _stems(name):
    """Possible stems of a file: "a.features.npy" -> "a", "a.features", and the whole name."""
    key = _key(name)
    return [key] + [key[:i] for i, character in enumerate(key) if character == "."]
