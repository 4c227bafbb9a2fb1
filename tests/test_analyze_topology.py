"""What a step in code space does to the motion: linear decoders, whose answer is known; the real command."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from matplotlib.image import imread
from torch import nn

import analyze_topology
import prepare_dataset
from models.AE import FSQ_AE, VQ_AE, Decoder, make_ae
from utils.analysis import latent_perturbation as topology
from utils.analysis.topology_figure import smallest_move
from utils.datasets import Normalizer, find_dataset
from utils.runs import FORMAT, Run, save_state

DIM = 4 + 3 * 2  # three joints
LEVELS = (8, 5, 3)


class Linear(FSQ_AE):
    """An FSQ autoencoder whose decoder is a matrix: each token gives its four frames and nothing else."""

    def __init__(self, root=False):
        super().__init__(DIM, 8, LEVELS)
        torch.manual_seed(0)
        nn.init.normal_(self.post_fsq.weight)
        self.matrix = nn.Parameter(torch.randn(8, DIM))
        if not root:
            self.matrix.data[:, :4] = 0

    def decode(self, latents, m_lens=None):
        return (latents.mT @ self.matrix).repeat_interleave(4, dim=1)


def samples_of(ae, count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (12,), generator=generator).tolist()
    every = [torch.randint(ae.codebook_size, (n,), generator=generator) for n in lengths]
    return topology.draw_samples([ae.fsq.indices_to_codes(one) for one in every], count, generator)


def decoding_of(ae, field=0):
    return topology.Decoding(ae, Normalizer(torch.zeros(DIM), torch.ones(DIM)), 1.0, field)


def test_a_linear_decoder_moves_in_proportion_to_the_steps():
    ae = Linear().eval()
    samples = samples_of(ae)
    found = topology.examine(
        decoding_of(ae), samples, torch.ones(40, dtype=torch.bool), torch.Generator(), {}
    )
    assert {row["dimension"] for row in found["per_dimension"]} == {0, 1, 2}
    for row in found["per_dimension"]:
        k, steps = row["dimension"], int(row["move"].split()[0])
        column = (
            (ae.post_fsq.weight[:, k] @ ae.matrix).detach()[4:].unflatten(0, (2, 3))
        )  # mm of joints, per coordinate
        expected = 1000 * float(column.norm(dim=1).mean()) * steps / (LEVELS[k] // 2)
        assert row["field_mm"] == pytest.approx(expected, rel=1e-4)
        assert row["own_mm"] == pytest.approx(row["field_mm"]) and row["field_half_mm"] < 1e-3 * expected
        assert row["root_mm"] == 0 and row["yaw_deg"] == 0


def test_the_field_dilutes_what_happens_in_the_tokens_own_frames():
    ae = Linear().eval()
    samples = samples_of(ae)
    before = decoding_of(ae).rows(samples.targets, samples.m_lens)
    found = decoding_of(ae, field=10**6).compare(samples, samples.other, before)
    assert torch.allclose(
        found["field_mm"] * samples.m_lens, found["own_mm"] * 4
    )  # of the real frames, no padding


def test_root_and_heading_are_measured_apart():
    ae = Linear(root=True).eval()
    with torch.no_grad():
        ae.matrix.zero_()
        ae.matrix[0, 0] = 1.0  # the first latent is minus half the turn per frame
    samples = samples_of(ae)
    inner = samples.place * 4 + 4 < samples.m_lens  # the last row of a clip turns nothing any more
    before = decoding_of(ae).rows(samples.targets, samples.m_lens)
    found = decoding_of(ae).compare(samples, samples.other, before)
    change = ((samples.other - samples.token) @ ae.post_fsq.weight[0]).abs().double()
    turned = torch.rad2deg(torch.remainder(8 * change.detach() + math.pi, 2 * math.pi) - math.pi).abs()
    assert torch.allclose(found["yaw_deg"][inner], turned[inner], atol=1e-3)
    assert (found["field_mm"] == 0).all() and (found["root_mm"] == 0).all() and inner.sum() > 10


def test_the_reach_of_a_decoder_is_what_its_convolutions_reach():
    decoder = Decoder(3, 4)
    for parameter in decoder.parameters():
        parameter.data.fill_(0.05)  # all positive: no ReLU cuts a path
    length, middle = 80, 40
    latents = torch.ones(1, 4, length, requires_grad=True)
    decoder(latents)[0, 0, 4 * middle].backward()
    touched = latents.grad[0].abs().sum(dim=0).nonzero()[:, 0]
    reach = topology.reach(decoder)
    for token in (touched.min(), touched.max()):  # the frame lies in the field of every token that changes it
        assert 4 * token - reach <= 4 * middle <= 4 * token + 3 + reach
    span = 4 * (touched.max() - touched.min())
    assert 2 * reach - 8 <= span <= 2 * reach + 8  # and the field is no larger than that


def test_grid_moves_stay_on_the_grid_and_change_one_dimension():
    ae = Linear()
    samples = samples_of(ae, 200)
    token, scale = samples.token, ae.fsq.scale
    for name, k, new, exists in topology.grid_moves(ae, samples, torch.Generator().manual_seed(1)):
        steps = int(name.split()[0])
        digit = ((token[:, k] + 1) * scale[k]).round()
        assert torch.equal(exists, (digit + steps < LEVELS[k]) | (digit - steps >= 0))
        changed = (new - token)[exists] * scale
        assert torch.allclose(ae.quantize(new[exists]), new[exists])
        assert torch.allclose(changed[:, k].abs(), torch.tensor(float(steps)))
        assert (changed.abs().sum(dim=1) - changed[:, k].abs() < 1e-6).all()
    ups = [(new - token)[:, k] > 0 for _, k, new, _ in topology.grid_moves(ae, samples, torch.Generator())]
    assert ups[0].any() and not ups[0].all()  # both directions


def test_code_moves_are_the_neighbours_by_brute_force():
    torch.manual_seed(0)
    ae = VQ_AE(DIM, 8, codebook_size=80)
    ae.vq.codebook.data[:] = torch.randn(80, 8)
    ae.vq.codebook.data[1] = ae.vq.codebook.data[0]  # twins: neither is its own neighbour
    codes = ae.vq.codebook.detach()
    index = torch.arange(80)
    samples = topology.Samples(codes[:, None], torch.full((80,), 4), torch.zeros(80).long(), codes.flip(0))
    moves = {name: new for name, _, new, _ in topology.code_moves(ae, samples, torch.Generator())}
    distance = (codes[:, None] - codes).norm(dim=2)
    ranked = distance.argsort(dim=1, stable=True)
    assert torch.allclose(moves["nearest code"][2:], codes[ranked[2:, 1]])
    assert torch.equal(moves["nearest code"][0], codes[1])
    near = (moves["near code (rank 2-8)"] - codes).norm(dim=1)
    sorted_ = distance.sort(dim=1).values
    assert (near >= sorted_[:, 2] - 1e-5).all() and (near <= sorted_[:, 8] + 1e-5).all()
    assert ((moves["random code"] - codes)[index > 1].norm(dim=1) > 0).all()


def test_noise_is_as_long_as_asked():
    samples = topology.Samples(
        torch.zeros(30, 1, 8), torch.full((30,), 4), torch.zeros(30).long(), torch.randn(30, 8)
    )
    moves = topology.noise_moves(samples, torch.Generator(), {"1 step": 0.5})
    assert [move[0] for move in moves] == ["noise, 1 step", "towards a token, 1 step"]
    for _, _, new, _ in moves:
        assert torch.allclose(new.norm(dim=1), torch.tensor(0.5))
    assert torch.allclose(nn.functional.cosine_similarity(moves[1][2], samples.other), torch.ones(30))


def test_every_autoencoder_gets_the_same_tokens_to_swap():
    lengths = (3, 9, 5)
    numbers = [torch.arange(n)[:, None].float() + 100 * i for i, n in enumerate(lengths)]
    others = [x.repeat(1, 7) for x in numbers]
    a, b = (topology.draw_samples(x, 50, torch.Generator().manual_seed(3)) for x in (numbers, others))
    assert torch.equal(a.place, b.place) and torch.equal(a.m_lens, b.m_lens)
    assert torch.equal(a.token[:, 0], b.token[:, 6]) and torch.equal(a.other[:, 0], b.other[:, 6])
    assert (a.token[:, 0] % 100 == a.place).all() and (a.place * 4 < a.m_lens).all()


# the command


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Three untrained autoencoders on a small set of clips; the VQ under two seeds."""
    home = tmp_path_factory.mktemp("home")
    prepare_dataset.main(f"demo --clips 40 --name Tiny --dataset_dir {home}/datasets".split())
    spec, root = find_dataset("Tiny", home / "datasets")
    normalizer = Normalizer.load(root, spec.dim)
    kinds = {"AE_1": "AE_Model", "FSQ_1": "FSQ_AE_Small", "VQ_1": "VQ_AE_Model", "VQ_2": "VQ_AE_Model"}
    for seed, (name, model) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        ae = make_ae(model, spec.dim, 16, codebook_size=32)
        if model == "VQ_AE_Model":
            ae.vq.codebook.data.normal_(std=0.1)
        if model == "FSQ_AE_Small":
            ae.pre_fsq.weight.data *= 100  # so that the untrained tokens lie all over the grid
        config = {"model": model, "width": 16, "codebook_size": 32, "dataset": spec.as_dict()}
        run_ = Run.of(SimpleNamespace(checkpoints_dir=home / "checkpoints", dataset_name="Tiny"), name)
        facts = {"ep": 1, "format": FORMAT, "config": config}
        save_state(
            run_.latest, facts | {"ae": ae.state_dict(), "mean": normalizer.mean, "std": normalizer.std}
        )
    return home


def command(home, out, *more):
    flags = (
        f"--dataset_name Tiny --dataset_dir {home}/datasets --checkpoints_dir {home}/checkpoints --device cpu"
    )
    return [*flags.split(), "--samples", "24", "--output", f"{out}/t.png", "--json", f"{out}/t.json", *more]


@pytest.fixture(scope="module")
def record(home, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    analyze_topology.main(command(home, out, "--ae_names", "VQ_1", "AE_1", "FSQ_1", "VQ_2"))
    assert imread(out / "t.png").std() > 0.05
    return json.loads((out / "t.json").read_text())


def test_the_smallest_move_is_the_usual_one_or_the_first_there_is(record):
    found = [smallest_move(record["autoencoders"][name]) for name in ("FSQ_1", "VQ_1", "AE_1")]
    assert found == ["1 step", "nearest code", "noise, 1 step"]
    alone = [{"move": name} for name in ("random token", "noise, 0.1", "noise, 0.2")]  # no grid beside it
    assert smallest_move({"kind": "continuous", "moves": alone}) == "noise, 0.1"


def test_the_command_measures_every_family(record):
    found = record["autoencoders"]
    assert list(found) == ["VQ_1", "AE_1", "FSQ_1", "VQ_2"]
    assert [one["kind"] for one in found.values()] == ["VQ", "continuous", "FSQ", "VQ"]
    moves = {name: [move["move"] for move in one["moves"]] for name, one in found.items()}
    assert moves["FSQ_1"] == ["random token", "1 step", "2 steps", "3 steps", "4 steps"]
    assert moves["VQ_1"] == ["random token", "nearest code", "near code (rank 2-8)", "random code"]
    assert moves["AE_1"][1:5] == [
        f"noise, {name}" for name in moves["FSQ_1"][1:]
    ]  # as far as the grid's steps
    norms = {move["move"]: move["relative_norm"] for one in found.values() for move in one["moves"]}
    assert norms["noise, 2 steps"] == pytest.approx(norms["2 steps"], rel=1e-4)


def test_swaps_are_matched_and_those_without_effect_left_out_in_all(record):
    ns = {one["spearman_n"] for one in record["autoencoders"].values()}
    assert len(ns) == 1 and ns.pop() < 24  # some random tokens share a code of the small book
    assert all(0 not in one["swaps"][0] for one in record["autoencoders"].values())


def test_usage_and_histograms_count_every_test_token(record):
    fsq, ae, vq = (record["autoencoders"][name] for name in ("FSQ_1", "AE_1", "VQ_1"))
    assert [len(counts) for counts in fsq["histograms"]] == [5] * 5
    assert all(sum(counts) == fsq["tokens"] == fsq["usage"]["tokens"] for counts in fsq["histograms"])
    assert vq["usage"]["codes_used"] <= 32 and 1 <= vq["usage"]["perplexity"] <= vq["usage"]["codes_used"]
    assert "usage" not in ae
