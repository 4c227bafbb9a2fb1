"""Files of a run: their paths, saving them whole or not at all, and references to the weights they need.

Layout and keys follow MARDM (`ae` or `mardm`, `ema_mardm`; `opt_*`, `scheduler`, `ep`, `total_it`), plus
`config`, `format`, `best`, `mean`, `std`, `target_stats`. A file without `format` is MARDM's: padding
is not masked, there are no target statistics, and `ep` counts from 0.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from motion.files import atomic_file
from utils.errors import BadInput

FORMAT = 1
CHECKOUT = Path(__file__).resolve().parents[1] / "checkpoints"
CONSTANT = "position_enc.pe"  # tables with this name ending are constant, every model computes them


@dataclass(frozen=True)
class Run:
    """The folder of one run: checkpoints/<dataset>/<name>/."""

    root: Path

    @classmethod
    def of(cls, config, name=None):
        """The run of a RunConfig, or the run `name` beside it."""
        return cls(Path(config.checkpoints_dir) / config.dataset_name / (name or config.name))

    model = property(lambda self: self.root / "model")
    eval = property(lambda self: self.root / "eval")
    latest = property(lambda self: self.model / "latest.tar")
    previous = property(lambda self: self.model / "latest.prev.tar")
    best = property(lambda self: self.model / "net_best_fid.tar")
    finest = property(lambda self: self.model / "finest.tar")  # of evaluators and length estimators
    onestep = property(lambda self: self.model / "onestep.tar")  # a generator's one-step head
    distillation = property(lambda self: Run(self.root / "onestep"))  # in which that head is trained

    def choose(self, which, mardm="latest"):
        """The file that --checkpoint names. mardm: "latest" or "net_best_fid", for "parent". Or BadInput."""
        if which == "parent":
            which = {"latest": "latest", "net_best_fid": "best"}[mardm]
        candidates = [self.best, self.latest] if which == "best" else [getattr(self, which)]
        for file in candidates:
            if file.is_file():
                return file
        remedy = (
            "train that run first, or name another with --name or --ae_name; sample.py, edit.py, app.py and "
            "evaluation_MARDM.py have released weights: --demo"
        )
        if any(CHECKOUT.joinpath(*file.parts[-4:]).is_file() for file in candidates):  # run from elsewhere
            remedy = f"there is one in the repository: go there, or pass --checkpoints_dir '{CHECKOUT}'"
        raise BadInput(f"no checkpoint {candidates[-1]}: {remedy}")


def save_state(path, state):
    """torch.save, whole or not at all."""
    with atomic_file(path) as part, open(part, "wb") as file:
        torch.save(state, file)


def learned(state_dict):
    """A state_dict without the constant tables."""
    return {name: tensor for name, tensor in state_dict.items() if not name.endswith(CONSTANT)}


def weights_hash(state_dict):
    """sha256 over names, shapes and values of learned weights, as the loaded module holds them (float32)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(learned(state_dict).items()):
        values = tensor.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def file_and_hash(owner, weights):
    """How a checkpoint refers to the autoencoder or generator that it depends on."""
    return {
        "name": owner.path.parent.parent.name,
        "model": owner.model,
        "file": owner.path.name,
        "sha256": weights_hash(weights),
    }


def file_hash(path):
    """SHA-256 of a file, hexadecimal; None if there is none."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
