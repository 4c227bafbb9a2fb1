"""Data sets in HumanML3D's layout: what a set is (`DatasetSpec`), its clips, and batches of them.

The layout is described in datasets/README.md. Randomness has an address: a sampler hands out (epoch, index)
pairs, and whatever a clip draws (its caption, its crop) comes from (seed, epoch, clip), never from a worker's
state.
"""

import json
import math
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from motion.skeletons import KIT21, SKELETONS, SMPL22, Skeleton
from utils.errors import BadInput

UNIT = 4  # frames in one token
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetSpec:
    """All that the code ever asks of a data set."""

    name: str  # what --dataset_name says, and the folder under checkpoints/
    folder: str  # the folder under --dataset_dir
    skeleton: Skeleton
    fps: float
    min_frames: int  # shorter clips are too short to carry a caption
    max_frames: int = 199  # longer ones are left out, as HumanML3D does
    cfg: float = 4.5  # guidance scale that suits it
    text_encoder: str = "minilm"
    parent_ae: str = "latest"  # which checkpoint of the autoencoder the parent project reads

    @property
    def dim(self):
        """Width of an essential row: root yaw, xz velocity, height, then the other joints' positions."""
        return 4 + 3 * (len(self.skeleton) - 1)

    def as_dict(self):
        """Plain data, for a checkpoint's config."""
        return asdict(replace(self, skeleton=None)) | {"skeleton": self.skeleton.name}

    @classmethod
    def from_dict(cls, fields):
        return cls(**{**fields, "skeleton": SKELETONS[fields["skeleton"]]})


DATASETS = {
    "t2m": DatasetSpec("t2m", "HumanML3D", SMPL22, 20.0, 40, text_encoder="clip-vit-b32"),
    "kit": DatasetSpec(
        "kit", "KIT-ML", KIT21, 12.5, 24, cfg=2.5, text_encoder="clip-vit-b32", parent_ae="net_best_fid"
    ),
}


def find_dataset(name, dataset_dir):
    """--dataset_name -> (DatasetSpec, its folder). One's own set carries a spec.json. Raises BadInput."""
    root = Path(dataset_dir) / (DATASETS[name].folder if name in DATASETS else name)
    if not root.is_dir():
        raise BadInput(
            f"data set {root} does not exist: see datasets/README.md, or try prepare_dataset.py demo"
        )
    if name in DATASETS:
        return DATASETS[name], root
    file = root / "spec.json"
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        spec = DatasetSpec(
            name=name,
            folder=name,
            skeleton=SKELETONS[fields["skeleton"]],
            fps=float(fields["fps"]),
            min_frames=int(fields["min_frames"]),
            cfg=float(fields.get("cfg", 2.5)),
        )
    except FileNotFoundError:
        raise BadInput(f"{file} is missing: prepare the set again with prepare_dataset.py") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file} is not a data set's spec ({error!r}): prepare the set again") from None
    if not (spec.fps > 0 and spec.min_frames >= UNIT):
        raise BadInput(f"{file}: fps must be positive and min_frames at least {UNIT}")
    return spec, root


class Normalizer:
    """z = (x - mean) / std over the essential columns. mean, std [dim] float32 tensors."""

    def __init__(self, mean, std):
        self.mean = torch.as_tensor(mean, dtype=torch.float32)
        self.std = torch.as_tensor(std, dtype=torch.float32)

    @classmethod
    def load(cls, folder, dim):
        """Mean.npy and Std.npy of a folder (or the parent's eval_ names), cut to the first `dim` columns."""
        rows, folder = [], Path(folder)
        names = ("Mean.npy", "Std.npy")
        if not (folder / names[0]).is_file() and (folder / "eval_mean.npy").is_file():
            names = ("eval_mean.npy", "eval_std.npy")
        for file in (folder / name for name in names):
            row = load_array(file)
            if row.ndim != 1 or len(row) < dim or not np.isfinite(row).all():
                raise BadInput(f"{file}: expected at least {dim} finite numbers, found shape {row.shape}")
            rows.append(row[:dim])
        if (rows[1] <= 0).any():
            raise BadInput(f"{folder / names[1]}: every entry must be positive")
        return cls(*rows)

    def __call__(self, motion):
        return (motion - self.mean.to(motion)) / self.std.to(motion)

    def inverse(self, motion):
        return motion * self.std.to(motion) + self.mean.to(motion)


def load_array(file):
    """np.load of a plain numeric array, BadInput in every other case (never unpickles)."""
    try:
        array = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist") from None
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(f"{file} is not a readable .npy array: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise BadInput(f"{file} holds no plain numeric array")
    return array


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
    """`caption#word/POS word/POS#start#end` -> (Caption, start, end) in seconds; nan and 0.0 mean the whole
    clip.
    """
    text, tokens, start, end = line.strip().split("#")
    start, end = (0.0 if math.isnan(float(x)) else float(x) for x in (start, end))
    if not text or any("/" not in token for token in tokens.split()) or start < 0 or end < start:
        raise ValueError("not caption#word/POS ...#start#end")
    return Caption(text.strip(), tuple(tokens.split())), start, end


class Skipped:
    """What was left out of a data set, and why. Nothing vanishes without a line."""

    def __init__(self):
        self.names = defaultdict(list)

    def add(self, reason, name):
        self.names[reason].append(name)

    def report(self, where):
        for reason, names in self.names.items():
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            print(f"{where}: skipped {len(names)}, {reason}: {shown}")


def read_split(root, split):
    """The ids of a split file, in order, each once."""
    file = Path(root) / f"{split}.txt"
    try:
        ids = file.read_text(encoding="utf-8-sig").split()
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist: a data set needs train.txt, val.txt and test.txt") from None
    except UnicodeDecodeError:
        raise BadInput(f"{file} is not a text file in UTF-8") from None
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        print(f"{file}: {len(twice)} ids stand there more than once and count once: {', '.join(twice[:5])}")
    return list(dict.fromkeys(ids))


def load_clips(spec, root, split, texts=True):
    """The usable clips of a split, in the order of its file. Skips are printed with their reasons.

    With texts: clips of min_frames..max_frames that have a caption; a caption with its own start and end
    makes a clip of its own. Without: every clip of at least one token.
    """
    skipped, clips = Skipped(), []
    ids = read_split(root, split)
    for name in tqdm(ids, desc=f"{spec.name} {split}", unit="clip", leave=False, disable=len(ids) < 500):
        motion = _load_motion(spec, Path(root) / "new_joint_vecs" / f"{name}.npy", skipped)
        if motion is None:
            continue
        if not texts:
            if len(motion) < UNIT:
                skipped.add(f"shorter than {UNIT} frames", name)
            else:
                clips.append(Clip(name, motion))
            continue
        clips += _captioned(spec, name, motion, Path(root) / "texts" / f"{name}.txt", skipped)
    skipped.report(f"{root}/{split}.txt")
    if not clips:
        raise BadInput(f"{root}/{split}.txt: none of its {len(ids)} clips can be used")
    return clips


def _load_motion(spec, file, skipped):
    try:
        motion = load_array(file)
    except BadInput as error:
        skipped.add(f"unreadable ({str(error).removeprefix(str(file)).strip()})", file.stem)
        return None
    if motion.ndim != 2 or motion.shape[1] < spec.dim:
        skipped.add(f"wrong width (at least {spec.dim} columns are needed)", file.stem)
    elif not np.isfinite(motion[:, : spec.dim]).all():
        skipped.add("NaN or infinite values", file.stem)
    else:
        return np.ascontiguousarray(motion[:, : spec.dim], dtype=np.float32)
    return None


def _captioned(spec, name, motion, file, skipped):
    """One clip for the captions of the whole motion, and one for each caption with its own start and end."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (FileNotFoundError, UnicodeDecodeError) as error:
        skipped.add(f"no readable text ({type(error).__name__})", name)
        return []
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
            frames = motion[int(start * spec.fps) : int(end * spec.fps)]
            parts.append(Clip(f"{name}_{number}", frames, (caption,)))
    candidates = ([Clip(name, motion, tuple(whole))] if whole else []) + parts
    if not candidates:
        skipped.add("no usable caption", name)
    kept = []
    for clip in candidates:
        if spec.min_frames <= len(clip.motion) <= spec.max_frames:
            kept.append(clip)
        else:
            skipped.add(f"not {spec.min_frames} to {spec.max_frames} frames long", clip.name)
    return kept


@dataclass
class Batch:
    """motion [B,T,dim] z-normalised, zero past each end; m_lens [B] frames; text [B,E] or None; B strings."""

    motion: torch.Tensor
    m_lens: torch.Tensor
    names: list
    captions: list
    tokens: list
    text: torch.Tensor | None

    def __len__(self):
        return len(self.names)

    def to(self, device):
        moved = {key: getattr(self, key) for key in ("motion", "m_lens", "text")}
        return replace(
            self, **{key: x.to(device, non_blocking=True) for key, x in moved.items() if x is not None}
        )


def collate(samples):
    """(motion [T_i,dim], name, caption, text [E] or None) x B -> Batch, padded to the longest."""
    motions, names, captions, texts = zip(*samples)
    return Batch(
        motion=torch.nn.utils.rnn.pad_sequence(motions, batch_first=True),
        m_lens=torch.tensor([len(motion) for motion in motions]),
        names=list(names),
        captions=[caption.text if caption else "" for caption in captions],
        tokens=[list(caption.tokens) if caption else [] for caption in captions],
        text=None if texts[0] is None else torch.stack(texts),
    )


class WindowSet(Dataset):
    """Every window of `window` frames of every clip; a shorter clip gives one, of its own length."""

    def __init__(self, clips, normalizer, window):
        self.window = window
        self.names = [clip.name for clip in clips]
        self.motions = [normalizer(torch.from_numpy(clip.motion)) for clip in clips]
        self.ends = np.cumsum([max(len(motion) - window + 1, 1) for motion in self.motions])

    def __len__(self):
        return int(self.ends[-1])

    def __getitem__(self, address):
        _, index = address
        clip = int(np.searchsorted(self.ends, index, side="right"))
        start = index - (int(self.ends[clip - 1]) if clip else 0)
        motion = self.motions[clip][start : start + self.window]
        return motion[: len(motion) // UNIT * UNIT], self.names[clip], None, None


class TextMotionSet(Dataset):
    """Whole clips with one of their captions. With `crop`, the training draws of HumanML3D: a third of the
    clips
    lose one more token, and the start is anywhere; without, a clip starts at its first frame."""

    def __init__(self, clips, normalizer, embeddings=None, max_frames=196, crop=False, seed=0):
        self.clips = clips
        self.motions = [normalizer(torch.from_numpy(clip.motion)) for clip in clips]
        self.embeddings, self.max_frames, self.crop, self.seed = embeddings, max_frames, crop, seed

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, address):
        epoch, index = address
        clip, motion = self.clips[index], self.motions[index]
        draw = np.random.default_rng((self.seed, epoch, index))
        caption = clip.captions[draw.integers(len(clip.captions))]
        frames = min(len(motion), self.max_frames) // UNIT * UNIT
        start = 0
        if self.crop:
            frames = max(frames - UNIT * int(draw.random() < 1 / 3), UNIT)
            start = int(draw.integers(len(motion) - frames + 1))
        text = None if self.embeddings is None else self.embeddings[caption.text]
        return motion[start : start + frames], clip.name, caption, text


class AddressedBatches(Sampler):
    """Batches of (epoch, index) pairs, shuffled by (seed, epoch), from batch `start` on. A sampler to resume
    with.
    """

    def __init__(self, n, batch_size, seed, epoch=0, start=0, shuffle=True):
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.epoch, self.start, self.shuffle = epoch, start, shuffle

    def __len__(self):
        return math.ceil(self.n / self.batch_size) - self.start

    def __iter__(self):
        order = (
            np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
            if self.shuffle
            else range(self.n)
        )
        for first in range(self.start * self.batch_size, self.n, self.batch_size):
            yield [(self.epoch, int(i)) for i in order[first : first + self.batch_size]]


def loader(dataset, batch_size, seed=0, epoch=0, start=0, shuffle=False, num_workers=0, pin_memory=False):
    """The batches of one epoch; every clip counts, the last batch may be smaller."""
    batches = AddressedBatches(len(dataset), batch_size, seed, epoch, start, shuffle)
    return DataLoader(
        dataset, batch_sampler=batches, collate_fn=collate, num_workers=num_workers, pin_memory=pin_memory
    )
