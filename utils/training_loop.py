"""The bookkeeping of a training run, so that the scripts hold only the algorithm: position, saves, scalars,
signals.

    loop = TrainingLoop(args, run, parts={"ae": ae, "opt_ae": optimizer, "scheduler": scheduler},
    constants=...) for epoch in loop.epochs():
        for batch in loop.batches(train_set, device):
            ...one step...
            loop.log(loss=loss, grad_norm=norm)
        loop.finish_epoch(metrics)

Everything random in a step follows from (seed, step), everything random in a clip from (seed, epoch, clip): a
resumed run ends with the tensors of an uninterrupted one.
"""

import math
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils.checkpoints import FORMAT, finished_epochs, load_state, save_state
from utils.cli import record
from utils.datasets import loader
from utils.errors import BadInput
from utils.train_utils import GracefulStop, RunningMean, reseed


@dataclass
class Progress:
    ep: int = 0  # finished epochs
    total_it: int = 0  # finished steps
    batch: int = 0  # finished batches of the epoch under way
    best: dict | None = None  # metrics of the best evaluation so far
    seconds: float = 0.0  # spent in steps, over all sittings


class TrainingLoop:
    """parts: name -> anything with a state_dict, the keys of latest.tar. constants: further keys, e.g.
    config.

    best_parts: the parts that net_best_fid.tar keeps (all if None).
    """

    def __init__(self, args, run, parts, constants, best_parts=None):
        self.args, self.run, self.parts = args, run, parts
        self.constants = {"format": FORMAT, **constants}
        self.best_parts = best_parts or list(parts)
        self.progress = self._restore() if args.is_continue else Progress()
        if not args.is_continue and run.latest.is_file():
            raise BadInput(
                f"{run.latest} exists: go on with --is_continue, choose another --name, or remove it"
            )
        self.means, self.stop, self.done = RunningMean(), GracefulStop(), False
        record(args, run.root)
        resumed = self.progress.total_it or None
        self.writer = SummaryWriter(run.model, purge_step=resumed and resumed + 1)

    def epochs(self):
        """Yields the numbers of the epochs still to run, from 1."""
        try:
            while self.progress.ep < self.args.epoch and not self.done:
                yield self.progress.ep + 1
        finally:
            self.writer.close()
            self.stop.restore()

    def batches(self, dataset, device):
        """The rest of the current epoch, on the device. Saves on the way, and stops where it is told to."""
        args, progress = self.args, self.progress
        if self._enough():
            self.done = True
            return
        batches = loader(
            dataset,
            args.batch_size,
            seed=args.seed,
            epoch=progress.ep,
            start=progress.batch,
            shuffle=True,
            num_workers=args.num_workers,
            pin_memory=device.type == "cuda",
        )
        total = len(batches) + progress.batch
        with tqdm(
            total=total, initial=progress.batch, desc=f"epoch {progress.ep + 1}/{args.epoch}", unit="it"
        ) as bar:
            since = time.perf_counter()
            for batch in batches:
                self.names, self.bar = batch.names, bar
                reseed(args.seed, progress.total_it)
                yield batch.to(device)
                progress.total_it += 1
                progress.batch += 1
                now = time.perf_counter()
                progress.seconds, since = progress.seconds + now - since, now
                bar.update()
                if progress.total_it % args.log_every == 0:
                    self._write_means()
                if self.stop.signal:
                    self._leave()
                if progress.total_it % args.save_every == 0:
                    self.save()
                if self._enough():
                    self.done = progress.batch < total
                    break

    def log(self, **scalars):
        """Scalars of this step: their means go to TensorBoard as Train/<name> every --log_every steps."""
        self.means.add(**scalars)

    def scalars(self, group, values):
        """Write values at the current step as <group>/<name>; None is left out."""
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(f"{group}/{name}", value, self.progress.total_it)

    def finish_epoch(self, metrics=None):
        """Close the epoch, keep the weights if `metrics` (a dict with fid) is the best so far, and save."""
        progress = self.progress
        if not self.done:
            progress.ep, progress.batch = progress.ep + 1, 0
            self.done = self._enough()
        if metrics and metrics.get("fid") is not None:
            self.scalars("Test", {"FID" if name == "fid" else name: value for name, value in metrics.items()})
            if progress.best is None or metrics["fid"] < progress.best["fid"]:
                progress.best = {**metrics, "ep": progress.ep, "total_it": progress.total_it}
                save_state(self.run.best, self._state(self.best_parts))
        self.save()

    def save(self):
        """latest.tar, whole; the one before stays as latest.prev.tar."""
        if self.run.latest.is_file():
            spare = self.run.latest.with_suffix(".spare")
            spare.unlink(missing_ok=True)
            try:
                os.link(self.run.latest, spare)
            except OSError:  # a file system without hard links
                shutil.copyfile(self.run.latest, spare)
            os.replace(spare, self.run.latest.with_name("latest.prev.tar"))
        save_state(self.run.latest, self._state(self.parts))
        self.writer.flush()

    def _state(self, names):
        return (
            {name: self.parts[name].state_dict() for name in names} | asdict(self.progress) | self.constants
        )

    def _restore(self):
        state = load_state(self.run.latest)
        if "format" not in state:
            raise BadInput(
                f"{self.run.latest} comes from the parent project: sample, edit or evaluate with it, but "
                "train anew under another --name; its optimizer counts CLIP too, its schedule is another"
            )
        missing = [name for name in self.parts if name not in state]
        if missing:
            raise BadInput(f"{self.run.latest} cannot be continued: it has no {', '.join(missing)}")
        asked, stored = self.constants.get("config", {}), state.get("config", {})
        for key in ("model", "width", "fsq_levels", "codebook_size", "text_encoder", "ae_name", "ddpm_steps"):
            if key in asked and key in stored and asked[key] != stored[key]:
                raise BadInput(f"{self.run.latest} was trained with {key} {stored[key]}, not {asked[key]}")
        for name, part in self.parts.items():
            try:
                part.load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise BadInput(
                    f"{self.run.latest}: {name} does not fit: {' '.join(str(error).split())[:200]}"
                ) from None
        self.constants |= {key: state[key] for key in ("target_stats", "mean", "std") if key in state}
        kept = {key: state[key] for key in ("total_it", "batch", "best", "seconds") if key in state}
        print(f"going on from {self.run.latest}: {finished_epochs(state)} epochs, {state['total_it']} steps")
        return Progress(ep=finished_epochs(state), **kept)

    def _enough(self):
        return 0 < self.args.max_iters <= self.progress.total_it

    def _write_means(self):
        means = self.means.pop()
        loss = means.get("loss", 0.0)
        if not math.isfinite(loss):
            kept = f"{self.run.latest} is intact" if self.run.latest.is_file() else "nothing was saved yet"
            raise BadInput(
                f"the loss is {loss} at step {self.progress.total_it} "
                f"(batch: {', '.join(self.names[:4])}, ...); {kept}; try a lower --lr"
            )
        rate = self.parts["scheduler"].get_last_lr()[0]
        self.scalars("Train", means | {"lr": rate})
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})

    def _leave(self):
        self.save()
        print(
            f"stopped by a signal at step {self.progress.total_it}, saved: go on with --is_continue",
            file=sys.stderr,
        )
        sys.exit(self.stop.exit_code)
