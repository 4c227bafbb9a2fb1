"""The bookkeeping of a training run, so that scripts hold only the algorithm: progress, micro-batches, saves,
scalars, signals.

    loop = TrainingLoop(training, loading, run, device, parts={"ae": ae, "opt_ae": optimizer, ...}, ...)
    for epoch in loop.epochs():
        for micro_batches in loop.batches(train_set):
            for batch in micro_batches:
                loop.backward(*a loss's sum over the batch, and its count)
            loop.optimizer_step(optimizer)
        loop.finish_epoch(metrics)

A step is one global batch of `loading.batch_size` clips, whatever the number of processes and of grad_accum.
Each process has its share, cut into micro-batches; the gradient is that of total loss / total count.

All randomness of a step follows from (seed, step), that of a clip from (seed, step, clip) or, in the loader,
(seed, epoch, clip): a resumed run ends with the same tensors as an uninterrupted one.
"""

import contextlib
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils import distributed
from utils.cli import write_opt_json
from utils.data.batches import shared_loader
from utils.errors import BadInput
from utils.randomness import reseed
from utils.runs import FORMAT, file_hash, save_state
from utils.safe_load import State, load_state
from utils.training.monitoring import Meter, Watch
from utils.training.resuming import read_back, refuse_other_settings
from utils.training.train_utils import GracefulStop, RunningMean, optimizer_step, parameters_of


@dataclass
class Progress:
    ep: int = 0  # finished epochs
    total_it: int = 0  # finished steps
    batch: int = 0  # finished batches of the current epoch
    best: dict | None = None  # metrics of the best evaluation so far
    seconds: float = 0.0  # spent in steps, before and after interruptions


@dataclass(frozen=True)
class Best:
    """Which weights a run keeps besides the latest: those with the lowest (or highest) `metric`."""

    parts: tuple  # names of the loop's parts that the file holds
    file: str = "net_best_fid.tar"
    metric: str = "fid"
    highest: bool = False

    def better(self, metrics, best):
        if best is None:
            return True
        new, old = metrics[self.metric], best[self.metric]
        return new > old if self.highest else new < old


class TrainingLoop:
    """training: TrainingConfig; loading: LoaderConfig; run: Run, its folder.

    parts: {key in latest.tar: anything with a state_dict}; one is called "scheduler". constants: further keys
    of the files, among them config, plain data that must not change in a resumed run.
    """

    def __init__(self, training, loading, run, device, parts, constants, best):
        self.training, self.loading, self.run, self.device = training, loading, run, device
        self.parts, self.best, self.constants = parts, best, {"format": FORMAT, **constants}
        if not training.is_continue:
            for file in filter(Path.is_file, (run.latest, run.model / best.file)):
                if file.parent == run.model:  # a distillation may replace its teacher's file
                    remedy = "choose another name" if file == run.best else "keep it"
                    remedy = "go on with --is_continue" if file == run.latest else remedy
                    remedy = f"{file} exists: {remedy}, or remove {run.root} to train anew"
                    distributed.on_main(raise_bad_input, remedy)
            self.constants["replaces"] = file_hash(run.model / best.file)
        self.progress = self._restore() if training.is_continue else Progress()
        self.saved = self.progress.total_it
        self.means, self.stop, self.done = RunningMean(), GracefulStop(), False
        self.watch, self.meter, self.count = Watch(), Meter(device), 0
        self.writer = None
        distributed.on_main(self._open)

    def _open(self):
        write_opt_json(self.constants.get("config", {}), self.run.root, resumed=self.training.is_continue)
        for leftover in self.run.model.glob(".part-*"):  # of a save that was killed
            leftover.unlink()
        # drop points that a killed attempt wrote after its last save
        self.writer = SummaryWriter(self.run.model, purge_step=self.progress.total_it + 1)

    def epochs(self):
        """Yields the numbers of the epochs still to run, from 1."""
        try:
            while self.progress.ep < self.training.epoch and not self.done:
                yield self.progress.ep + 1
            if self.writer:
                self.writer.close()
        finally:
            self.stop.restore()
            if self.writer:
                with contextlib.suppress(OSError):  # on the way out by another error
                    self.writer.close()

    @property
    def last(self):
        """Whether no epoch follows the one whose batches have just ended."""
        return self.done or self._enough() or self.progress.ep + 1 >= self.training.epoch

    def batches(self, dataset):
        """The rest of the current epoch: for each step the micro-batches of this process, on the host. Saves
        in between; stops at max_iters or a signal.
        """
        progress, seed = self.progress, self.loading.seed
        if self._enough():
            self.done = progress.batch < self.loading.steps(dataset)
            return
        steps = shared_loader(dataset, self.loading, self.device, progress.ep, progress.batch, shuffle=True)
        first, total = progress.batch, len(steps) + progress.batch
        title = f"epoch {progress.ep + 1}/{self.training.epoch}"
        with tqdm(
            total=total, initial=first, desc=title, unit="it", disable=distributed.rank() > 0
        ) as self.bar:
            for micro_batches in self.meter.waiting(steps):
                reseed(seed, progress.total_it, distributed.rank())
                self.names = [name for batch in micro_batches for name in batch.names]
                self.loss, self.clips = torch.zeros((), device=self.device), self._clips(dataset)
                yield micro_batches
                self.bar.update()
                self._after_step()
                if self._enough():
                    self.done = progress.batch < total
                    break
        self.check()  # before what follows an epoch: validation of weights that are not finite

    def backward(self, loss, count, **more):
        """Add a micro-batch's gradients. loss: the sum [] over its `count` entries; more: sums to log."""
        loss.backward()
        self.count += count
        self.loss = self.loss + loss.detach()
        self.means.add(count, loss=loss, **more)

    def optimizer_step(self, optimizer):
        """One step, on the gradients of all micro-batches of all processes divided by their total count."""
        distributed.pool_gradients(parameters_of(optimizer), self.count)
        norm = optimizer_step(optimizer, self.parts["scheduler"], self.training.clip_norm)
        self.means.add(grad_norm=norm)
        self.watch.note(self.progress.total_it + 1, self.names, self.loss, norm)
        optimizer.zero_grad(set_to_none=True)
        self.count = 0

    def scalars(self, group, values):
        """Write values at the current step as <group>/<name>; None is left out."""
        for name, value in values.items():
            if value is not None and self.writer:
                title = "FID" if name == "fid" else name
                self.writer.add_scalar(f"{group}/{title}", value, self.progress.total_it)

    def finish_epoch(self, metrics=None, group="Test"):
        """Close the epoch; keep the weights if `metrics` (a dict) are the best so far; save the last epoch.

        Other epochs wait for `save_every`: XL is 4.6 GB a save, and resuming is exact within an epoch.
        """
        progress = self.progress
        if not self.done:
            progress.ep, progress.batch = progress.ep + 1, 0
            self.done = self._enough()
        if metrics and metrics.get(self.best.metric) is not None:
            self.check()
            self.scalars(group, metrics)
            if self.best.better(metrics, progress.best):
                if not self.saved:  # without latest.tar they would look like another run's
                    self.save()
                progress.best = {**metrics, "ep": progress.ep, "total_it": progress.total_it}
                distributed.on_main(self._write, self.run.model / self.best.file, self.best.parts)
        if self.done or progress.ep >= self.training.epoch or self._due():
            self.save()
        self.meter = Meter(self.device)  # the time of an epoch's end does not count for the next step

    def save(self):
        """Write latest.tar, and keep the previous one as latest.prev.tar. Stops if a loss is not finite."""
        self.check()
        distributed.on_main(self._save)
        self.saved = self.progress.total_it

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
        save_state(path, state | asdict(self.progress) | self.constants)

    def _after_step(self):
        progress = self.progress
        progress.total_it += 1
        progress.batch += 1
        progress.seconds += self.meter.lap()
        self.meter.clips += self.clips
        if progress.total_it % self.training.log_every == 0:
            self._write_means()
        stop = distributed.all_reduce_max(self.stop.signal or 0)
        if stop:
            self._leave(stop)
        if self._due():
            self.save()

    def _write_means(self):
        self.check()
        rate = self.parts["scheduler"].get_last_lr()[0]
        means = self.means.pop()
        self.scalars("Train", means | {"lr": rate} | self.meter.report())
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})

    def check(self):
        """Stop if a loss or gradient is not finite; called every --log_every steps, before every save and at
        the end of an epoch.
        """
        trouble = self.watch.look()
        if trouble:
            kept = f"{self.run.latest} is intact" if self.run.latest.is_file() else "nothing was saved yet"
            distributed.on_main(raise_bad_input, f"{trouble}; {kept}; try a lower --lr")

    def _leave(self, number):
        self.save()
        where = f"at step {self.progress.total_it}, saved: go on with --is_continue"
        distributed.on_main(tqdm.write, f"stopped by a signal {where}", file=sys.stderr)  # beside the bar
        sys.exit(128 + number)

    def _clips(self, dataset):
        """Clips in the current step, over all processes."""
        size = self.loading.batch_size
        return min(size, len(dataset) - self.progress.batch * size)

    def _due(self):
        return self.progress.total_it - self.saved >= self.training.save_every

    def _enough(self):
        return 0 < self.training.max_iters <= self.progress.total_it

    def _restore(self):
        latest, state = self.run.latest, read_back(self.run)
        asked = self.constants.get("config", {})
        checked = State(state, latest)
        if "format" not in state:
            raise BadInput(
                f"{latest} comes from MARDM: sample, edit or evaluate with it, but "
                "train anew under another --name; its optimizer counts CLIP too, its schedule is another"
            )
        missing = [name for name in self.parts if name not in state]
        if missing:
            raise BadInput(f"{latest} cannot be continued: it has no {', '.join(missing)}")
        refuse_other_settings(self.run, asked, checked.part("config").fields)
        counts = {key: checked.whole(key, 0, 10**12, 0) for key in ("ep", "total_it", "batch")}
        best = self._kept_best(checked)
        place = Progress(**counts, best=best, seconds=checked.number("seconds", 0.0))
        for name, part in self.parts.items():
            try:
                part.load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                reason = " ".join(str(error).split())[:200]
                raise BadInput(f"{latest}: {name} does not fit: {reason}") from None
        self._apply_rates()
        for key in {"mean", "std"} & self.constants.keys() & state.keys():
            if not torch.equal(torch.as_tensor(state[key]), torch.as_tensor(self.constants[key])):
                raise BadInput(
                    f"{latest} was trained on data with other statistics (Mean.npy, Std.npy) than these: "
                    f"continue it on its own data, or remove {self.run.root} to train anew"
                )
        self.constants |= {key: state[key] for key in ("target_stats",) if key in state}
        print(f"going on from {latest}: {place.ep} epochs, {place.total_it} steps{self._reached(place)}")
        return place

    def _reached(self, place):
        """The end of that line where nothing is left to train: the flag that would have to be raised."""
        limits = {"--epoch": (place.ep, self.training.epoch)}
        if self.training.max_iters:
            limits["--max_iters"] = (place.total_it, self.training.max_iters)
        met = [f"{flag} {limit}" for flag, (count, limit) in limits.items() if count >= limit]
        again = "; the learning rate then goes up again" if self.training.schedule == "cosine" else ""
        return f", all of {' and '.join(met)}: raise it to train on{again}" if met else ""

    def _kept_best(self, latest):
        """Metrics of the best weights kept so far, or None. Their file may be newer than latest.tar."""
        states, file = [latest], self.run.model / self.best.file
        self.constants["replaces"] = latest.text("replaces")
        if file_hash(file) in (None, latest.text("replaces")):  # not kept yet: another run's may lie there
            return None
        try:
            kept = State(load_state(file), file)
        except BadInput as error:
            print(f"warning: {error}; the next best weights replace it")
            return None
        with contextlib.suppress(BadInput):  # a file of other settings does not count
            refuse_other_settings(self.run, self.constants.get("config", {}), kept.part("config").fields)
            states.append(kept)
        best = None
        for kept in (state.numbers("best") or {} for state in states):
            if kept.get(self.best.metric) is not None and self.best.better(kept, best):
                best = kept
        return best

    def _apply_rates(self):
        """Make this run's --lr and --weight_decay hold from here on, not those it was begun with."""
        scheduler, lr = self.parts["scheduler"], self.training.lr
        scheduler.base_lrs = [lr] * len(scheduler.base_lrs)
        rates = [lr * factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
        for group, rate in zip(scheduler.optimizer.param_groups, rates):
            group |= {"initial_lr": lr, "lr": rate, "weight_decay": self.training.weight_decay}
        scheduler._last_lr = rates


def raise_bad_input(reason):
    raise BadInput(reason)
