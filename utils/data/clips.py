"""Read a split's clips with their captions. Clips that cannot be used are skipped and reported."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.AE import STRIDE
from utils.data.feature_cache import read_clips
from utils.data.set_files import expect_file
from utils.errors import BadInput
from utils.plain import read_utf8

MAX_ROWS = 199  # rows of the longest clip that HumanML3D keeps
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Caption:
    text: str
    tokens: tuple[str, ...]  # word/POS


@dataclass(frozen=True)
class Clip:
    name: str
    motion: np.ndarray  # [T,dim] float32, not normalised
    captions: tuple[Caption, ...] = ()


def parse_caption(line):
    """`caption#word/POS word/POS#start#end` -> (Caption, start, end) in seconds; nan or 0.0 for both means
    the whole clip. Raises ValueError.
    """
    text, tokens, start, end = line.strip().split("#")
    start, end = (0.0 if math.isnan(float(x)) else float(x) for x in (start, end))
    if not text or any("/" not in token for token in tokens.split()) or not 0 <= start <= end < math.inf:
        raise ValueError("not caption#word/POS ...#start#end")
    return Caption(text.strip(), tuple(tokens.split())), start, end


def first(names, count=5):
    """The first few of a list of names, for a message."""
    return ", ".join(map(str, names[:count])) + (", ..." if len(names) > count else "")


class Skipped:
    """Names of what was left out of a data set, by reason."""

    def __init__(self):
        self.names = defaultdict(list)

    def add(self, reason, name):
        self.names[reason].append(name)

    def report(self, where):
        for reason, names in self.names.items():
            print(f"{where}: skipped {len(names)}, {reason}: {first(names)}")


def read_split(root, split):
    """The ids of <root>/<split>.txt, in order, each once. Raises BadInput."""
    file = Path(root) / f"{split}.txt"
    expect_file(file)
    ids = read_utf8(file).split()
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        print(f"{file}: {len(twice)} ids stand there more than once and count once: {', '.join(twice[:5])}")
    return list(dict.fromkeys(ids))


def load_clips(spec, root, split, texts=True):
    """The usable clips of a split, in the order of its file. Skips are printed with their reasons.

    With texts: clips of min_frames..max_frames that have a caption; a caption with its own start and end
    makes a clip of its own. Without: every clip of at least one token. Raises BadInput where none is left.
    """
    skipped, clips = Skipped(), []
    ids = read_split(root, split)
    for name, files in read_clips(root, split, ids, spec.dim).items() if ids else ():
        if files.problem:
            skipped.add(files.problem, name)
        elif texts:
            clips += _captioned(spec, name, files, skipped)
        elif len(files.motion) < STRIDE:
            skipped.add(f"shorter than {STRIDE} frames", name)
        else:
            clips.append(Clip(name, files.motion))
    skipped.report(f"{root}/{split}.txt")
    if not clips:
        trouble = f"none of its {len(ids)} clips can be used" if ids else "it is empty"
        raise BadInput(f"{root}/{split}.txt: {trouble}")
    return clips


def _captioned(spec, name, files, skipped):
    """One clip for the captions of the whole motion, and one for each caption with its own start and end."""
    if files.text is None:
        skipped.add("no readable text", name)
        return []
    lines = [line for line in files.text.splitlines() if line.strip()]
    whole, parts = [], []
    for number, line in enumerate(lines, start=1):
        try:
            caption, start, end = parse_caption(line)
        except ValueError:
            skipped.add(
                "malformed text line (expected caption#word/POS ...#start#end)", f"{name}.txt:{number}"
            )
            continue
        if end == 0:
            whole.append(caption)
        else:
            frames = files.motion[int(start * spec.fps) : int(end * spec.fps)]
            parts.append(Clip(f"{name}_{number}", frames, (caption,)))
    candidates = ([Clip(name, files.motion, tuple(whole))] if whole else []) + parts
    if not candidates:
        skipped.add("no usable caption", name)
    kept = []
    for clip in candidates:
        if spec.min_frames <= len(clip.motion) <= spec.max_frames:
            kept.append(clip)
        else:
            skipped.add(f"not {spec.min_frames} to {spec.max_frames} frames long", clip.name)
    return kept
