"""The losses of stage 1: closed forms, what they see and what they do not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import train_AE
from motion.skeletons import SMPL22
from tests.tiny import TRAIN_AE, call, where
from utils.config import ReconstructionLoss, TrainingConfig, from_flags
from utils.data.batches import Batch
from utils.datasets import DATASETS, Normalizer
from utils.errors import BadInput
from utils.runs import Run
from utils.safe_load import load_state
from utils.training.reconstruction import ARM, PATH_ERROR, STEP_ERROR, Reconstruction
from utils.training.resuming import refuse_other_settings
from utils.training.train_utils import CodeUsage, adamw, learning_rate

FPS, LENGTHS = 20.0, torch.tensor([24, 40])
OFF = dict.fromkeys(("aux_loss_joints", "root_weight", "velocity_weight", "path_weight"), 0.0)


def loss_of(recons, step=None, std=None, spec=DATASETS["t2m"], **weights):
    """The loss of recons [40,67] as reconstruction of two still motions, of 24 and 40 frames."""
    normalizer = Normalizer(np.zeros(67), np.ones(67) if std is None else std)
    objective = Reconstruction(ReconstructionLoss(**OFF | weights), normalizer, spec)
    return objective(torch.zeros(2, 40, 67), recons.expand(2, 40, 67), LENGTHS, step)


def drift(column, per_frame):
    rows = torch.zeros(40, 67)
    rows[:, column] = per_frame
    return rows


def mean_smooth_l1(errors):
    """Of errors [40] in one of three columns, over all frames of both motions."""
    each = np.where(np.abs(errors) < 1, np.square(errors) / 2, np.abs(errors) - 0.5)
    return sum(each[:n].sum() for n in LENGTHS) / (3 * int(LENGTHS.sum()))


@pytest.mark.parametrize("column, error, metres", [(1, 0.01, 0.01), (2, 0.01, 0.01), (0, 0.005, 0.01 * ARM)])
def test_a_step_that_is_wrong_alike_adds_up_along_the_path(column, error, metres):
    """A half-angle 0.005 rad off in each frame counts as the way of a point at arm's length."""
    found = loss_of(drift(column, error), path_weight=2.0) - loss_of(drift(column, error))
    assert float(found) == pytest.approx(2 * mean_smooth_l1(metres * np.arange(40) / PATH_ERROR), rel=1e-4)


def test_the_path_comes_in_over_its_ramp_and_moves_the_root_alone():
    rows = torch.randn(40, 67) * 0.01
    whole, half, none = (float(loss_of(rows, s, path_weight=1.0, path_ramp=10)) for s in (None, 5, 0))
    plain = float(loss_of(rows))
    assert none == pytest.approx(plain) and half - plain == pytest.approx((whole - plain) / 2)
    rows.requires_grad_()
    (loss_of(rows, path_weight=1.0) - loss_of(rows)).backward()
    assert (rows.grad[:-1, :3] != 0).all() and rows.grad[:, 3:].abs().max() < 1e-9


def test_velocities_see_noise_in_metres_a_second_and_no_constant_error():
    assert float(loss_of(drift(5, 0.3), velocity_weight=1.0)) == float(loss_of(drift(5, 0.3)))
    steps = torch.arange(40) * 0.004  # one joint rises by 0.08 m/s
    rows = torch.zeros(40, 67)
    rows[:, 5] = steps
    expected = (0.004 * FPS / STEP_ERROR) ** 2 / 2 / 66 * 31 / 32  # 31 steps
    for scale in (1.0, 0.5):
        given = rows / scale, np.full(67, scale)
        found = loss_of(given[0], std=given[1], velocity_weight=1.0) - loss_of(given[0])
        assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weight", ["velocity_weight", "path_weight"])
def test_a_set_in_millimetres_has_the_loss_of_one_in_metres(weight):
    rows, scale = torch.randn(40, 67) * 0.01, np.array([1.0] + 66 * [1000.0])  # the first is an angle
    small = replace(DATASETS["t2m"], skeleton=replace(SMPL22, unit_m=0.001))
    metres, millimetres = loss_of(rows, **{weight: 1.0}), loss_of(rows, None, scale, small, **{weight: 1.0})
    assert float(metres) == pytest.approx(float(millimetres), rel=1e-4) and metres > 1.01 * loss_of(rows)


def test_the_root_weighs_as_it_is_asked_to_and_the_joints_as_ever():
    for weight in (0.0, 1.0, 3.0):
        one = 0.5**2 / 2 / 67  # of 67 columns one is 0.5 off
        assert float(loss_of(drift(1, 0.5), root_weight=weight)) == pytest.approx(weight * one)
        joint = drift(4, 0.5)
        assert float(loss_of(joint, root_weight=weight)) == pytest.approx(one)
        both = loss_of(joint, root_weight=weight, aux_loss_joints=2.0)
        assert float(both) == pytest.approx(one + 2 * 0.5**2 / 2 / 63)


def test_the_cosine_ends_at_zero_whichever_ends_first():
    for training in (
        TrainingConfig(epoch=3, lr=1.0, warm_up_iter=2, schedule="cosine"),
        TrainingConfig(epoch=99, max_iters=15, lr=1.0, warm_up_iter=2, schedule="cosine"),
    ):
        optimizer = adamw(torch.nn.Linear(1, 1), training)
        schedule, rates = learning_rate(optimizer, training, steps_per_epoch=5), []
        for _ in range(15):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        assert rates[0] == 0.5 and rates[2:] == sorted(rates[2:], reverse=True)
        assert schedule.get_last_lr()[0] == pytest.approx(0, abs=1e-12)


def test_the_recipe_of_mardm_is_one_flag_and_yields_to_others():
    args = train_AE.parse(["--recipe", "mardm", "--window_size", "32"])
    loss, training = from_flags(ReconstructionLoss, args), from_flags(TrainingConfig, args)
    assert (loss.window_size, loss.velocity_weight, loss.path_weight, loss.root_weight) == (32, 0, 0, 1)
    assert (training.lr, training.warm_up_iter, training.milestones) == (2e-4, 2000, [150000, 250000])
    assert (training.schedule, training.clip_norm, args.ema_decay) == ("milestones", 0, 0)
    assert loss.windows_per_clip == "all"
    ours = from_flags(TrainingConfig, train_AE.parse([]))
    assert (ours.schedule, ours.clip_norm > 0) == ("cosine", True)


def test_every_clip_may_count_equally(world, tmp_path):
    """Other weights than with all windows: the flag reaches them."""
    trained = {}
    for windows in ("all", "equal"):
        flags = f"{TRAIN_AE} --name {windows} --windows_per_clip {windows} --window_size 24"
        assert call(train_AE.main, f"{where(world, tmp_path)} {flags}") == 0
        trained[windows] = load_state(tmp_path / f"Demo/{windows}/model/latest.tar")["trained_ae"]
    first = next(iter(trained["all"]))
    assert not torch.equal(trained["all"][first], trained["equal"][first])


def test_a_run_from_before_the_windows_were_equal_goes_on_with_all_of_them(tmp_path):
    run, weights = Run(tmp_path / "old"), {"window_size": 64}
    refuse_other_settings(run, weights | {"windows_per_clip": "all"}, weights)
    with pytest.raises(BadInput, match="windows_per_clip all, not equal"):
        refuse_other_settings(run, weights | {"windows_per_clip": "equal"}, weights)


def test_a_checkpoint_holds_the_average_that_everything_reads_and_the_weights_that_train_on(world, tmp_path):
    for name, decay in (("averaged", "0.5"), ("plain", "0")):
        flags = f"{where(world, tmp_path)} --name {name} {TRAIN_AE} --ema_decay {decay}"
        assert call(train_AE.main, flags) == 0
        state = load_state(tmp_path / f"Demo/{name}/model/latest.tar")
        same = [torch.equal(state["ae"][key], x) for key, x in state["trained_ae"].items()]
        assert all(same) == (name == "plain")


class Ae(torch.nn.Module):
    """Reconstructs rows as they are, with a bottleneck's loss of 3 and a code for each token."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_pass(self, motion, m_lens):
        return motion, torch.tensor(3.0), torch.arange(10).repeat(2, 1)


def test_a_step_counts_real_tokens_and_tells_its_loss_with_and_without_the_bottlenecks():
    rows = Batch(torch.zeros(2, 40, 67), LENGTHS, ["a", "b"], [], [], None, torch.arange(2))
    usage, asked = CodeUsage(10, "cpu"), []

    def objective(motion, recons, m_lens, step):
        asked.append(step)
        return torch.tensor(0.5)

    assert [float(x) for x in train_AE.train_step(Ae(), rows, objective, usage, step=7)] == [3.5, 0.5]
    assert asked == [7] and usage.counts.tolist() == [2] * 6 + [1] * 4  # of 24 and 40 frames


def test_a_training_tells_its_steps_to_the_ramp(world, tmp_path, monkeypatch):
    steps, step_of = [], train_AE.train_step

    def spied(*given):
        steps.append(given[4] if len(given) > 4 else None)
        return step_of(*given)

    monkeypatch.setattr(train_AE, "train_step", spied)
    assert call(train_AE.main, f"{where(world, tmp_path)} --name ramp {TRAIN_AE} --max_iters 3") == 0
    assert steps[:3] == [0, 1, 2] and set(steps[3:]) == {None}
