"""The loop in trouble: what is not finite, full disks, damaged files, signals; and how a batch is split."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from itertools import islice

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.counter_rng import Purpose
from models.counter_rng import rng as addressed
from tests.conftest import ROOT
from utils import distributed
from utils.analysis.event_files import read_points
from utils.checkpoints import load_into
from utils.cli import write_opt_json
from utils.config import LoaderConfig, TrainingConfig, from_flags
from utils.data.batches import AddressedBatches, in_micro_batches, shared_loader
from utils.data.clips import Caption, Clip
from utils.datasets import Normalizer, TextMotionSet
from utils.errors import BadInput
from utils.runs import Run, weights_hash
from utils.safe_load import load_state
from utils.training.train_utils import CodeUsage, GracefulStop, RunningMean, learning_rate
from utils.training.training_loop import Best, TrainingLoop

CPU = torch.device("cpu")
FLAGS = {"dataset_name": "t2m", "name": "run", "is_continue": False, "epoch": 9, "max_iters": 0}
FLAGS |= {"batch_size": 4, "grad_accum": 1, "seed": 1, "num_workers": 0, "log_every": 3, "save_every": 1000}


def clips(*frames):
    rng = np.random.default_rng(0)
    return [Clip(f"c{i}", rng.random((n, 5), np.float32), (Caption("x", ()),)) for i, n in enumerate(frames)]


SET = TextMotionSet(clips(*[8, 20, 12, 40, 16] * 4), Normalizer(np.zeros(5), np.ones(5)))


class Rehearsal:
    """A run over one linear layer. spoil: step -> what the loss is multiplied with."""

    def __init__(self, folder, spoil=None, constants=None, file="net_best_fid.tar", **flags):
        args = Namespace(checkpoints_dir=str(folder), **FLAGS | flags)
        torch.manual_seed(0)
        self.net, self.spoil, self.run = torch.nn.Linear(5, 1), spoil or {}, Run.of(args)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), 1e-2, fused=True)
        training = from_flags(TrainingConfig, args, warm_up_iter=2)
        schedule = learning_rate(self.optimizer, training, 5)
        parts = {"net": self.net, "opt_net": self.optimizer, "scheduler": schedule}
        loading, best = from_flags(LoaderConfig, args), Best(tuple(parts), file)
        self.loop = TrainingLoop(training, loading, self.run, CPU, parts, constants or {}, best)

    def train(self, metrics=None):
        for _ in self.loop.epochs():
            for micro_batches in self.loop.batches(SET):
                for batch in micro_batches:
                    inside = torch.arange(batch.motion.shape[1]) < batch.m_lens[:, None]
                    loss = (self.net(batch.motion)[..., 0].square() * inside).sum()
                    factor = self.spoil.get(self.loop.progress.total_it + 1, 1.0)
                    self.loop.backward(loss * factor, int(inside.sum()))
                self.loop.optimizer_step(self.optimizer)
            self.loop.finish_epoch(metrics)
        return self


@pytest.mark.parametrize("spoil, what", [(float("nan"), "loss is nan"), (float("inf"), "loss is inf")])
def test_what_is_not_finite_stops_at_the_next_report_with_the_steps_own_clips(tmp_path, spoil, what):
    Rehearsal(tmp_path, max_iters=5).train()
    kept = load_state(Run.of(Namespace(checkpoints_dir=tmp_path, **FLAGS)).latest)
    rehearsal = Rehearsal(tmp_path, {7: spoil}, is_continue=True)
    with pytest.raises(BadInput, match=rf"{what} at step 7 .*latest.tar is intact") as stopped:
        rehearsal.train()
    assert rehearsal.loop.progress.total_it == 9  # --log_every 3
    epoch, first = 1, (7 - 5 - 1) * 4  # the second batch of the second epoch
    named = [SET.clips[i].name for i in addressed(Purpose.ORDER, 1, epoch).permutation(20)[first : first + 4]]
    assert all(name in str(stopped.value) for name in named)
    now = load_state(rehearsal.run.latest)
    assert now["total_it"] == 5 and torch.equal(now["net"]["weight"], kept["net"]["weight"])


@pytest.mark.parametrize("moment", ["save_every", "signal", "epoch"])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, moment, monkeypatch):
    """The check comes before the save, report or not; a bad gradient under a good loss counts."""
    flags = {"log_every": 100} | ({"save_every": 3} if moment == "save_every" else {})
    rehearsal = Rehearsal(tmp_path, **flags)
    backward = rehearsal.loop.backward

    def bad_gradient(loss, count):
        backward(loss, count)
        if rehearsal.loop.progress.total_it == 2:
            rehearsal.net.weight.grad[0, 0] = float("nan")
            if moment == "signal":
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(rehearsal.loop, "backward", bad_gradient)
    with pytest.raises(BadInput, match="gradient norm is nan at step 3 .*nothing was saved yet"):
        rehearsal.train()
    assert not rehearsal.run.latest.exists()


def test_a_signal_is_reported_on_a_line_of_its_own(tmp_path, monkeypatch, capsys):
    rehearsal = Rehearsal(tmp_path)
    backward = rehearsal.loop.backward
    monkeypatch.setattr(
        rehearsal.loop, "backward", lambda *sums: signal.raise_signal(signal.SIGTERM) or backward(*sums)
    )
    with pytest.raises(SystemExit):
        rehearsal.train()
    said = re.split(r"[\r\n]", capsys.readouterr().err)  # beside the bar, which ends without a newline
    assert "stopped by a signal at step 1, saved: go on with --is_continue" in said


def flip(data, tensor):
    """One bit of a tensor: torch.load alone would not notice."""
    i = data.index(tensor.numpy().tobytes()) + 5
    return data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]


DAMAGE = {"cut": lambda b, _: b[: len(b) // 2], "empty": lambda b, _: b"", "other": lambda b, _: b"x" * 999}
DAMAGE["bit"] = flip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_noticed_and_the_one_before_offered(tmp_path, damage):
    run = Rehearsal(tmp_path, max_iters=5, save_every=2).train().run
    whole, before = run.latest.read_bytes(), load_state(run.previous)["total_it"]
    assert before == 4
    ruined = DAMAGE[damage](whole, load_state(run.latest)["net"]["weight"])
    run.latest.write_bytes(ruined)
    with pytest.raises(BadInput, match=r"damaged.*step 4\): cp .*latest.prev.tar .*latest.tar"):
        Rehearsal(tmp_path, is_continue=True)
    shutil.copyfile(run.previous, run.latest)  # the remedy
    assert Rehearsal(tmp_path, is_continue=True).loop.progress.total_it == 4
    for file in (run.latest, run.previous):
        file.write_bytes(ruined)
    with pytest.raises(BadInput, match="damaged.*no whole latest.prev.tar either") as error:
        Rehearsal(tmp_path, is_continue=True)
    assert "cp " not in str(error.value) and "copy it again" not in str(error.value)
    with pytest.raises(BadInput, match=r"is (truncated or damaged|not a safe).*") as error:
        load_state(run.latest)
    assert damage == "other" or str(error.value).endswith(": fetch or copy it again")


def test_a_resumed_run_remembers_its_best(tmp_path):
    run = Rehearsal(tmp_path, max_iters=2).train({"fid": 1.0}).run
    kept = load_state(run.best)["net"]["weight"]
    for fid, better in ((2.0, False), (0.5, True)):
        resumed = Rehearsal(tmp_path, is_continue=True, max_iters=6 if better else 4)
        assert resumed.loop.progress.best["fid"] == 1.0
        resumed.train({"fid": fid})
        assert torch.equal(load_state(run.best)["net"]["weight"], kept) != better


def test_best_weights_that_a_kill_left_beside_an_older_save_are_not_overwritten_by_worse_ones(tmp_path):
    """Best weights are written at once, latest.tar only at the next save that is due."""
    run = Rehearsal(tmp_path, max_iters=5).train({"fid": 0.5}).run
    saved = run.latest.read_bytes()
    Rehearsal(tmp_path, is_continue=True, max_iters=10).train({"fid": 0.1})
    run.latest.write_bytes(saved)
    kept = run.best.read_bytes()
    resumed = Rehearsal(tmp_path, is_continue=True, max_iters=10)
    assert resumed.loop.progress.best["fid"] == 0.1
    resumed.train({"fid": 0.3})
    assert run.best.read_bytes() == kept


def test_the_best_of_another_run_is_not_taken_for_its_own(tmp_path):
    """Such as an older distillation's head; where best weights alone are left, no run begins."""
    other, own = ({"config": {"seed": 1, "model": model}} for model in "AB")
    run = Rehearsal(tmp_path, constants=other, max_iters=5).train({"fid": 0.1}).run
    run.latest.unlink()
    with pytest.raises(
        BadInput, match=f"net_best_fid.tar exists: choose another name, or remove {run.root} to train anew"
    ):
        Rehearsal(tmp_path, constants=own, max_iters=2)
    stale = run.best.rename(tmp_path / "stale.tar")
    Rehearsal(tmp_path, constants=own, max_iters=2).train()
    stale.rename(run.best)
    resumed = Rehearsal(tmp_path, constants=own, is_continue=True, max_iters=4)
    assert resumed.loop.progress.best is None
    resumed.train({"fid": 0.5})
    assert load_state(run.best)["config"]["model"] == "B"
    assert Rehearsal(tmp_path, constants=own, is_continue=True).loop.progress.best["fid"] == 0.5


def test_damaged_best_weights_stop_no_run(tmp_path, capsys):
    run = Rehearsal(tmp_path, max_iters=5).train({"fid": 0.1}).run
    run.best.write_bytes(b"PK damaged")
    going_on = Rehearsal(tmp_path, max_iters=7, is_continue=True)
    assert (
        going_on.loop.progress.best is None and "the next best weights replace it" in capsys.readouterr().out
    )
    going_on.train({"fid": 0.5})
    assert load_state(run.best)["best"]["fid"] == 0.5


def test_an_older_best_file_that_a_run_replaces_does_not_count_when_it_goes_on(tmp_path):
    """A distillation's file lies outside its folder, which is removed to distill anew."""
    Rehearsal(tmp_path, file=tmp_path / "student.tar", epoch=1).train({"fid": 0.1})
    shutil.rmtree(Run.of(Namespace(checkpoints_dir=tmp_path, **FLAGS)).root)
    Rehearsal(tmp_path, file=tmp_path / "student.tar", max_iters=2).train()
    for fid in (0.5, 0.7):
        going_on = Rehearsal(tmp_path, file=tmp_path / "student.tar", epoch=1, is_continue=True)
        assert going_on.loop.progress.best is None or fid == 0.7
        going_on.train({"fid": fid})
        assert load_state(tmp_path / "student.tar")["best"]["fid"] == 0.5


def test_a_run_that_was_killed_after_its_first_best_weights_goes_on(tmp_path, monkeypatch):
    """The first best weights bring a save of their own: without latest.tar the run would be refused."""
    rehearsal = Rehearsal(tmp_path)
    monkeypatch.setattr(rehearsal.loop, "epochs", lambda: islice(TrainingLoop.epochs(rehearsal.loop), 1))
    run = rehearsal.train({"fid": 0.5}).run
    assert run.best.is_file()
    resumed = Rehearsal(tmp_path, is_continue=True)
    assert resumed.loop.progress.total_it == 5 and resumed.loop.progress.best["fid"] == 0.5


def test_going_on_without_a_run_says_so_and_leaves_nothing(tmp_path):
    with pytest.raises(BadInput, match="--is_continue: there is no .*latest.tar to go on from"):
        Rehearsal(tmp_path, is_continue=True)
    assert list(tmp_path.iterdir()) == []


def test_curves_of_an_attempt_that_was_killed_before_its_first_save_are_not_this_runs(tmp_path):
    run = Rehearsal(tmp_path, log_every=1, max_iters=5).train().run
    run.latest.unlink()
    Rehearsal(tmp_path, log_every=1, max_iters=3).train()
    steps, _, _ = read_points(run.model)["Train/loss"]
    assert steps.tolist() == [1, 2, 3]


def test_the_command_that_began_a_run_is_kept(tmp_path, monkeypatch):
    for word, resumed in (("first", False), ("second", True), ("third", True)):
        monkeypatch.setattr("sys.argv", ["train.py", word])
        run = Rehearsal(tmp_path, is_continue=resumed, max_iters=2).train().run
    record = json.loads((run.root / "opt.json").read_text())
    assert record["command"].endswith("third") and record["begun_by"].endswith("first")


@pytest.mark.parametrize("text", ["no JSON", "[]", "[" * 100_000])
def test_an_opt_json_that_was_spoilt_by_hand_stops_no_run(tmp_path, text):
    (tmp_path / "opt.json").write_text(text)
    write_opt_json({"lr": 1}, tmp_path, resumed=True)
    assert json.loads((tmp_path / "opt.json").read_text())["flags"] == {"lr": 1}


def test_a_killed_saves_remains_are_cleared(tmp_path):
    run = Rehearsal(tmp_path, max_iters=2).train().run
    (run.model / ".part-0123456789ab.tar").write_bytes(b"half")
    Rehearsal(tmp_path, is_continue=True)
    assert not list(run.model.glob(".part-*")) and run.latest.is_file()


def test_the_loop_clips_gradients_to_the_norm_that_it_is_asked_for(tmp_path):
    """To one so small that Adam's epsilon stops it: what is left is the decay of weights."""
    clipped, free = (Rehearsal(tmp_path / str(n), clip_norm=n, max_iters=3) for n in (1e-15, 0))
    before = free.net.weight.detach().clone()
    moved = [(run.train().net.weight - before).abs().max() for run in (clipped, free)]
    assert moved[0] < 1e-3 < 1e-2 < moved[1]


@pytest.mark.parametrize("highest, kept", [(False, [3.0, 2.0, 0.0]), (True, [3.0])])
def test_the_best_is_the_lowest_or_the_highest_and_of_equals_the_first(tmp_path, highest, kept):
    loop, found = Rehearsal(tmp_path).loop, []
    loop.best = Best(loop.best.parts, highest=highest)
    values = iter([3.0, 2.0, 2.0, 3.0, 0.0])
    for _ in loop.epochs():
        for _ in loop.batches(SET):
            pass
        loop.finish_epoch({"fid": next(values, None)})
        found.append((loop.progress.best["fid"], loop.progress.best["ep"]))
    assert list(dict(found)) == kept and len(set(found)) == len(kept)


def test_micro_batches_change_nothing_but_rounding(tmp_path):
    """Also the logged loss: the sum over all micro-batches over all that they count."""
    runs = [Rehearsal(tmp_path / str(n), grad_accum=n, max_iters=8).train() for n in (1, 3)]
    a, b = (run.net.weight.detach() for run in runs)
    assert not torch.equal(a, torch.zeros_like(a))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    losses = [
        [e.value for e in EventAccumulator(str(run.run.model)).Reload().Scalars("Train/loss")] for run in runs
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("micro_batches", [1, 4])
def test_every_clip_is_in_its_global_batch_once_whatever_the_split(size, micro_batches):
    """And micro-batches hold clips of like length, which costs less padding than the whole batch."""
    lengths, n, batch = SET.lengths, len(SET), 7
    alone = list(AddressedBatches(n, batch, (3, 2), start=1))
    shares = [
        list(AddressedBatches(n, batch, (3, 2), 1, lengths=lengths, shard=slice(r, None, size)))
        for r in range(size)
    ]
    for whole, *parts in zip(alone, *shares):
        assert sorted(whole) == sorted(sum(parts, []))
        for part in parts:
            batches = in_micro_batches([SET[address] for address in part], micro_batches)
            assert sum(map(len, batches)) == len(part) and all(map(len, batches))
            seen = [int(lengths[i]) for one in batches for i in one.index]
            assert seen == sorted(seen)
    assert sum(len(batch) for batch in alone) == n - batch
    assert len(AddressedBatches(n, batch, (3, 2), start=1)) == len(alone) == 2
    assert {epoch for epoch, _ in sum(alone, [])} == {2}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])  # spawn: macOS
def test_loading_processes_outlive_a_signal_to_all(method, monkeypatch):
    """As a scheduler or a terminal sends it. The run has a step to finish, and to save."""
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", None)
    multiprocessing.set_start_method(method)
    args = Namespace(**FLAGS | {"num_workers": 2})
    others = set(multiprocessing.active_children())
    steps = iter(shared_loader(SET, args, CPU, shuffle=True))
    if method == "forkserver":  # whose workers block them once they run: a batch of either
        next(steps), next(steps)
    workers = set(multiprocessing.active_children()) - others
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    assert len(workers) == 2 and len(list(steps)) == (3 if method == "forkserver" else 5)
    del steps
    assert not workers & set(multiprocessing.active_children())


def test_a_program_that_crashed_over_its_loaders_ends():
    """multiprocessing sends them SIGTERM, which they leave to MARDM, and would wait for them."""
    code = (
        "from tests.test_training_loop import *\n"
        "steps = iter(shared_loader(SET, Namespace(**FLAGS | {'num_workers': 2}), CPU, shuffle=True))\n"
        "next(steps)\n"
        "print(*(worker.pid for worker in multiprocessing.active_children()))\n"
        "import builtins; builtins.kept = steps  # what a traceback does\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "killed" not in done.stderr  # torch's handler, which would leave the second to init
    pids = done.stdout.split()
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_one_ctrl_c_is_noted_two_leave_and_a_launchers_sigterm_is_no_second_one():
    stop = GracefulStop()
    try:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        stop.restore()


def test_means_are_over_what_was_counted_and_usage_over_what_is_real():
    means = RunningMean()
    means.add(2, loss=torch.tensor(6.0))
    means.add(1, loss=3.0)
    means.add(norm=4.0)
    assert means.pop() == {"loss": 3.0, "norm": 4.0} and means.pop() == {}
    usage = CodeUsage(5, "cpu")
    usage.add(torch.tensor([[0, 1, 4], [1, 2, 2]]), torch.tensor([[True, True, False], [True, False, False]]))
    assert usage.counts.tolist() == [1, 2, 0, 0, 0]
    usage.add(torch.tensor([torch.iinfo(torch.int64).min, 5]))  # what a grid makes of NaN
    assert usage.counts.tolist() == [1, 2, 0, 0, 0]
    perplexity = 3 / 2 ** (2 / 3)  # exp of the entropy of 1/3 and 2/3
    expected = {"codes_used": 2, "tokens": 3, "usage": 2 / 3, "perplexity": perplexity}  # of 3, not of 5
    assert usage.report() == pytest.approx(expected)


def test_an_epoch_shorter_than_a_report_is_checked_at_its_end(tmp_path):
    """Before what follows it in a script: weights that are not finite would be validated."""
    rehearsal = Rehearsal(tmp_path, {2: float("nan")}, log_every=100)
    with pytest.raises(BadInput, match="loss is nan at step 2 .*try a lower --lr"):
        rehearsal.loop.finish_epoch = lambda *_: pytest.fail("the epoch was closed")
        rehearsal.train()
    assert rehearsal.loop.progress.total_it == 5


def test_a_resumed_run_takes_the_rates_that_are_asked_for(tmp_path):
    """The message on divergence advises a lower --lr: it has to be heard."""
    Rehearsal(tmp_path, max_iters=4).train()
    loop = Rehearsal(tmp_path, is_continue=True, lr=1e-5, weight_decay=0.5, epoch=9).loop
    group = loop.parts["opt_net"].param_groups[0]
    assert group["lr"] == 1e-5 and group["weight_decay"] == 0.5
    assert loop.parts["scheduler"].get_last_lr() == [1e-5]
    loop.parts["opt_net"].step()
    loop.parts["scheduler"].step()
    assert group["lr"] == 1e-5


@pytest.mark.parametrize("key, other", [("batch_size", 8), ("seed", 2), ("dropout", 0.5), ("model", "B")])
def test_a_run_is_continued_as_it_was_begun(tmp_path, key, other):
    config = {"batch_size": 4, "seed": 1, "dropout": 0.1, "model": "A", "lr": 1e-3, "epoch": 9}
    Rehearsal(tmp_path, constants={"config": config}, max_iters=2).train()
    Rehearsal(tmp_path, constants={"config": config | {"lr": 1, "epoch": 99}}, is_continue=True)
    with pytest.raises(BadInput, match=f"was trained with {key} {config[key]}, not {other}"):
        Rehearsal(tmp_path, constants={"config": config | {key: other}}, is_continue=True)


def test_weights_of_other_sizes_are_named_in_one_line_with_a_remedy():
    net, weights = torch.nn.Linear(5, 1), torch.nn.Linear(4, 1).state_dict()
    found = (
        r"x.tar does not fit the model: weight has the sizes \(1, 4\), not \(1, 5\): .*another checkpoint$"
    )
    with pytest.raises(BadInput, match=found):
        load_into(net, weights, "x.tar")
    with pytest.raises(BadInput, match="it lacks bias; it has besides b: pass --model"):
        load_into(net, {"weight": net.weight, "b": net.bias}, "x.tar", "pass --model")


def test_a_run_whose_autoencoder_was_trained_on_gets_a_remedy_that_helps(tmp_path):
    """--checkpoint is a remedy only while its file holds the weights."""
    weights = {"weight": torch.ones(2)}
    file = tmp_path / "t2m/AE/model/latest.tar"
    file.parent.mkdir(parents=True)
    own = {"name": "AE", "file": "latest.tar", "step": 7, "sha256": weights_hash(weights)}
    Rehearsal(tmp_path, constants={"config": {"autoencoder": own}}, max_iters=2).train()
    other = {"file": "net_best_fid.tar", "sha256": "b"}
    back = "bring that autoencoder back, or train a new run"
    for held, now, remedy in (
        (weights, {"step": 9, "sha256": "b"}, back),
        (weights, other, "pass --checkpoint latest, or train a new run"),
        ({"weight": torch.zeros(2)}, other, back),
        (None, other, back),
    ):
        torch.save({"ae": held}, file)
        with pytest.raises(BadInput, match=r"AE \(latest.tar, step 7\) .* other weights: " + remedy) as error:
            Rehearsal(tmp_path, constants={"config": {"autoencoder": own | now}}, is_continue=True)
        assert "opt.json" not in str(error.value)


def test_a_run_is_continued_on_the_data_that_it_was_begun_on(tmp_path):
    statistics = {"mean": torch.zeros(5), "std": torch.ones(5)}
    Rehearsal(tmp_path, constants=statistics, max_iters=2).train()
    Rehearsal(tmp_path, constants=statistics, is_continue=True)
    with pytest.raises(BadInput, match="data with other statistics"):
        Rehearsal(tmp_path, constants=statistics | {"std": torch.full((5,), 2.0)}, is_continue=True)


@pytest.mark.parametrize("max_iters, epoch", [(0, 2), (5, 9)])
def test_a_run_saved_before_its_epoch_is_closed_closes_it_when_resumed(tmp_path, max_iters, epoch):
    """As it is before an evaluation, in which it may be killed."""
    same = {"max_iters": max_iters, "epoch": epoch, "lr": 1e-2, "weight_decay": 1e-2}
    loop, killed = (Rehearsal(tmp_path / name, **same) for name in "ab")
    loop = loop.train().loop
    killed.loop.finish_epoch = lambda _: killed.loop.save() or sys.exit()
    with pytest.raises(SystemExit):
        killed.train()
    resumed = Rehearsal(tmp_path / "b", is_continue=True, **same).train().loop
    counts = [(one.progress.ep, one.progress.total_it, one.progress.batch) for one in (loop, resumed)]
    assert counts[0] == counts[1] == ((1, 5, 0) if max_iters else (2, 10, 0))
    weights = [load_state(one.run.latest)["net"]["weight"] for one in (loop, resumed)]
    assert torch.equal(*weights)


@pytest.mark.parametrize("max_iters, epoch, last", [(5, 9, 1), (10, 9, 2), (7, 9, 2), (0, 3, 3)])
def test_the_last_epoch_is_known_before_it_is_closed(tmp_path, max_iters, epoch, last):
    """5 batches an epoch; --max_iters on its border as well: the evaluation at the end depends on it."""
    loop = Rehearsal(tmp_path, max_iters=max_iters, epoch=epoch).loop
    said = []
    for _ in loop.epochs():
        for _ in loop.batches(SET):
            pass
        said.append(loop.last)
        loop.finish_epoch()
    assert said == [False] * (last - 1) + [True]


def test_integers_and_lists_stay_off_the_device(monkeypatch):
    """A stand-in for a group in which CUDA tensors alone have NCCL, and CPU tensors gloo."""
    seen = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda tensor, *_: seen.append(tensor.device.type))
    assert distributed.all_reduce_max(3) == 3 and seen == ["cpu"]


@pytest.mark.parametrize(
    "epoch, max_iters, met", [(2, 20, "--epoch 2"), (9, 10, "--max_iters 10"), (9, 0, "")]
)
def test_a_finished_run_that_is_continued_says_which_flag_ended_it(tmp_path, capsys, epoch, max_iters, met):
    Rehearsal(tmp_path, epoch=2).train()
    same = {"lr": 1e-2, "weight_decay": 1e-2, "epoch": epoch, "max_iters": max_iters}
    Rehearsal(tmp_path, is_continue=True, **same)
    end = f", all of {met}: raise it to train on" if met else ""
    assert capsys.readouterr().out.endswith(f"2 epochs, 10 steps{end}\n")
