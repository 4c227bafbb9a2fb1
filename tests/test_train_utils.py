"""The optimizer, the moving average and the draws of a training step, in closed forms."""

import numpy as np
import pytest
import torch

from models.AE import make_ae
from models.counter_rng import Purpose, sample_keys
from models.DiffMLPs import DiffMLPs_DDPM
from models.MARDM import MARDM
from models.words import drop_texts
from tests.test_training_loop import SET, Rehearsal, clips
from utils.config import LoaderConfig, TrainingConfig
from utils.data.batches import collate
from utils.datasets import Normalizer, TextMotionSet
from utils.errors import BadInput
from utils.training.token_statistics import measure_targets
from utils.training.train_utils import EMA, adamw, inference, learning_rate, optimizer_step, tokenized

CPU = torch.device("cpu")


@pytest.mark.parametrize("max_norm, step", [(0, [3.0, 4.0]), (10, [3.0, 4.0]), (1, [0.6, 0.8])])
def test_gradients_are_clipped_to_their_common_norm(max_norm, step):
    """Over all parameters, not each by itself; and the rate of the next step is set."""
    p, q = (torch.nn.Parameter(torch.zeros(())) for _ in range(2))
    optimizer = torch.optim.SGD([p, q], 1.0)
    schedule = learning_rate(optimizer, TrainingConfig(1, lr=1.0, warm_up_iter=0, milestones=(1,)), 5)
    p.grad, q.grad = torch.tensor(3.0), torch.tensor(4.0)
    assert optimizer_step(optimizer, schedule, max_norm) == 5
    torch.testing.assert_close(-torch.stack([p, q]).detach(), torch.tensor(step), rtol=1e-5, atol=0)
    assert schedule.get_last_lr() == pytest.approx([0.1])


def test_the_optimizer_is_adamw_with_mardms_moments():
    """Two steps by hand: decay apart from the gradient, moments of 0.9 and 0.99."""
    net, lr, decay = torch.nn.Linear(1, 1, bias=False).double(), 0.1, 0.5
    expected, m, v = float(net.weight.detach()), 0.0, 0.0
    optimizer = adamw(net, TrainingConfig(1, lr=lr, weight_decay=decay))
    for n, g in enumerate((2.0, -0.5), start=1):
        net.weight.grad = torch.full((1, 1), g, dtype=torch.float64)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        update = (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)) ** 0.5 + 1e-8)
        expected -= lr * (decay * expected + update)
    assert float(net.weight.detach()) == pytest.approx(expected, rel=1e-9)


def test_the_average_decays_as_it_says_and_copies_buffers():
    """min(decay, (1 + step) / (10 + step)): 0.1, 2/11, 3/12, then the 0.3 that is asked for."""
    net = torch.nn.BatchNorm1d(1)
    ema, expected = EMA(net, 0.3), 1.0
    for step, decay in enumerate((0.1, 2 / 11, 3 / 12, 0.3, 0.3)):
        torch.nn.init.constant_(net.weight, step + 2.0)
        net.running_mean.fill_(step)
        ema.update(net, step)
        expected = decay * expected + (1 - decay) * (step + 2.0)
        assert float(ema.model.weight) == pytest.approx(expected, rel=1e-6)
        assert ema.model.running_mean == step and not ema.model.weight.requires_grad
        assert not ema.model.training


def test_inference_has_no_gradients_and_gives_every_part_its_own_mode_back():
    net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout())
    net[1].eval()
    with inference(net):
        assert not any(part.training for part in net.modules()) and not net(torch.ones(1)).requires_grad
    assert [part.training for part in net.modules()] == [True, True, False]


def test_a_generator_gets_lengths_in_tokens():
    ae = make_ae("AE_Model", dim=5, width=8).requires_grad_(False)
    latents, targets, text, m_lens = tokenized(ae, collate([SET[0, i] for i in range(4)]), CPU)
    assert m_lens.tolist() == [2, 5, 3, 10] and targets.shape == (4, 10, 8) == latents.mT.shape
    assert text is None


def test_statistics_of_targets_are_those_of_the_real_tokens():
    """In padded batches, in any number of parts: mean and unbiased deviation; padding does not count."""
    torch.manual_seed(0)
    ae = make_ae("AE_Model", dim=5, width=8).requires_grad_(False)
    tokens = torch.cat([ae.tokenize(SET[0, i][0][None])[1][0] for i in range(len(SET))])
    for batch_size, parts in ((20, 1), (7, 3)):
        loading = LoaderConfig(batch_size=batch_size, num_workers=0, grad_accum=parts)
        mean, std = measure_targets(ae, SET, loading, CPU)
        torch.testing.assert_close(mean, tokens.mean(dim=0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(std, tokens.std(dim=0), rtol=1e-4, atol=1e-6)


def test_a_single_token_has_no_statistics():
    ae = make_ae("AE_Model", dim=5, width=8).requires_grad_(False)
    one = TextMotionSet(clips(4), Normalizer(np.zeros(5), np.ones(5)))
    with pytest.raises(BadInput, match="one token .* add clips, or pass --raw_targets"):
        measure_targets(ae, one, LoaderConfig(batch_size=2, num_workers=0), CPU)


def test_texts_are_left_out_in_training_alone():
    torch.manual_seed(0)
    mardm = MARDM(size="XS", ae_dim=8, target_dim=5, text_dim=4, cond_drop_prob=0.25, dropout=0.0)
    heard, text, keys = [], torch.ones(64, 4), sample_keys(torch.arange(64), Purpose.TRAINING, 1)
    mardm.transformer = lambda x, text, inside: heard.append(text) or x.new_zeros(*x.shape[:2], 128)
    for training in (True, False):
        mardm.train(training)
        given = torch.randn(64, 8, 3), torch.randn(64, 3, 5), text, torch.full((64,), 3)
        mardm.forward_loss(*given, keys=keys)
    assert torch.equal(heard[0], drop_texts(text, keys, 0.25, 0.5)) and 38 < heard[0][:, 0].sum() < 58
    assert torch.equal(heard[1], text)


def test_dropout_is_another_in_every_step_and_the_same_when_it_is_resumed(tmp_path):
    def draws(folder, **flags):
        loop, seen = Rehearsal(folder, **flags).loop, []
        for _ in loop.epochs():
            seen += [float(torch.rand(())) for _ in loop.batches(SET)]
            loop.finish_epoch()
        return seen

    whole = draws(tmp_path / "whole", max_iters=7)
    assert len(set(whole)) == len(whole) == 7
    assert draws(tmp_path / "parts", max_iters=4) == whole[:4]
    assert draws(tmp_path / "parts", max_iters=7, is_continue=True) == whole[4:]


def test_a_step_of_ddpm_may_be_any_of_the_schedule():
    head = DiffMLPs_DDPM(2, 4, 1, 8)
    for steps in (2, 50, 1000):
        head.reschedule(steps, 2)
        u = torch.tensor([2**-24, 0.5, 1 - 2**-24])  # the ends of `uniform`
        assert head.times(u).tolist() == [0, steps // 2, steps - 1]
