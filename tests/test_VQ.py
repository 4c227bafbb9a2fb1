"""The VQ control: the nearest code is found, codes move onto the data, dead ones restart."""

import pytest
import torch

from models.AE import make_ae
from models.VQ import VectorQuantizer
from utils.training.train_utils import EMA


def test_the_nearest_code_is_that_of_brute_force():
    vq, z = VectorQuantizer(37, 8), torch.randn(3, 50, 8)
    torch.nn.init.normal_(vq.codebook)
    expected = (z[:, :, None] - vq.codebook).square().sum(dim=-1).argmin(dim=-1)
    assert torch.equal(vq.nearest(z), expected)
    z_q, index, _ = vq.eval()(z)
    assert torch.equal(index, expected)
    torch.testing.assert_close(z_q, vq.lookup(expected))


def test_codes_get_a_gradient_towards_their_vectors_and_the_encoder_its_commitment():
    vq = VectorQuantizer(2, 1, commitment_cost=0.25).eval()
    vq.codebook.data = torch.tensor([[0.0], [10.0]])
    z = torch.tensor([[[1.0], [9.0]]], requires_grad=True)
    z_q, _, loss = vq(z)
    assert float(loss.detach()) == pytest.approx(1.25)  # ((0-1)^2 + (10-9)^2) / 2, once and a quarter of it
    loss.backward()
    torch.testing.assert_close(vq.codebook.grad, torch.tensor([[-1.0], [1.0]]))  # 2 (e - z) / 2
    torch.testing.assert_close(z.grad, 0.25 * torch.tensor([[[1.0], [-1.0]]]))


def test_the_output_passes_the_gradient_straight_through():
    vq = VectorQuantizer(5, 4).eval()
    z = torch.randn(1, 6, 4, requires_grad=True)
    weight = torch.randn(1, 6, 4)
    (vq(z)[0] * weight).sum().backward()
    torch.testing.assert_close(z.grad, weight)
    assert vq.codebook.grad is None or not vq.codebook.grad.any()


def test_training_moves_the_codes_onto_the_data():
    torch.manual_seed(0)
    centres = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    vq = VectorQuantizer(4, 2, patience=5).train()
    optimizer = torch.optim.SGD(vq.parameters(), 0.5)
    for _ in range(200):
        z = centres[torch.randint(4, (1, 64))] + 0.1 * torch.randn(1, 64, 2)
        loss = vq(z)[2]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        vq.finish_step(optimizer)
    distance = torch.cdist(centres, vq.codebook.detach()).min(dim=1).values
    assert (distance < 0.3).all()


def test_codes_start_at_real_vectors_and_no_two_alike():
    vq = VectorQuantizer(50, 2).train()
    vq(torch.tensor([[[0.5, 0.0], [-0.5, 1.0], [90.0, 90.0]]]), inside=torch.tensor([[True, True, False]]))
    assert vq.codebook.abs().max() < 2 and len(vq.codebook.unique(dim=0)) == 50


def test_a_dead_code_is_revived_where_the_data_lie():
    vq = VectorQuantizer(3, 2, patience=3).train()
    z = torch.randn(1, 40, 2)
    vq(z)
    vq.finish_step()
    vq.codebook.data[1] = 1e4  # no token will ever choose it
    for _ in range(4):
        vq(z)
        vq.finish_step()
    assert vq.codebook[1].abs().max() < 10
    assert vq.started and int(vq.idle.max()) < 3


def two_codes(patience=2):
    """Codes at 0 and 10, and the vectors of a batch that uses the first alone."""
    vq = VectorQuantizer(2, 1, patience=patience).train()
    vq.codebook.data = torch.tensor([[0.0], [10.0]])
    vq.started.fill_(True)
    return vq, torch.tensor([[[0.5], [-0.5]]])


def test_a_step_counts_once_however_many_pieces_it_has():
    vq, z = two_codes()
    for _ in range(3):
        vq(z)
    vq.finish_step()
    assert vq.idle.tolist() == [0, 1] and vq.codebook[1] == 10


def test_a_code_restarts_at_vectors_of_all_pieces_of_a_step():
    """Over many restarts both pieces are met; vectors of the step before take no part."""
    places = set()
    for seed in range(20):
        torch.manual_seed(seed)
        vq, z = two_codes(patience=1)
        vq(z)
        vq.finish_step()
        vq.codebook.data = torch.tensor([[0.0], [90.0]])
        vq(torch.full((1, 4, 1), 3.0))
        vq(torch.full((1, 4, 1), -3.0))
        vq.finish_step()
        places.add(round(vq.codebook[1].item()))
    assert places == {3, -3}


def test_a_code_that_padding_or_a_validation_alone_uses_is_idle():
    vq, _ = two_codes()
    vq.eval()(torch.tensor([[[9.0]]]))
    vq.train()
    vq(torch.tensor([[[0.5], [-0.5], [9.0]]]), inside=torch.tensor([[True, True, False]]))
    vq.finish_step()
    assert vq.idle.tolist() == [0, 1]


def test_a_code_that_another_process_uses_is_not_idle():
    vq, z = two_codes()
    for _ in range(5):
        vq(z)
        vq.finish_step(all_reduce_sum=lambda used: used + torch.tensor([0, 3]))
    assert vq.idle.tolist() == [0, 0] and vq.codebook[1] == 10


def test_a_restarted_code_leaves_its_moments_behind():
    ae = make_ae("VQ_AE_Model", width=1, codebook_size=2)
    ae.vq, z = two_codes()
    vq, others = ae.vq, (lambda tensor: tensor, lambda tensors: None)
    optimizer = torch.optim.AdamW(vq.parameters(), 1e-3, fused=True)
    vq(torch.tensor([[[0.5], [9.0]]]))[2].backward()
    optimizer.step()
    state = optimizer.state[vq.codebook]
    assert (state["exp_avg"] != 0).all() and (state["exp_avg_sq"] != 0).all()
    for _ in range(3):
        ae.finish_step(optimizer, *others)
        vq(z)
    ae.finish_step(optimizer, *others)
    assert vq.codebook[1].abs() < 1
    for moment in (state["exp_avg"], state["exp_avg_sq"]):
        assert moment[1] == 0 and moment[0] != 0


def test_a_restarted_code_that_is_not_used_waits_as_long_again():
    (vq, z), restarted = two_codes(patience=2), []
    for _ in range(6):
        vq.codebook.data[1] = 90.0
        vq(z)
        vq.finish_step()
        restarted.append(bool(vq.codebook[1] < 9))
    assert restarted == [False, True] * 3


def test_the_moving_average_takes_over_a_restarted_code_as_it_is():
    ae = make_ae("VQ_AE_Model", width=8, codebook_size=6)
    ae.vq.patience = 2
    average = EMA(ae, 0.999)
    for step in range(4):
        ae.vq.used[:3] = 1  # the others restart in the second step and in the fourth
        ae.vq.vectors = torch.randn(50, 8)
        ae.vq.codebook.data[:3] += 1
        ae.finish_step(None, lambda tensor: tensor, lambda tensors: None)
        average.update(ae, step)
        ae.copy_restarts(average.model)
        same = (average.model.vq.codebook == ae.vq.codebook).all(dim=1).tolist()
        assert same == ([True] * 6 if step == 0 else [False] * 3 + [True] * 3)


def test_a_resumed_step_restarts_codes_at_the_same_vectors():
    """The first step also draws to start all codes; that must not shift the draws of a resumed run."""
    z = torch.randn(10, 1, 6, 3)

    def train(vq, steps):
        for step in steps:
            torch.manual_seed(step)  # as TrainingLoop.batches does
            vq(z[step])
            vq.finish_step()
        return vq

    whole, stopped, resumed = (VectorQuantizer(8, 3, patience=2).train() for _ in range(3))
    train(whole, range(10))
    resumed.load_state_dict(train(stopped, range(5)).state_dict())
    assert torch.equal(train(resumed, range(5, 10)).codebook, whole.codebook)


def test_padding_trains_no_code():
    vq = VectorQuantizer(2, 1).eval()
    vq.codebook.data = torch.tensor([[0.0], [10.0]])
    z = torch.tensor([[[1.0], [10.5]]])
    inside = torch.tensor([[True, False]])
    assert float(vq(z, inside)[2].detach()) == pytest.approx(1.25)


@torch.no_grad()
def test_the_autoencoder_is_charged_the_commitment_it_is_built_with_and_no_padding():
    torch.manual_seed(0)
    ae = make_ae("VQ_AE_Model", width=16, codebook_size=11, commitment_cost=2.0).eval()
    motion, m_lens = torch.randn(2, 32, 67), torch.tensor([32, 20])
    z = ae._latents(motion, m_lens).mT
    real = torch.cat([z[0], z[1, :5]])
    error = (real - ae.quantize(real)).square().mean()
    torch.testing.assert_close(ae.training_pass(motion, m_lens)[1], 3 * error)


def test_the_autoencoder_answers_to_the_four_verbs():
    torch.manual_seed(0)
    ae = make_ae("VQ_AE_Model", width=16, codebook_size=11)
    recons, loss, index = ae.train().training_pass(torch.randn(2, 32, 67), torch.tensor([32, 20]))
    assert loss > 0 and index.max() < 11 == ae.codebook_size
    latents, targets = ae.eval().tokenize(torch.randn(2, 32, 67), torch.tensor([32, 20]))
    assert torch.equal(ae.quantize(targets), targets) and torch.equal(ae.embed_codes(targets), latents)
    assert torch.equal(ae.vq.lookup(ae.indices(targets)), targets)
    noisy = targets + 1e-4 * torch.randn_like(targets)
    assert torch.equal(ae.quantize(noisy), targets)


def test_nan_does_not_become_a_code():
    ae = make_ae("VQ_AE_Model", width=16, codebook_size=11).eval()
    targets = ae.vq.lookup(torch.tensor([[3, 5]])).clone()
    assert torch.equal(ae.quantize(targets), targets)
    targets[0, 1, 2] = torch.nan
    assert ae.quantize(targets).isnan().all(dim=-1).tolist() == [[False, True]]
