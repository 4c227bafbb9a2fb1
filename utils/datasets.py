"""Data sets in HumanML3D's layout: what a set is (`DatasetSpec`), its statistics, its clips as samples.

The layout is described in datasets/README.md, batches are made in utils/data/batches.py. A sample's index is
(epoch, clip); its random caption and crop follow from (seed, epoch, clip), never from a worker's state.
"""

import math
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from models.AE import STRIDE
from models.counter_rng import Purpose, rng
from models.LengthEstimator import MAX_FRAMES
from motion.skeletons import KIT21, SKELETONS, SMPL22, Skeleton
from utils.data.clips import MAX_ROWS
from utils.data.feature_cache import as_float32, load_array
from utils.data.set_files import expect_file, no_spec, refuse_nested, refuse_other_skeleton
from utils.errors import BadInput
from utils.motion_process import FACING_RULES, essential_dim
from utils.plain import is_number, parse_json
from utils.safe_load import MIN_STD


def whole(value):
    """The value if it is an int, else NaN, for which every comparison is false."""
    return value if type(value) is int else math.nan


@dataclass(frozen=True)
class DatasetSpec:
    """The properties of a data set: all that the code knows about it."""

    name: str  # what --dataset_name says, and the folder under checkpoints/
    folder: str  # the folder under --dataset_dir
    skeleton: Skeleton
    fps: float
    min_frames: int  # shorter clips are too short to carry a caption
    max_frames: int = MAX_ROWS
    cfg: float = 4.5  # guidance scale that suits it
    text_encoder: str = "minilm"
    mardm_ae: str = "latest"  # which checkpoint of the autoencoder MARDM reads
    facing: str = "published"  # the rule of its features' heading, one of FACING_RULES

    def __post_init__(self):
        """Raises ValueError for values that no data set can have."""
        if not (is_number(self.fps) and 0.1 <= self.fps <= 1000):
            raise ValueError(f"fps {self.fps!r}, not between 0.1 and 1000")
        if not STRIDE <= whole(self.min_frames) <= min(whole(self.max_frames), MAX_FRAMES) <= MAX_ROWS:
            raise ValueError(
                f"min_frames {self.min_frames!r}, not between {STRIDE} and max_frames {self.max_frames!r}"
            )
        if not (is_number(self.cfg) and 0 <= self.cfg <= 100):
            raise ValueError(f"cfg {self.cfg!r}, not between 0 and 100")
        if not all(isinstance(text, str) for text in (self.name, self.folder, self.text_encoder)):
            raise ValueError("its name is no text")
        if self.facing not in FACING_RULES:
            raise ValueError(f"facing {self.facing!r}, none of {', '.join(FACING_RULES)}")

    @property
    def dim(self):
        """Width of the essential feature rows that models work on: 67 for t2m, 64 for kit."""
        return essential_dim(self.skeleton)

    def as_dict(self):
        """Plain data, for a checkpoint's config."""
        return asdict(replace(self, skeleton=None)) | {"skeleton": self.skeleton.name}

    @classmethod
    def from_dict(cls, fields):
        """The inverse of `as_dict`; fields that other versions wrote are ignored."""
        known = {field.name for field in dataclass_fields(cls)}
        kept = {key: value for key, value in fields.items() if key in known}
        return cls(**{**kept, "skeleton": SKELETONS[fields["skeleton"]]})


DATASETS = {
    "t2m": DatasetSpec("t2m", "HumanML3D", SMPL22, 20.0, 40, text_encoder="clip-vit-b32"),
    "kit": DatasetSpec(
        "kit", "KIT-ML", KIT21, 12.5, 24, cfg=2.5, text_encoder="clip-vit-b32", mardm_ae="net_best_fid"
    ),
}


def find_dataset(name, dataset_dir, trained_on=None):
    """--dataset_name -> (DatasetSpec, its folder). Raises BadInput.

    trained_on: the DatasetSpec of the weights to use on it: headings and frames per second must be the same.
    """
    root = Path(dataset_dir) / (DATASETS[name].folder if name in DATASETS else name)
    if not root.is_dir():
        raise BadInput(
            f"data set {root} does not exist: see datasets/README.md, or try prepare_dataset.py demo"
        )
    refuse_nested(root)
    spec = DATASETS.get(name) or _read_spec(name, root / "spec.json")
    if trained_on and trained_on.facing != spec.facing:
        raise BadInput(
            f"{root} has {spec.facing} headings, the weights were trained on {trained_on.facing} ones: "
            f"prepare the set again with --facing {trained_on.facing}, or train anew"
        )
    if trained_on and trained_on.fps != spec.fps:
        raise BadInput(
            f"{root} has {spec.fps:g} frames per second, the weights were trained on {trained_on.fps:g}: "
            "prepare the set again at that rate (--fps of bvh; fps in motions.npz of joints), or train anew"
        )
    return spec, root


def _read_spec(name, file):
    """The DatasetSpec in a spec.json, which every set but t2m and kit has. Raises BadInput."""
    try:
        fields = parse_json(file.read_text(encoding="utf-8-sig"))
        return DatasetSpec(
            name=name,
            folder=name,
            skeleton=SKELETONS[fields["skeleton"]],
            fps=fields["fps"],
            min_frames=fields["min_frames"],
            cfg=fields.get("cfg", 2.5),
            facing=fields.get("facing", "published"),  # older sets had no choice
        )
    except FileNotFoundError:
        raise no_spec(file, {spec.folder: spec.name for spec in DATASETS.values()}) from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file} is not a data set's spec ({error!r}): prepare the set again") from None


class Normalizer:
    """z = (x - mean) / std over the essential columns. mean, std [dim] float32 tensors."""

    def __init__(self, mean, std):
        self.mean = torch.as_tensor(mean, dtype=torch.float32)
        self.std = torch.as_tensor(std, dtype=torch.float32)

    @classmethod
    def load(cls, folder, dim):
        """Mean.npy and Std.npy of a folder (or MARDM's eval_ names), cut to the first `dim` columns."""
        rows, folder = [], Path(folder)
        names = ("Mean.npy", "Std.npy")
        if not (folder / names[0]).is_file() and (folder / "eval_mean.npy").is_file():
            names = ("eval_mean.npy", "eval_std.npy")
        for file in (folder / name for name in names):
            expect_file(file)
            row = as_float32(load_array(file))
            if row.ndim != 1 or len(row) < dim or not np.isfinite(row).all():
                raise BadInput(f"{file}: expected at least {dim} finite numbers, found shape {row.shape}")
            refuse_other_skeleton(file, len(row), dim)
            rows.append(row[:dim])
        if (rows[1] < MIN_STD).any():
            raise BadInput(f"{folder / names[1]}: every entry must be positive, {MIN_STD:g} at least")
        return cls(*rows)

    def __call__(self, motion):
        mean, std = self._like(motion)
        return (motion - mean) / std

    def inverse(self, motion):
        mean, std = self._like(motion)
        return motion * std + mean

    def _like(self, motion):
        """Mean and std in the precision and on the device of `motion`, copied without waiting."""
        return (row.to(motion, non_blocking=True) for row in (self.mean, self.std))


class WindowSet(Dataset):
    """Windows of `window` frames: every window of every clip, so that long clips count most; or, if `equal`,
    as many, but the same number from each clip, at random. Shorter clips give windows of their own length.
    """

    def __init__(self, clips, normalizer, window, equal=False, seed=0):
        self.window, self.equal, self.seed = window, equal, seed
        self.names = [clip.name for clip in clips]
        self.motions, self.normalizer = [clip.motion for clip in clips], normalizer
        self.starts = [max(len(motion) - window + 1, 1) for motion in self.motions]
        self.ends = np.cumsum(self.starts)

    def __len__(self):
        return int(self.ends[-1])

    def _place(self, epoch, index):
        """-> (clip, its first frame) of a window."""
        if self.equal:
            clip = index % len(self.motions)
            return clip, int(rng(Purpose.CROP, self.seed, epoch, index).integers(self.starts[clip]))
        clip = int(np.searchsorted(self.ends, index, side="right"))
        return clip, index - (int(self.ends[clip - 1]) if clip else 0)

    def __getitem__(self, address):
        epoch, index = address
        clip, start = self._place(epoch, index)
        motion = self.motions[clip][start : start + self.window]
        rows = tensor(motion[: len(motion) // STRIDE * STRIDE])
        return self.normalizer(rows), self.names[clip], None, None, index


class TextMotionSet(Dataset):
    """Whole clips with one of their captions. With `crop`, the training draws of HumanML3D: a third of the
    clips lose one token, and the start is random; without, a clip starts at its first frame.
    """

    def __init__(self, clips, normalizer, embeddings=None, max_frames=MAX_FRAMES, crop=False, seed=0):
        self.clips, self.normalizer = clips, normalizer
        self.embeddings, self.max_frames, self.crop, self.seed = embeddings, max_frames, crop, seed

    def __len__(self):
        return len(self.clips)

    @cached_property
    def lengths(self):
        """Frames of each clip's sample [N], before the random loss of a token."""
        return np.minimum([len(clip.motion) for clip in self.clips], self.max_frames) // STRIDE * STRIDE

    @property
    def longest(self):
        """Tokens of the longest clip."""
        return int(self.lengths.max()) // STRIDE

    def __getitem__(self, address):
        epoch, index = address
        clip, motion = self.clips[index], self.clips[index].motion
        caption, draw = self._draw_caption(epoch, index)
        frames = min(len(motion), self.max_frames) // STRIDE * STRIDE
        start = 0
        if self.crop:
            frames = max(frames - STRIDE * int(draw.random() < 1 / 3), STRIDE)
            start = int(draw.integers(len(motion) - frames + 1))
        text = None if self.embeddings is None else self.embeddings[caption.text]
        return self.normalizer(tensor(motion[start : start + frames])), clip.name, caption, text, index

    def caption(self, epoch, index):
        """The caption of `self[epoch, index]`, without its motion."""
        return self._draw_caption(epoch, index)[0]

    def _draw_caption(self, epoch, index):
        """-> a caption of the clip, the generator of what else it draws"""
        draw, captions = rng(Purpose.CROP, self.seed, epoch, index), self.clips[index].captions
        return captions[draw.integers(len(captions))], draw


def tensor(rows):
    """NumPy rows, which may be a read-only memory map -> a tensor with a copy of them."""
    return torch.from_numpy(np.array(rows))
