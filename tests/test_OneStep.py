"""The one-step head: where it begins, what it costs, that it learns its teacher's map, and how it is kept."""

import os
import signal
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import distill_MARDM
import sample
import train_MARDM
from diffusions import ddpm
from diffusions.samplers import guided, integrate
from distill_MARDM import own_motions
from models import onednn
from models.counter_rng import Purpose, uniform
from models.DiffMLPs import DiffMLPs_DDPM, DiffMLPs_models, DiffMLPs_SiT, precompute_modulations
from models.draws import CONDITION, SamplingNoise, keyed_masks
from models.masking import lengths_to_mask
from models.OneStep import (
    OBJECTIVES,
    TIME_STEP,
    FlowMapHead,
    HeadInputs,
    OneStepHead,
    hidden_inputs,
)
from models.precision import InferenceWeights
from models.sampling import ONESTEP_ROUNDS, SamplingConfig, resolve_sampling
from scripts import release
from tests.test_draw_law import HOW, LENGTHS, both, build
from tests.test_MARDM import fill_zero_weights
from tests.tiny import PAIR, call, different_tensors, linked, where
from utils.checkpoints import load_generator
from utils.config import WeightsConfig
from utils.datasets import DatasetSpec, find_dataset
from utils.errors import BadInput
from utils.flags import settled
from utils.pipeline import load
from utils.runs import save_state
from utils.safe_load import load_state
from utils.training.training_loop import TrainingLoop

N, K, D, H = 5, 3, 4, 16
ONESTEP = replace(HOW, sampler="onestep", sampler_steps=None, refine=0)


@pytest.fixture(params=["SiT", "DDPM"])
def teacher(request):
    torch.manual_seed(0)
    return (
        fill_zero_weights(DiffMLPs_models[f"{request.param}-XS"](target_dim=D, z_dim=H))
        .eval()
        .requires_grad_(False)
    )


def rows(w):
    torch.manual_seed(1)
    z, z_null, w, noise = torch.randn(N, H), torch.randn(N, H), torch.full((N,), w), torch.randn(K, N, D)
    return HeadInputs(z, z_null, w, noise, torch.rand(N, 2).sort(dim=1).values)


@pytest.mark.parametrize("null", [False, True])
def test_it_begins_as_one_step_of_its_teacher_without_guidance(teacher, null):
    student, asked = OneStepHead.from_teacher(teacher, (1.0, 4.0), null).eval(), rows(3.0)
    drawn = student(asked.noise, asked.z, asked.w, asked.z_null)
    for x, found in zip(asked.noise, drawn):
        if hasattr(teacher, "sampling_schedule"):  # DDPM: the noise taken away
            expected = x - teacher.net(x, torch.full((N,), 49), asked.z)
        else:
            expected = integrate(guided(teacher.net, asked.z, None, 1), x, "euler", 1)
        torch.testing.assert_close(found, expected)


def test_a_head_that_reads_the_unconditional_z_hears_it(teacher):
    head, asked = fill_zero_weights(OneStepHead.from_teacher(teacher, null=True)), rows(2.0)
    drawn, other = (head(asked.noise, asked.z, asked.w, asked.z_null + n) for n in (0, 1))
    assert (drawn - other).abs().max() > 1e-6


@pytest.mark.parametrize("kind", OBJECTIVES.values())
def test_a_draw_is_the_head_at_this_scale_and_temperature(teacher, kind):
    student, asked = fill_zero_weights(kind.from_teacher(teacher)), rows(2.0)
    draw = student.draw_with(replace(ONESTEP, cfg=2.0, temperature=0.5, sampler_steps=1))
    for x in asked.noise:
        torch.testing.assert_close(draw(asked.z, None, x), student(0.5 * x, asked.z, asked.w))
        assert not torch.allclose(student(x, asked.z, asked.w), student(0.5 * x, asked.z, asked.w + 1))


def test_a_flow_map_begins_as_the_velocity_of_its_teacher():
    torch.manual_seed(0)
    teacher, asked = fill_zero_weights(DiffMLPs_models["SiT-XS"](target_dim=D, z_dim=H)).eval(), rows(3.0)
    student, t = FlowMapHead.from_teacher(teacher).eval(), asked.times[:, 0]
    for x in asked.noise:
        torch.testing.assert_close(student.velocity(x, t, t, asked.z, asked.w), teacher.net(x, t, asked.z))


class GaussianMap(FlowMapHead):
    """The exact map of data N(0, spread^2): x_t is N(0, variance(t)), and the path only rescales it."""

    def __init__(self, spread):
        super().__init__(D, H, 1, 8)
        self.spread = spread

    def variance(self, t):
        return (self.spread * t) ** 2 + (1 - t) ** 2

    def field(self, x, t, z):
        return x * ((self.spread**2 * t - (1 - t)) / self.variance(t))[:, None]

    def velocity(self, x, s, t, z, w, z_null=None):
        mean = ((self.variance(t) / self.variance(s)).sqrt() - 1)[:, None] / (t - s)[:, None]
        return torch.where((t == s)[:, None], self.field(x, t, z), x * mean)


def test_the_exact_map_of_a_gaussian_has_no_loss_and_composes():
    asked, exact = rows(2.0), GaussianMap(0.5)
    asked = HeadInputs(*(part.double() for part in vars(asked).values()))
    teacher = SimpleNamespace(velocity=partial(guided, exact.field))
    assert exact.loss(teacher, asked, 1).shape == (K, N)
    assert exact.loss(teacher, asked, 1).max() < 1e-6  # the difference for d/dt leaves STEP^2, squared
    for wrong in (GaussianMap(0.6), GaussianMap(0.4)):
        assert wrong.loss(teacher, asked, 1).mean() > 1e-3
    for x in asked.noise:
        for n in (1, 2, 4):
            drawn = exact.draw_with(replace(ONESTEP, sampler_steps=n))(asked.z, None, x)
            torch.testing.assert_close(drawn, 0.5 * x)


class QuadraticMap(FlowMapHead):
    """X_{s,t}(x) = x + (t - s)(a (s + 2 t) + x / 2), wrong for any teacher: each part of the loss shows."""

    def __init__(self):
        super().__init__(D, H, 1, 8)
        self.a = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def velocity(self, x, s, t, z, w, z_null=None):
        return self.a * (s + 2 * t)[:, None] + x / 2


def test_the_loss_of_a_flow_map_in_closed_form():
    """y: the noise, mapped to s and from there to t; b: the teacher's guided velocity at y. Gradients pass
    through neither.
    """
    asked, head = rows(2.0), QuadraticMap()
    asked = HeadInputs(*(part.double() for part in vars(asked).values()))
    s, t = (time[:, None] for time in asked.times.unbind(dim=1))
    t = t.clamp(TIME_STEP, 1 - TIME_STEP)
    x = asked.noise + s * (2 * s + asked.noise / 2)
    y = x + (t - s) * (s + 2 * t + x / 2) + 2 * TIME_STEP**2
    b = y + t + 2 * asked.z[:, :D] - asked.z_null[:, :D]  # null + 2 (conditional - null)
    still, moving = 3 * t + y / 2 - b, 4 * t - s + x / 2 - b
    expected = 0.75 * still.square().mean(dim=-1) + 0.25 * moving.square().mean(dim=-1)
    teacher = SimpleNamespace(velocity=partial(guided, lambda x, t, z: x + t[:, None] + z[:, :D]))
    loss = head.loss(teacher, asked, 1)
    torch.testing.assert_close(loss, expected)
    loss.mean().backward()
    torch.testing.assert_close(head.a.grad, (1.5 * still * 3 * t + 0.5 * moving * (4 * t - s)).mean())


def test_distillation_asks_the_head_for_its_velocity():
    """A head whose network predicts something else needs no change beyond `velocity`."""

    class Opposite(DiffMLPs_SiT):
        def velocity(self, z, z_null, scale, times=None):
            return guided(lambda x, t, z: -self.net(x, t, z), z, z_null, scale)

    torch.manual_seed(0)
    head, asked = fill_zero_weights(Opposite(D, H, 1, 8)).eval(), rows(2.5)
    how = replace(HOW, cfg=2.5, sampler="midpoint", sampler_steps=3)
    drawn = head.sample(asked.z, asked.z_null, asked.noise[0], how)
    torch.testing.assert_close(head.ode_end(asked, 3)[0], drawn)


@pytest.mark.parametrize("w", [1.0, 2.5])
def test_the_end_of_the_teachers_path_is_that_of_its_sampler(teacher, w):
    """Scales of each row and several draws at once give what one number and one draw do."""
    asked = rows(w)
    ends = teacher.ode_end(asked, 3)
    field = guided(teacher.net, asked.z, asked.z_null, w)
    for x, end in zip(asked.noise, ends):
        one = (
            ddpm.ddim(field, teacher.sampling_schedule, x)
            if hasattr(teacher, "sampling_schedule")
            else integrate(field, x, "midpoint", 3)
        )
        torch.testing.assert_close(end, one, rtol=1e-4, atol=1e-5)


def test_ddim_follows_the_exact_path_of_a_gaussian():
    """Data N(0, s^2): x_t is N(0, abar s^2 + 1 - abar), and the path only rescales it."""
    schedule, spread = ddpm.Schedule.cosine(1000), 0.5

    def exact(x, t):
        alpha_bar = schedule.alphas_cumprod[int(t)]
        return (1 - alpha_bar).sqrt() * x / (alpha_bar * spread**2 + 1 - alpha_bar)

    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    for steps in (1000, 250):
        found = ddpm.ddim(exact, schedule.respaced(steps), x)
        torch.testing.assert_close(found, spread * x, rtol=0.02, atol=0)


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_what_does_not_depend_on_x_is_computed_once_at_equal_bits(teacher, monkeypatch, n, cfg):
    z, noise = torch.randn(2, n, H), torch.randn(n, *teacher.noise_shape)
    teacher.reschedule(50, 10)  # a DDPM head's; its noise is for 50 steps
    calls, sampling = [], SamplingConfig(cfg=cfg, sampler="heun", sampler_steps=3)
    teacher.net.cond_embed.register_forward_hook(lambda *_: calls.append(1))
    with InferenceWeights()([teacher.net], torch.float32):  # as motions are drawn
        found = teacher.sample(z[0], z[1], noise, sampling)
        assert len(calls) == 1
        monkeypatch.setattr("models.DiffMLPs.precompute_modulations", lambda net, times, z: net)
        expected = teacher.sample(z[0], z[1], noise, sampling)
    assert len(calls) > 5
    exact = {"rtol": 0, "atol": 0} if onednn.available() else {}
    torch.testing.assert_close(found, expected, **exact)
    assert precompute_modulations(teacher.net, torch.zeros(8), torch.zeros(65, H)) is teacher.net  # many rows


def with_head(name, null=False, kind=OneStepHead):
    mardm, ae, text = build(name)
    mardm.onestep = fill_zero_weights(kind.from_teacher(mardm.DiffMLPs, (1.0, 4.0), null)).double().eval()
    return mardm, ae, text


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("name", ["MARDM-SiT-XS", "FSQ-MARDM-DDPM-XS"])
def test_one_row_a_token_and_one_pass_of_the_transformer(name, null):
    made = with_head(name, null)
    mardm, ae, text = made
    both(made, ONESTEP)  # the law of drawing, and it is what "auto" means:
    heads, clips = [], []
    mardm.onestep.net.register_forward_hook(lambda net, given, out: heads.append(len(out)))
    mardm.MARTransformer[0].register_forward_hook(lambda block, given, out: clips.append(len(out)))
    auto = mardm.generate(ae, text, LENGTHS, replace(ONESTEP, sampler="auto"))
    assert sum(heads) == LENGTHS.sum()
    assert set(clips) == {len(LENGTHS) * (2 if null else 1)}
    assert torch.equal(auto, mardm.generate(ae, text, LENGTHS, ONESTEP))
    assert not torch.equal(auto, mardm.generate(ae, text, LENGTHS, replace(ONESTEP, cfg=1.5)))
    assert "1 evaluation a draw" in mardm.describe_sampling(ONESTEP)
    heads.clear()
    mardm.generate(ae, text, LENGTHS, replace(ONESTEP, refine=None))
    assert sum(heads) == 2 * LENGTHS.sum()  # the default draws every token twice


@pytest.mark.parametrize("null", [False, True])
def test_a_flow_map_takes_as_many_rows_a_token_as_it_is_asked_for(null):
    made = with_head("FSQ-MARDM-SiT-XS", null, FlowMapHead)
    mardm, ae, text = made
    heads, drawn = [], {}
    mardm.onestep.net.register_forward_hook(lambda net, given, out: heads.append(len(out)))
    for n in (1, 2, 4):
        how = replace(ONESTEP, sampler_steps=n)
        both(made, how)
        heads.clear()
        drawn[n] = mardm.generate(ae, text, LENGTHS, how)
        assert sum(heads) == n * LENGTHS.sum()
        assert f": {n} evaluation{'s' * (n > 1)} a draw" in mardm.describe_sampling(how)
    assert not torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[2], drawn[4])
    assert torch.equal(drawn[1], mardm.generate(ae, text, LENGTHS, replace(ONESTEP, sampler_steps=None)))


def rounds_of(sampling, mardm):
    one = resolve_sampling(sampling, mardm)
    return one.time_steps, one.order, one.refine


def test_which_sampler_auto_means():
    auto = SamplingConfig(cfg=4.0)
    without, head = (SimpleNamespace(onestep=None, DiffMLPs=DiffMLPs_SiT) for _ in range(2))
    head.onestep = OneStepHead(D, H, 1, 8, scales=(1.0, 4.0))
    assert resolve_sampling(auto, head).sampler == "onestep"
    assert (
        resolve_sampling(auto, without).sampler
        == resolve_sampling(replace(auto, cfg=4.5), head).sampler
        == "midpoint"
    )
    assert resolve_sampling(replace(auto, sampler="heun"), head).sampler == "heun"
    assert [resolve_sampling(auto, mardm).sampler_steps for mardm in (head, without)] == [1, 4]
    assert rounds_of(auto, head) == (7, "halton", 1) and rounds_of(auto, without) == (18, "random", 0)
    for given in ((5, "random", 0), (4, "halton", 2)):
        asked = replace(auto, **dict(zip(("time_steps", "order", "refine"), given)))
        assert rounds_of(asked, head) == rounds_of(asked, without) == given
    four = replace(auto, sampler_steps=4)
    assert resolve_sampling(four, head).sampler == "midpoint"
    with pytest.raises(ValueError, match="1 evaluation, not 4; distill_MARDM.py --objective flow_map"):
        resolve_sampling(replace(four, sampler="onestep"), head)
    for mardm, cfg in ((without, 2.0), (head, 4.5)):
        with pytest.raises(ValueError, match="sampler onestep"):
            resolve_sampling(replace(auto, sampler="onestep", cfg=cfg), mardm)
    assert resolve_sampling(replace(auto, sampler="dopri5"), head).sampler_steps is None
    with pytest.raises(ValueError, match="dopri5 has no number of steps"):
        resolve_sampling(replace(four, sampler="dopri5"), head)


@pytest.mark.parametrize("kind", OBJECTIVES.values())
def test_it_learns_where_its_teacher_ends(kind):
    mardm, ae, text = build("FSQ-MARDM-SiT-XS")
    mardm, text = mardm.float().requires_grad_(False), text.float()
    student = kind.from_teacher(mardm.DiffMLPs, (1.0, 4.0))
    optimizer = torch.optim.Adam(student.parameters(), 1e-3)
    tokens = torch.randn(len(LENGTHS), 32, 9), text, LENGTHS
    errors = []
    for step in range(60):
        asked = hidden_inputs(mardm, tokens, torch.arange(len(LENGTHS)) + 10 * step, 9, 4, (1.0, 4.0))
        assert asked.w.min() >= 1 and asked.w.max() <= 4 and len(asked.z) == asked.noise.shape[1]
        assert (
            asked.times[:, 0] <= asked.times[:, 1]
        ).all() and 0 < asked.times.min() < asked.times.max() < 1
        with torch.no_grad():
            errors.append(OneStepHead.loss(student, mardm.DiffMLPs, asked, 4).mean().item())
        optimizer.zero_grad()
        student.loss(mardm.DiffMLPs, asked, 4).mean().backward()
        optimizer.step()
    assert sum(errors[-10:]) < 0.5 * sum(errors[:10])


def test_a_student_trains_on_the_tokens_that_training_would_hide_each_with_draws_of_its_own():
    mardm, _, text = build("FSQ-MARDM-SiT-XS")
    latents, keys, room = torch.randn(len(LENGTHS), 32, 9).double(), torch.arange(len(LENGTHS)), 20
    asked = hidden_inputs(mardm, (latents, text, LENGTHS), keys, room, K, (1.0, 4.0))
    inside = lengths_to_mask(LENGTHS, 9)
    hidden = keyed_masks(inside, keys, room)[0]
    x = torch.where(hidden[..., None], mardm.mask_latent, latents.mT)
    for found, words in ((asked.z, text), (asked.z_null, torch.zeros_like(text))):
        torch.testing.assert_close(found, mardm.transformer(x, words, inside)[hidden])
    draws = asked.noise.flatten(0, 1)
    assert len(draws.unique(dim=0)) == len(draws) == K * len(asked.w) == K * len(asked.w.unique())


def test_only_the_clips_that_are_replaced_are_generated(monkeypatch):
    """And they are the motions that generating all of them gives."""
    mardm, ae, text = with_head("FSQ-MARDM-SiT-XS")
    text, m_lens, keys = text.repeat(4, 1), LENGTHS.repeat(4), torch.arange(16) * 2**40
    latents, drawn, generate = torch.randn(16, 32, 9, dtype=torch.float64), [], mardm.generate
    everything = ae.embed_codes(generate(ae, text, m_lens, ONESTEP, keys.tolist()))
    replaced = uniform(keys, CONDITION, (1,))[:, 0] < 0.4
    monkeypatch.setattr(mardm, "generate", lambda *given: drawn.extend(given[-1]) or generate(*given))
    tokens, same_text, same_lens = own_motions(mardm, ae, (latents, text, m_lens), keys, 0.4, ONESTEP)
    assert drawn == keys[replaced].tolist() and 0 < len(drawn) < 16
    assert same_text is text and same_lens is m_lens
    inside = lengths_to_mask(m_lens, 9)[:, None]
    expected = torch.where(replaced[:, None, None], everything, latents)
    torch.testing.assert_close(tokens * inside, expected * inside)
    assert own_motions(mardm, ae, (latents, text, m_lens), keys, 0.0, ONESTEP)[0] is latents


DISTILL = (
    "--batch_size 16 --epoch 3 --eval_every 1 --warm_up_iter 2 --log_every 2 --teacher_steps 2 --draws 2"
)


def same_in_two_sittings(monkeypatch, home, other, flags):
    """A distillation stopped in its third step and continued ends as the one in `home`, bit for bit."""
    again, take_step = f"--name MARDM {where(other)} {flags}", TrainingLoop.optimizer_step

    def stopped_in_the_third(loop, optimizer):
        take_step(loop, optimizer)
        if loop.progress.total_it == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainingLoop, "optimizer_step", stopped_in_the_third)
    assert call(distill_MARDM.main, again) == 128 + signal.SIGTERM
    monkeypatch.undo()
    monkeypatch.setitem(ONESTEP_ROUNDS, "time_steps", 3)  # a default that has changed since
    assert call(distill_MARDM.main, f"{again} --is_continue") == 0
    monkeypatch.undo()
    files = [h / "checkpoints/Demo/MARDM/onestep/model/latest.tar" for h in (home, other)]
    assert different_tensors(*files) == []


def test_a_ddpm_head_has_no_flow_map(monkeypatch, capsys):
    head = SimpleNamespace(mardm=SimpleNamespace(DiffMLPs=DiffMLPs_DDPM(D, H, 1, 8)), model="MARDM-DDPM-XS")
    monkeypatch.setattr(distill_MARDM, "load_generator", lambda *_: head)
    assert call(distill_MARDM.main, "--name MARDM --device cpu --objective flow_map") == 2
    assert "MARDM-DDPM-XS has no velocity" in capsys.readouterr().err


def test_what_a_student_cannot_learn_from_or_be_judged_by_is_refused_at_once(world, monkeypatch, capsys):
    line = f"--name MARDM {where(world)} {DISTILL}"
    assert call(distill_MARDM.main, f"{line} --need_evaluation --cfg_range 3 6") == 2
    assert "--need_evaluation draws with guidance 2.5" in capsys.readouterr().err
    sets = distill_MARDM.captioned_sets
    monkeypatch.setattr(distill_MARDM, "captioned_sets", lambda *given: (*sets(*given)[:2], 512))
    assert call(distill_MARDM.main, f"{line} --text_encoder minilm") == 2
    assert "minilm is 512 wide, MARDM was trained on 384" in capsys.readouterr().err
    own = find_dataset("Demo", world / "datasets")[0]
    monkeypatch.setattr(DatasetSpec, "from_dict", lambda _: replace(own, facing="published"))
    assert call(distill_MARDM.main, line) == 2
    assert "one_sign headings, the weights were trained on published ones" in capsys.readouterr().err
    assert not (world / "checkpoints/Demo/MARDM/onestep").exists()


def test_a_flow_map_is_made_kept_and_drawn_from(world, tmp_path, capsys, monkeypatch):
    home, flags = linked(world, tmp_path / "home"), f"{DISTILL} --objective flow_map"
    assert call(distill_MARDM.main, f"--name MARDM {where(home)} {flags}") == 0
    same_in_two_sittings(monkeypatch, home, linked(world, tmp_path / "other"), flags)
    places = f"--dataset_name Demo --dataset_dir {home}/datasets --checkpoints_dir {home}/checkpoints"
    assert call(release.main, f"{places} --name MARDM --to half --to_ae half_AE") == 0
    prompt, joints = ["a person walks forward"], {}
    for name in ("MARDM", "half"):
        pipeline = load(f"Demo/{name}", str(home / "checkpoints"))
        assert isinstance(pipeline.mardm.onestep, FlowMapHead)
        for n in (1, 2):
            drawn = pipeline.generate(prompt, seconds=2, sampler="onestep", sampler_steps=n, snap="off")
            joints[n] = drawn[0].joints
        assert (joints[1] != joints[2]).any()
    capsys.readouterr()
    for flags, counted in (("", "1 step: 1 evaluation"), ("--sampler_steps 2", "2 steps: 2 evaluations")):
        line = f"{places} --name MARDM --device cpu --motion_length 40 --export npy {flags}".split()
        out = str(tmp_path / f"out{len(flags)}")
        assert call(sample.main, [*line, "--text_prompt", *prompt, "--output_dir", out]) == 0
        assert f"onestep, {counted} a draw" in capsys.readouterr().out


def watched(draw, seen):
    """`draw` of models/counter_rng.py, which adds the Purpose it is called with to `seen`."""

    def wrapped(*address):
        seen.update(part for part in address if isinstance(part, Purpose))
        return draw(*address)

    return wrapped


def test_the_script_makes_a_head_that_is_used_where_it_belongs(world, tmp_path, capsys, monkeypatch):
    home = linked(world, tmp_path / "home")
    run = home / "checkpoints/Demo/MARDM"
    line = f"--name MARDM {where(home)} {DISTILL} --own_motions 0.5"
    purposes = {"rng": set(), "sample_keys": set()}
    for name, seen in purposes.items():
        monkeypatch.setattr(distill_MARDM, name, watched(getattr(distill_MARDM, name), seen))
    assert call(distill_MARDM.main, f"{line} --need_evaluation") == 0
    assert purposes["rng"] and not set.intersection(*purposes.values())  # no two uses share a stream
    assert "other_grid_point" in capsys.readouterr().out
    pipeline = load("Demo/MARDM", str(home / "checkpoints"))
    assert pipeline.mardm.onestep.scales == (1.0, 4.0)
    prompt = ["a person walks forward"]
    drawn, onestep, midpoint = (
        pipeline.generate(prompt, seconds=2, sampler=name, snap="off")[0].joints
        for name in ("auto", "onestep", "midpoint")
    )
    assert (drawn == onestep).all() and (drawn != midpoint).any()
    with pytest.raises(BadInput, match="guidance from 1 to 4"):
        pipeline.generate(prompt, seconds=2, sampler="onestep", cfg=9)

    file = run / "model/onestep.tar"
    state = load_state(file)
    assert state["config"].pop("objective") == "regression"  # as older files are
    save_state(file, state)
    assert type(load("Demo/MARDM", str(home / "checkpoints")).mardm.onestep) is OneStepHead

    places = f"--dataset_name Demo --dataset_dir {home}/datasets --checkpoints_dir {home}/checkpoints"
    names = f"{places} --name MARDM --to half --to_ae half_AE"
    assert call(release.main, names) == 0  # tied anew to rounded weights
    assert load("Demo/half", str(home / "checkpoints")).mardm.onestep is not None

    assert call(distill_MARDM.main, line) == 2  # it is there already
    same_in_two_sittings(monkeypatch, home, linked(world, tmp_path / "other"), f"{DISTILL} --own_motions 0.5")

    # beside other weights it is left aside
    model = run / "model"
    (model / "net_best_fid.tar").unlink(missing_ok=True)
    (model / "latest.tar").unlink()
    flags = f"--name MARDM {PAIR} {where(home)} --batch_size 8 --epoch 1 --max_iters 2"
    assert call(train_MARDM.main, flags) == 0
    source = WeightsConfig(name="MARDM", dataset_name="Demo", checkpoints_dir=str(home / "checkpoints"))
    mardm = load_generator(source, torch.device("cpu")).mardm
    assert mardm.onestep is None and "left aside" in capsys.readouterr().out
    with pytest.raises(BadInput, match="distill_MARDM.py makes one"):
        settled(ONESTEP, mardm)


@pytest.mark.parametrize(
    "file, spoil, line",
    [
        ("MARDM/model/latest.tar", lambda state: state.pop("config"), "does not say which autoencoder"),
        (
            "length_estimator/model/finest.tar",
            lambda state: state["config"].update(text_encoder="clip"),
            "trained with clip, MARDM with minilm: run train_LengthEstimator.py",
        ),
    ],
    ids=["a generator without its autoencoder, as MARDM's", "lengths of another text encoder"],
)
def test_what_does_not_belong_together_is_not_released(world, tmp_path, capsys, file, spoil, line):
    home = linked(world, tmp_path / "home")
    file = home / "checkpoints/Demo" / file
    state = load_state(file)
    spoil(state)
    file.unlink()
    save_state(file, state)
    places = f"--dataset_name Demo --dataset_dir {home}/datasets --checkpoints_dir {home}/checkpoints"
    assert call(release.main, f"{places} --name MARDM --checkpoint latest --to half --to_ae half_AE") == 2
    assert line in capsys.readouterr().err
    assert not (home / "checkpoints/Demo/half").exists()


def test_a_length_estimator_that_does_not_say_its_text_encoder_is_released(world, tmp_path):
    """As MARDM's published one."""
    home = linked(world, tmp_path / "home")
    file = home / "checkpoints/Demo/length_estimator/model/finest.tar"
    state = load_state(file)
    del state["config"]
    file.unlink()
    save_state(file, state)
    places = f"--dataset_name Demo --dataset_dir {home}/datasets --checkpoints_dir {home}/checkpoints"
    assert call(release.main, f"{places} --name MARDM --checkpoint latest --to half --to_ae half_AE") == 0
    assert "estimator" in load_state(home / "checkpoints/Demo/half/model/net_best_fid.tar")


def test_the_student_trains_in_the_precision_asked_for(world, tmp_path, monkeypatch):
    loss, seen = OneStepHead.loss, []

    def watched(student, *given):
        seen.append(student.net.precision)
        return loss(student, *given)

    monkeypatch.setattr(OneStepHead, "loss", watched)
    home = linked(world, tmp_path / "home")
    flags = f"{DISTILL} --max_iters 1 --precision bf16"
    assert call(distill_MARDM.main, f"--name MARDM {where(home)} {flags}") == 0
    assert seen == [torch.bfloat16]


def test_haltons_order_spreads_the_tokens_of_a_round():
    """Of 64 tokens any 4 (8) that leave one after another lie in different quarters (eighths)."""
    orders = SamplingNoise(0, range(5), reveal="halton").order(64)
    assert not torch.equal(orders[0].argsort(), orders[1].argsort())
    for tokens in orders.argsort(dim=1):
        for n in (4, 8):
            for first in range(64 - n + 1):
                assert len(set((tokens[first : first + n] // (64 // n)).tolist())) == n
    odd = SamplingNoise(0, range(5), reveal="halton").order(49)
    assert (odd.sort(dim=1).values.diff(dim=1) > 0).all()  # no ties


def test_orders_of_reveal_draw_by_the_law():
    both(with_head("MARDM-SiT-XS"), replace(ONESTEP, order="halton"))
