"""Checkpoints of MARDM through the ordinary loaders: strictly, under its own rules.

The files are written here as `state_dict_keys.json` and the goldens describe them: MARDM's keys and
names, no `format`, no `config`, no statistics. No published weight is at hand; numbers of real ones cannot be
checked.
"""

import json
import pickle
from functools import partial

import numpy as np
import pytest
import torch

import sample
import utils.checkpoints as checkpoints
from models.AE import make_ae
from models.DiffMLPs import DiffMLPs_DDPM, DiffMLPs_models, DiffMLPs_SiT
from models.LengthEstimator import LengthEstimator
from models.MARDM import MARDM, MARDM_models
from models.options import SIZES, Size
from models.sampling import SamplingConfig, resolve_sampling
from tests.conftest import outside
from tests.test_goldens import SAMPLERS, close, recorded_noise
from utils.checkpoints import load_ae, load_generator, load_length_estimator, make_mardm, statistics_of
from utils.config import EvaluationConfig, LoaderConfig, TrainingConfig, WeightsConfig
from utils.data.clips import Caption, Clip
from utils.datasets import DATASETS, Normalizer, TextMotionSet
from utils.errors import BadInput
from utils.eval_utils import EvaluationRun
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.motion_process import recover_from_ric
from utils.pipeline import Pipeline
from utils.runs import Run
from utils.training.training_loop import Best, TrainingLoop

CPU = torch.device("cpu")


@pytest.fixture
def classes():
    """Class name -> its official tensors, {name: one number seen as the official shape}: tiny files."""
    file = outside("FSQ_MARDM_GOLDENS", "../shared/goldens") / "state_dict_keys.json"
    recorded = json.loads(file.read_text())["classes"]
    return {
        name: {t["name"]: torch.tensor(0.01).expand(t["shape"]) for t in entry["tensors"]}
        for name, entry in recorded.items()
    }


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty place for MARDM's files, with statistics for published weights and without a data set."""
    monkeypatch.setattr(checkpoints, "FALLBACK_STATISTICS", tmp_path / "eval_mean_std")
    for spec in DATASETS.values():
        folder = tmp_path / "eval_mean_std" / spec.name
        folder.mkdir(parents=True)
        np.save(folder / "eval_mean.npy", np.full(spec.dim, 0.25, np.float32))
        np.save(folder / "eval_std.npy", np.full(spec.dim, 2.0, np.float32))
    return tmp_path


def write(home, dataset, run, file, **state):
    path = home / "checkpoints" / dataset / run / "model" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def flags(home, dataset="t2m", model="MARDM-SiT-XL", checkpoint="parent", **more):
    return WeightsConfig(
        checkpoints_dir=home / "checkpoints",
        dataset_dir=home / "datasets",
        dataset_name=dataset,
        name="MARDM",
        ae_name="AE",
        ae_model="AE_Model",
        model=model,
        checkpoint=checkpoint,
        **more,
    )


def parent_state(ep=7, **weights):
    """The keys of MARDM's latest.tar."""
    return {**weights, "scheduler": {"milestones": {50000: 1}, "last_epoch": 90}, "ep": ep, "total_it": 90}


@pytest.mark.parametrize("dataset", ["t2m", "kit"])
def test_autoencoders_load_under_the_parents_rule(home, classes, dataset):
    """`--checkpoint parent`: latest.tar for t2m, net_best_fid.tar for kit; either may hold what it likes."""
    good, bad = {"t2m": ("latest", "net_best_fid"), "kit": ("net_best_fid", "latest")}[dataset]
    write(home, dataset, "AE", f"{good}.tar", **parent_state(ae=classes[f"AE_{dataset}"], opt_ae={}))
    write(home, dataset, "AE", f"{bad}.tar", ae={})
    autoencoder = load_ae(flags(home, dataset), CPU)
    assert autoencoder.path.name == f"{good}.tar"
    assert autoencoder.ae.dim == autoencoder.spec.dim == {"t2m": 67, "kit": 64}[dataset]
    assert all((p == 0.01).all() for p in autoencoder.ae.parameters())
    assert autoencoder.ae.mask_padding is False and not autoencoder.ae.training
    assert (autoencoder.normalizer.mean == 0.25).all() and len(
        autoencoder.normalizer.std
    ) == autoencoder.spec.dim


@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_loading_is_strict(home, classes, change):
    weights = classes["AE_t2m"]
    name = next(iter(weights))
    if change == "missing":
        del weights[name]
    elif change == "surplus":
        weights["encoder.model.9.weight"] = torch.zeros(1)
    else:
        weights[name] = weights[name][1:]
    write(home, "t2m", "AE", "latest.tar", ae=weights)
    found = {"missing": f"it lacks {name}", "surplus": "it has besides encoder.model.9.weight"}
    found = found.get(change, f"{name} has the sizes .*, not ")
    with pytest.raises(BadInput, match=f"latest.tar does not fit the model: {found}.*: pass the model that"):
        load_ae(flags(home), CPU)


@pytest.mark.filterwarnings("ignore:for .* a meta parameter")
@pytest.mark.parametrize("name", ["MARDM-SiT-XL", "MARDM-DDPM-XL"])
def test_generators_load_at_official_size(home, classes, name):
    """1.2 GB of weights, so on the meta device: names and shapes are checked, nothing is allocated."""
    weights = classes[name]
    state = parent_state(mardm=weights, ema_mardm=weights, opt_mardm={})
    write(home, "t2m", "MARDM", "latest.tar", **state)
    with torch.device("meta"):
        ae = make_ae("AE_Model", mask_padding=False)
        autoencoder = checkpoints.TrainedAutoencoder(ae, "AE_Model", DATASETS["t2m"], None, {}, home, 0)
        generator = load_generator(flags(home, model=name), "meta", autoencoder)
        assert generator.config.fields == {}
        assert sum(p.numel() for p in generator.mardm.parameters()) == 290_816_512
        del weights["cond_emb.bias"]
        write(home, "t2m", "MARDM", "latest.tar", **state)
        with pytest.raises(BadInput, match="cond_emb.bias"):
            load_generator(flags(home, model=name), "meta", autoencoder)


@pytest.fixture(params=["SiT", "DDPM"])
def published(request, home, goldens, monkeypatch):
    """The goldens' weights in MARDM's files, under the official names -> (flags, recorded)."""
    ae, recorded = goldens("ae.pt"), goldens(f"mardm_{request.param.lower()}.pt")
    c = recorded["config"]
    model = f"MARDM-{request.param}-XL"
    head = {"SiT": DiffMLPs_SiT, "DDPM": DiffMLPs_DDPM}[request.param]
    monkeypatch.setitem(
        SIZES, "XL", Size(c["latent_dim"], c["ff_size"], c["num_heads"], (1, 8), c["num_layers"])
    )
    monkeypatch.setitem(
        DiffMLPs_models,
        f"{request.param}-XL",
        partial(head, depth=c["diffmlps_depth"], width=c["diffmlps_width"]),
    )
    narrow = partial(make_ae, width=ae["config"]["width"])
    monkeypatch.setattr(checkpoints, "make_ae", lambda *a, width, **k: narrow(*a, **k))
    write(home, "t2m", "AE", "latest.tar", **parent_state(ae=ae["weights"]))
    raw = {name: torch.zeros_like(x) for name, x in recorded["weights"].items()}
    state = parent_state(mardm=raw, ema_mardm=recorded["weights"], opt_mardm={})
    write(home, "t2m", "MARDM", "latest.tar", **state)
    return flags(home, model=model), recorded


def test_a_loaded_pair_draws_the_parents_motion(published):
    """From files to tokens: the averaged weights, no target statistics, its padding, its loop."""
    args, recorded = published
    generator = load_generator(args, CPU)
    autoencoder, mardm = generator.autoencoder, generator.mardm
    assert (mardm.target_mean == 0).all() and (mardm.target_std == 1).all()
    assert autoencoder.ae.mask_padding is False
    loop = recorded["generate"]
    given, order = loop["inputs"], loop["draws"]["order_uniforms"]
    sampler = SAMPLERS[args.model.split("-")[1]]
    sampling = SamplingConfig(time_steps=given["timesteps"], cfg=given["cfg"], sampler=sampler)
    hidden = loop["is_mask_per_step"][0]
    noise = recorded_noise(loop, hidden, order, sampling.time_steps, mardm.DiffMLPs.noise_shape)
    drawn = mardm.generate(autoencoder.ae, given["cond"], given["lengths"], sampling, noise).mT
    if "DDPM" in args.model:
        close(drawn, loop["out"], 1e-4)
    else:  # the adaptive solver is reproducible to about 1e-2 only
        torch.testing.assert_close(drawn, loop["out"], atol=2e-1, rtol=0)


def test_the_length_estimator_loads_and_ignores_its_trainers_keys(home, goldens):
    recorded = goldens("length_estimator.pt")
    state = {"estimator": recorded["weights"], "opt_estimator": {}, "epoch": 3, "iterations": 9}
    write(home, "t2m", "length_estimator", "finest.tar", **state)
    estimator = load_length_estimator(flags(home), "clip-vit-b32", 512, CPU)
    with torch.no_grad():
        close(estimator(recorded["inputs"]["text_embedding"]), recorded["outputs"]["logits"])
    write(home, "t2m", "length_estimator", "finest.tar", **state, config={"text_encoder": "minilm"})
    with pytest.raises(BadInput, match="trained with the text encoder minilm.*--text_encoder clip-vit-b32"):
        load_length_estimator(flags(home), "clip-vit-b32", 512, CPU)


def put_word_vectors(folder, words):
    """The three published files, for a few words."""
    folder.mkdir()
    np.save(folder / "our_vab_data.npy", np.random.default_rng(0).normal(size=(len(words), 300)))
    for name, content in (("words", words), ("idx", {word: i for i, word in enumerate(words)})):
        (folder / f"our_vab_{name}.pkl").write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("dataset", ["t2m", "kit"])
def test_judges_load_at_official_size(home, classes, dataset):
    put_word_vectors(home / "glove", ["sos", "eos", "unk", "walk"])
    write(
        home,
        dataset,
        "text_mot_match",
        "finest.tar",
        movement_encoder=classes[f"MovementConvEncoder_{dataset}"],
        text_encoder=classes["TextEncoderBiGRUCo"],
        motion_encoder=classes["MotionEncoderBiGRUCo"],
        opt_text_encoder={},
        epoch=1,
    )
    spec = DATASETS[dataset]
    evaluator = TextMotionEvaluator.load(flags(home, dataset), spec, CPU, glove_dir=home / "glove")
    assert (
        evaluator.width == 512 and (evaluator.normalizer.std == 2).all() and evaluator.words.source == "glove"
    )
    found = evaluator.embed_motion(torch.randn(2, 48, spec.dim), torch.tensor([48, 20]))
    assert found.shape == (2, 512) and torch.isfinite(found).all()
    assert torch.isfinite(evaluator.embed_text([["walk/VERB"], ["person/NOUN", "walk/VERB"]])).all()


def test_a_loaded_judge_gives_the_parents_embeddings(home, goldens):
    recorded = goldens("evaluators.pt")
    weights, given, expected = recorded["weights"], recorded["inputs"], recorded["outputs"]
    contrast = {"contrast_model": weights.pop("contrast_model")}
    put_word_vectors(home / "glove", ["sos", "eos", "unk"])
    write(home, "t2m", "text_mot_match", "finest.tar", **weights)
    evaluator = TextMotionEvaluator.load(flags(home), DATASETS["t2m"], CPU, glove_dir=home / "glove")
    assert evaluator.contrast is None and evaluator.contrast_text(["walk"]) is None
    ours = evaluator.networks
    with torch.no_grad():
        movement = ours["movement_encoder"](given["motion"])
        motion = ours["motion_encoder"](movement, given["motion_lengths"] // 4)
        text = ours["text_encoder"](given["word_embeddings"], given["pos_one_hot"], given["caption_lengths"])
    close(motion[expected["align_idx"]], expected["motion_embedding"])
    close(text, expected["text_embedding_unsorted"])
    write(home, "t2m", "text_mot_match_clip", "finest.tar", **contrast)
    heads = {"config": {"contrast_heads": recorded["config"]["contrast"]["heads"]}}
    vocabulary = {"vocabulary": [f"w{i}" for i in range(197)]}  # stands in for CLIP's own tokenizer
    write(home, "t2m", "text_mot_match_clip", "finest.tar", **contrast, **heads, **vocabulary)
    evaluator = TextMotionEvaluator.load(flags(home), DATASETS["t2m"], CPU, glove_dir=home / "glove")
    close(evaluator.contrast.encode_text(given["clip_tokens"]), expected["clip_text"])


@pytest.mark.parametrize(("dataset", "joints"), [("t2m", 22), ("kit", 21)])
def test_sample_draws_with_published_files_alone(home, monkeypatch, dataset, joints):
    """sample.py with MARDM's files: no data set, lengths estimated, its solver."""
    torch.manual_seed(0)
    monkeypatch.setitem(
        MARDM_models, "MARDM-SiT-XL", partial(MARDM, kind="continuous", head="SiT", size="XS")
    )
    narrow = partial(make_ae, width=16)
    monkeypatch.setattr(checkpoints, "make_ae", lambda *a, width, **k: narrow(*a, **k))
    monkeypatch.setattr(Pipeline, "embed", lambda self, prompts: torch.ones(len(prompts), 512))
    monkeypatch.setattr(Pipeline, "warnings", lambda *_: [])  # they ask the text encoder
    ae = narrow("AE_Model", dim=DATASETS[dataset].dim).state_dict()
    write(home, dataset, "AE", f"{DATASETS[dataset].mardm_ae}.tar", **parent_state(ae=ae))
    weights = MARDM_models["MARDM-SiT-XL"](ae_dim=16, target_dim=16).state_dict()
    write(home, dataset, "SiT", "latest.tar", **parent_state(mardm=weights, ema_mardm=weights))
    estimator = LengthEstimator(512, 50).state_dict()
    write(home, dataset, "length_estimator", "finest.tar", estimator=estimator)
    line = (
        f"--name SiT --dataset_name {dataset} --checkpoints_dir {home}/checkpoints "
        f"--dataset_dir {home}/none --output_dir {home}/out --checkpoint parent --sampler dopri5 "
        "--time_steps 2 --device cpu --export npy"
    )
    assert not sample.main([*line.split(), "--text_prompt", "a person walks"])
    (file,) = (home / "out" / f"SiT_{dataset}").glob("*.npy")
    drawn = np.load(file)
    assert drawn.shape[1:] == (joints, 3) and np.isfinite(drawn).all()
    shortest = DATASETS[dataset].min_frames
    assert shortest <= len(drawn) <= 196 and len(drawn) % 4 == 0


def test_a_parents_run_is_not_continued(home):
    """Its optimizer numbers CLIP too, its schedule is another class, its targets have no statistics."""
    write(home, "t2m", "MARDM", "latest.tar", **parent_state(mardm={}, ema_mardm={}, opt_mardm={}))
    args = flags(home)
    training, loading = TrainingConfig(epoch=1, is_continue=True), LoaderConfig(batch_size=1, seed=0)
    before = sorted(home.rglob("*"))
    with pytest.raises(BadInput, match="MARDM.*train anew under another --name"):
        TrainingLoop(training, loading, Run.of(args), CPU, parts={}, constants={}, best=Best(()))
    assert sorted(home.rglob("*")) == before


def test_statistics_come_from_the_data_set_first(home):
    args, spec = flags(home), DATASETS["t2m"]
    assert (statistics_of(args, spec).mean == 0.25).all()
    folder = home / "datasets" / spec.folder
    folder.mkdir(parents=True)
    np.save(folder / "Mean.npy", np.full(263, 0.5))
    np.save(folder / "Std.npy", np.ones(263))
    own = statistics_of(args, spec)
    assert (own.mean == 0.5).all() and own.mean.shape == (67,)


def ddpm(**options):
    ae = make_ae("AE_Model", width=8)
    return make_mardm("MARDM-DDPM-XS", ae, 16, **options)


@pytest.mark.parametrize(
    ("options", "trained", "sampled"),
    [
        ({}, 50, 50),
        ({"ddpm_steps": 1000}, 1000, 50),
        ({"ddpm_steps": 1000, "sample_steps": 20}, 1000, 20),
        ({"ddpm_steps": 30}, 30, 30),
        ({"sample_steps": 10}, 50, 10),
    ],
)
def test_a_ddpm_head_may_have_a_longer_schedule(options, trained, sampled):
    head = ddpm(**options).DiffMLPs
    assert (len(head.schedule), len(head.sampling_schedule)) == (trained, sampled)
    assert head.noise_shape == (1 + sampled, 8)
    assert head.sampling_schedule.timestep_map[[0, -1]].tolist() == [0, trained - 1]  # the network's own


def test_the_length_of_a_diffusion_travels_in_the_checkpoint(home):
    ae = make_ae("AE_Model", width=8)
    autoencoder = checkpoints.TrainedAutoencoder(ae, "AE_Model", DATASETS["t2m"], None, {}, home, 0)
    weights = ddpm().state_dict()
    config = {"text_dim": 16, "ddpm_steps": 1000}
    write(home, "t2m", "MARDM", "latest.tar", format=1, ema_mardm=weights, config=config)
    asked = partial(flags, home, model="MARDM-DDPM-XS", checkpoint="latest")
    head = load_generator(asked(), CPU, autoencoder).mardm.DiffMLPs
    assert (len(head.schedule), len(head.sampling_schedule)) == (1000, 50)
    mardm = load_generator(asked(sampler_steps=25), CPU, autoencoder).mardm
    assert len(mardm.DiffMLPs.sampling_schedule) == 25
    drawn = mardm.generate(ae, torch.ones(2, 16), torch.tensor([3, 2]), SamplingConfig(time_steps=2))
    assert drawn.shape == (2, 3, 8) and torch.isfinite(drawn).all()
    assert resolve_sampling(SamplingConfig(), mardm).sampler == "ddpm"
    with pytest.raises(ValueError, match="loaded to sample in 25 steps, not 20"):
        resolve_sampling(SamplingConfig(sampler_steps=20), mardm)
    with pytest.raises(ValueError, match="sampler midpoint.*does not have it, but ddpm"):
        resolve_sampling(SamplingConfig(sampler="midpoint"), mardm)
    for steps in (1, 1001):
        with pytest.raises(BadInput, match=f"sampler_steps: .*1000 steps.*in {steps}"):
            load_generator(asked(sampler_steps=steps), CPU, autoencoder)


def test_the_parents_protocol_pads_as_the_parent():
    """Reconstructions of an autoencoder of MARDM are those of clips padded to 196 frames."""
    torch.manual_seed(0)
    ae = make_ae("AE_Model", width=8, mask_padding=False).eval()
    motions = [np.random.default_rng(n).normal(size=(n, 67)).astype(np.float32) for n in (24, 60)]
    caption = (Caption("walk", ("walk/VERB",)),)
    clips = [Clip(str(len(motion)), motion, caption) for motion in motions]
    normalizer = Normalizer(np.zeros(67), np.ones(67))
    dataset = TextMotionSet(clips, normalizer)
    spec = DATASETS["t2m"]
    found = {}
    with torch.no_grad():
        for protocol in ("full", "parent"):
            evaluation = EvaluationRun(None, dataset, spec, CPU, EvaluationConfig(protocol=protocol))
            found[protocol] = evaluation.reconstructed(ae).joints
        for i, motion in enumerate(motions):
            padded = torch.zeros(1, 196, 67)
            padded[0, : len(motion)] = torch.from_numpy(motion)
            expected = recover_from_ric(ae(padded)[:, : len(motion)], 22)[0].numpy()
            np.testing.assert_allclose(found["parent"][i], expected, atol=1e-4)
    assert np.abs(found["full"][0] - found["parent"][0]).max() > 1e-3
