"""The bookkeeping of a training run, so that the scripts hold only the algorithm: position, micro-batches, saves,
scalars, signals.

    loop = TrainingLoop(args, run, device, parts={"ae": ae, "opt_ae": optimizer, "scheduler": scheduler}, ...)
    for epoch in loop.epochs():
        for micro_batches in loop.batches(train_set):
            for batch in micro_batches:
                loop.backward(*a loss's sum over the batch, and its count)
            loop.optimizer_step(optimizer)
        loop.finish_epoch(metrics)

A step is one global batch of --batch_size clips, whatever the number of processes and of --grad_accum: each
process has its share of it, cut into micro-batches, and the gradient is that of all sums over all counts.

Everything random in a step follows from (seed, step), and what a clip draws from (seed, step, clip) or, in
the loader, (seed, epoch, clip): a resumed run ends with the tensors of an uninterrupted one.
"""

import contextlib
import os
import shutil
import sys
from dataclasses import asdict, dataclass

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils import distributed
from utils.checkpoints import FORMAT, save_state
from utils.cli import record
from utils.datasets import shared_loader
from utils.errors import BadInput
from utils.safe_load import State, load_state
from utils.training.monitoring import Meter, Watch, check_room
from utils.training.train_utils import GracefulStop, RunningMean, optimizer_step, parameters_of, reseed


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

    def __init__(self, args, run, device, parts, constants, best_parts=None):
        self.args, self.run, self.device, self.parts = args, run, device, parts
        self.constants = {"format": FORMAT, **constants}
        self.best_parts = best_parts or list(parts)
        if not args.is_continue and run.latest.is_file():
            remedy = "go on with --is_continue, choose another --name, or remove it"
            distributed.on_main(refuse, f"{run.latest} exists: {remedy}")
        self.progress = self._restore() if args.is_continue else Progress()
        self.means, self.stop, self.done = RunningMean(), GracefulStop(), False
        self.watch, self.meter, self.count = Watch(), Meter(device), 0
        self.writer = None
        distributed.on_main(self._open)

    def _open(self):
        record(self.args, self.run.root)
        for leftover in self.run.model.glob(".part-*"):  # of a save that was killed
            leftover.unlink()
        resumed = self.progress.total_it or None
        self.writer = SummaryWriter(self.run.model, purge_step=resumed and resumed + 1)

    def epochs(self):
        """Yields the numbers of the epochs still to run, from 1."""
        try:
            while self.progress.ep < self.args.epoch and not self.done:
                yield self.progress.ep + 1
            if self.writer:
                self.writer.close()
        finally:
            self.stop.restore()
            if self.writer:
                with contextlib.suppress(OSError):  # left on an error, which the caller has in hand
                    self.writer.close()

    def batches(self, dataset):
        """The rest of the current epoch: for each step the micro-batches of this process, on the host. Saves on the
        way, and stops where it is told to.
        """
        args, progress = self.args, self.progress
        if self._enough():
            self.done = True
            return
        steps = shared_loader(dataset, args, self.device, progress.ep, progress.batch, shuffle=True)
        first, total = progress.batch, len(steps) + progress.batch
        title = f"epoch {progress.ep + 1}/{args.epoch}"
        with tqdm(
            total=total, initial=first, desc=title, unit="it", disable=distributed.rank() > 0
        ) as self.bar:
            for micro_batches in self.meter.waiting(steps):
                reseed(args.seed, progress.total_it, distributed.rank())
                self.names = [name for batch in micro_batches for name in batch.names]
                self.loss, self.clips = torch.zeros((), device=self.device), self._clips(dataset)
                yield micro_batches
                self.bar.update()
                self._after_step()
                if self._enough():
                    self.done = progress.batch < total
                    break

    def backward(self, loss, count, **more):
        """Gradients of a piece. loss: the sum [] over its `count` of entries; more: further sums to log."""
        loss.backward()
        self.count += count
        self.loss = self.loss + loss.detach()
        self.means.add(count, loss=loss, **more)

    def optimizer_step(self, optimizer):
        """The step itself, on the gradients of all micro-batches of all processes over all that they count."""
        distributed.pool_gradients(parameters_of(optimizer), self.count)
        norm = optimizer_step(optimizer, self.parts["scheduler"])
        self.means.add(grad_norm=norm)
        self.watch.note(self.progress.total_it + 1, self.names, self.loss, norm)
        optimizer.zero_grad(set_to_none=True)
        self.count = 0

    def scalars(self, group, values):
        """Write values at the current step as <group>/<name>; None is left out."""
        for name, value in values.items():
            if value is not None and self.writer:
                self.writer.add_scalar(f"{group}/{name}", value, self.progress.total_it)

    def finish_epoch(self, metrics=None):
        """Close the epoch, keep the weights if `metrics` (a dict with fid) is the best so far, and save."""
        progress = self.progress
        if not self.done:
            progress.ep, progress.batch = progress.ep + 1, 0
            self.done = self._enough()
        if metrics and metrics.get("fid") is not None:
            self._check()
            self.scalars("Test", {"FID" if name == "fid" else name: value for name, value in metrics.items()})
            if progress.best is None or metrics["fid"] < progress.best["fid"]:
                progress.best = {**metrics, "ep": progress.ep, "total_it": progress.total_it}
                distributed.on_main(self._write, self.run.best, self.best_parts)
        self.save()
        self.meter = Meter(self.device)  # what an epoch's end takes is no part of the next step

    def save(self):
        """latest.tar, whole; the one before stays as latest.prev.tar. Nothing that is not finite is kept."""
        self._check()
        distributed.on_main(self._save)

    def _save(self):
        if self.run.latest.is_file():
            spare = self.run.latest.with_suffix(".spare")
            spare.unlink(missing_ok=True)
            try:
                os.link(self.run.latest, spare)
            except OSError:  # a file system without hard links
                shutil.copyfile(self.run.latest, spare)
            os.replace(spare, self.run.previous)
        self._write(self.run.latest, self.parts)
        self.writer.flush()

    def _write(self, path, names):
        state = {name: self.parts[name].state_dict() for name in names}
        state |= asdict(self.progress) | self.constants
        check_room(path, state)
        save_state(path, state)

    def _after_step(self):
        args, progress = self.args, self.progress
        progress.total_it += 1
        progress.batch += 1
        progress.seconds += self.meter.lap()
        self.meter.clips += self.clips
        if progress.total_it % args.log_every == 0:
            self._write_means()
        stop = distributed.all_reduce_max(self.stop.signal or 0)
        if stop:
            self._leave(stop)
        if progress.total_it % args.save_every == 0:
            self.save()

    def _write_means(self):
        self._check()
        rate = self.parts["scheduler"].get_last_lr()[0]
        means = self.means.pop()
        self.scalars("Train", means | {"lr": rate} | self.meter.report())
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})

    def _check(self):
        """Stop at what is not finite: at the latest after --log_every steps, and before anything is saved."""
        trouble = self.watch.look()
        if trouble:
            kept = f"{self.run.latest} is intact" if self.run.latest.is_file() else "nothing was saved yet"
            distributed.on_main(refuse, f"{trouble}; {kept}; try a lower --lr")

    def _leave(self, number):
        self.save()
        where = f"at step {self.progress.total_it}, saved: go on with --is_continue"
        distributed.on_main(print, f"stopped by a signal {where}", file=sys.stderr)
        sys.exit(128 + number)

    def _clips(self, dataset):
        """In the step under way, all processes counted."""
        size = self.args.batch_size
        return min(size, len(dataset) - self.progress.batch * size)

    def _enough(self):
        return 0 < self.args.max_iters <= self.progress.total_it

    def _restore(self):
        latest, state = self.run.latest, read_back(self.run)
        checked = State(state, latest)
        if "format" not in state:
            raise BadInput(
                f"{latest} comes from MARDM: sample, edit or evaluate with it, but "
                "train anew under another --name; its optimizer counts CLIP too, its schedule is another"
            )
        missing = [name for name in self.parts if name not in state]
        if missing:
            raise BadInput(f"{latest} cannot be continued: it has no {', '.join(missing)}")
        counts = {key: checked.whole(key, 0, 10**12, 0) for key in ("ep", "total_it", "batch")}
        best = checked.numbers("best") or {}
        best = best if best.get("fid") is not None else None
        place = Progress(**counts, best=best, seconds=checked.number("seconds", 0.0))
        asked, stored = self.constants.get("config", {}), checked.part("config").fields
        for key in ("model", "width", "fsq_levels", "codebook_size", "text_encoder", "ae_name", "ddpm_steps"):
            if key in asked and key in stored and asked[key] != stored[key]:
                raise BadInput(f"{latest} was trained with {key} {stored[key]}, not {asked[key]}")
        for name, part in self.parts.items():
            try:
                part.load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise BadInput(
                    f"{latest}: {name} does not fit: {' '.join(str(error).split())[:200]}"
                ) from None
        self.constants |= {key: state[key] for key in ("target_stats", "mean", "std") if key in state}
        print(f"going on from {latest}: {place.ep} epochs, {place.total_it} steps")
        return place


def read_back(run):
    """latest.tar, every byte checked. Where it is damaged, the one before is offered if that is whole."""
    if not run.latest.is_file():
        raise BadInput(f"--is_continue: there is no {run.latest} to go on from; leave the flag out to begin")
    try:
        return load_state(run.latest)
    except BadInput as error:
        trouble = error
    try:
        step = load_state(run.previous)["total_it"]
    except (BadInput, KeyError):
        raise BadInput(f"{trouble}; there is no whole {run.previous.name} either: train anew") from None
    remedy = f"cp {run.previous} {run.latest}"
    raise BadInput(f"{trouble}; the save before it is whole (step {step}): {remedy}") from None


def refuse(reason):
    raise BadInput(reason)
