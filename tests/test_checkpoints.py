"""A generator and its autoencoder belong together, whatever files and names they have by now."""

import shlex
import shutil
from dataclasses import fields
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import sample
from models.AE import AE_models, make_ae
from models.options import GeneratorOptions
from models.Transformer import PositionalEncoding
from motion.skeletons import SMPL22
from tests.tiny import MODEL
from utils import checkpoints
from utils.checkpoints import load_generator
from utils.config import AutoencoderConfig, RunConfig, WeightsConfig
from utils.datasets import DatasetSpec
from utils.errors import BadInput
from utils.flags import RELEASED
from utils.pipeline import load
from utils.runs import CONSTANT, Run, save_state, weights_hash
from utils.safe_load import load_state, sound

CPU = torch.device("cpu")


@pytest.fixture
def runs(demo_weights, tmp_path):
    """A folder of checkpoints: runs AE and MARDM of a few steps, and both as released weights are."""
    shutil.copytree(demo_weights, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def source(runs, name="MARDM", **more):
    return WeightsConfig(name=name, dataset_name="Demo", checkpoints_dir=str(runs), **more)


def run(runs, name):
    return Run.of(RunConfig(name=name, dataset_name="Demo", checkpoints_dir=str(runs)))


def change(path):
    """Other weights in an autoencoder's file, as further training would leave."""
    state = load_state(path)
    state["ae"] = {name: x + 0.1 if x.is_floating_point() else x for name, x in state["ae"].items()}
    save_state(path, state)


@pytest.mark.parametrize("name", ["MARDM", "demo_MARDM"])
def test_a_generator_finds_its_own_autoencoder(runs, name):
    """Its name is enough: which model it is and which autoencoder it decodes with stand in its checkpoint."""
    generator = load_generator(source(runs, name), CPU)
    assert generator.model == MODEL
    assert generator.config.part("autoencoder").text("sha256") == weights_hash(
        generator.autoencoder.ae.state_dict()
    )


def test_another_autoencoder_of_equal_shape_is_refused(runs):
    shutil.copytree(runs / "Demo/AE", runs / "Demo/Other")
    for file in (run(runs, "Other").model).glob("*.tar"):
        change(file)
    with pytest.raises(BadInput, match="trained on the tokens of autoencoder AE .*Other/model holds other"):
        load_generator(source(runs, ae_name="Other"), CPU)


def test_the_autoencoder_may_be_trained_on(runs):
    """Its best or latest file may hold other weights by then: the file with the right ones is looked for."""
    ae = run(runs, "AE")
    for file in ae.model.glob("*.tar"):
        if file != ae.latest:
            file.unlink()
    shutil.move(ae.latest, ae.previous)
    shutil.copy(ae.previous, ae.latest)
    change(ae.latest)
    assert load_generator(source(runs), CPU).autoencoder.path == ae.previous
    ae.previous.unlink()
    with pytest.raises(BadInput, match="holds other weights"):
        load_generator(source(runs), CPU)
    shutil.rmtree(ae.root)
    with pytest.raises(BadInput, match="is not there"):
        load_generator(source(runs), CPU)


def test_a_generators_file_is_read_once(runs, monkeypatch):
    """The length estimator that it carries too: it is kept, not read from the file at each request."""
    opened = []
    monkeypatch.setattr(checkpoints, "load_state", lambda path: (opened.append(path), load_state(path))[1])
    pipeline = load("Demo/demo_MARDM", checkpoints_dir=str(runs))
    for seed in (1, 2):
        pipeline.generate(["a person walks"], seed=seed, time_steps=1)
    assert sorted(path.parent.parent.name for path in opened) == ["demo_AE", "demo_MARDM"]


@pytest.mark.parametrize(
    "given, line",
    [
        ({"prompts": "a person walks"}, r"pass a list"),
        ({"prompts": []}, "list of texts"),
        ({"prompts": None}, "list of texts"),
        ({"prompts": [""]}, "none of them empty"),
        ({"prompts": ["walk", "\x00 \udcff"]}, "none of them empty"),
        ({"prompts": [3]}, "list of texts"),
        ({"prompts": ["walk", "run"], "seconds": [1]}, "2 prompts but 1 lengths"),
        ({"prompts": ["walk"], "seconds": "4"}, "seconds is '4'"),
        ({"prompts": ["walk"], "seconds": 100}, r"0.2 to 9.8 seconds"),
        ({"prompts": ["walk"], "cfg": -3}, "cfg is -3"),
        ({"prompts": ["walk"], "time_steps": 0}, "time_steps is 0"),
        ({"prompts": ["walk"], "time_steps": 2.5}, "time_steps is 2.5, not a whole number"),
        ({"prompts": ["walk"], "seed": "7"}, "seed is '7', not a whole number"),
        ({"prompts": ["walk"], "temperature": float("nan")}, "temperature is nan"),
        (
            {"prompts": ["walk"], "sampler": "midpiont"},
            "sampler is 'midpiont', not one of auto, onestep",
        ),
        ({"prompts": ["walk"], "stpes": 3}, "stpes: no such setting; there are .*time_steps"),
    ],
)
def test_a_programs_mistakes_get_one_line_in_its_own_words(pipeline, given, line):
    with pytest.raises(BadInput, match=line) as refused:
        pipeline.generate(**given)
    assert "\n" not in str(refused.value) and "--" not in str(refused.value)


def test_one_length_serves_all_prompts_and_devices_may_be_chosen(pipeline, demo_weights):
    made = pipeline.generate([" walk\udcff", "run"], seconds=2, time_steps=1, sampler_steps=None)
    assert [motion.caption for motion in made] == ["walk", "run"]
    assert [len(motion) for motion in made] == [40, 40]
    assert [motion.features.shape for motion in made] == [(40, pipeline.spec.dim)] * 2
    with pytest.raises(BadInput, match="<dataset>/<name>"):
        load("Demo")
    device = load("Demo/demo_MARDM", checkpoints_dir=str(demo_weights), device="auto").device.type
    assert device in ("cpu", "cuda")


@pytest.mark.parametrize(
    "given, line",
    [
        ({"checkpoint": "newest"}, "checkpoint is 'newest', not one of best, latest, parent"),
        ({"precision": "fp16"}, "precision is 'fp16', not one of fp32, bf16"),
        ({"checkpoints_dir": None}, "no checkpoint None/Demo/demo_MARDM/"),
        ({"device": "gpu"}, "device is 'gpu', not one of auto, cpu, cuda"),
        ({"device": None}, "device is None, not one of"),
        ({"sampler_steps": 8}, r"for a DDPM head alone: pass it to generate\(\)"),
        ({"device": "cuda:99"}, "device is 'cuda:99': not available here; pass 'cpu' or 'auto'"),
    ],
)
def test_what_cannot_be_loaded_so_gets_one_line_too(demo_weights, given, line):
    with pytest.raises(BadInput, match=line) as refused:
        load("Demo/demo_MARDM", **{"checkpoints_dir": demo_weights} | given)
    assert "\n" not in str(refused.value)


def test_from_another_folder_the_way_to_the_weights_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="one in the repository: go there, or pass") as refused:
        load("Demo/demo_MARDM")
    (place,) = shlex.split(str(refused.value).partition("--checkpoints_dir ")[2])
    assert load("Demo/demo_MARDM", place).model == "FSQ-MARDM-SiT-XS"
    with pytest.raises(BadInput, match="train that run first"):
        load("Demo/another")


def test_a_pipeline_shows_itself_in_one_line(pipeline):
    assert repr(pipeline) == "<Pipeline Demo/demo_MARDM: FSQ-MARDM-SiT-XS, minilm, cpu>"


def test_released_weights_leave_out_tables_that_every_model_makes_anew(demo_weights, pipeline):
    """They are not stored, are exact all the same, and are no part of what ties a head to its generator."""
    stored = load_state(demo_weights / "Demo/demo_MARDM/model/net_best_fid.tar")["ema_mardm"]
    assert not [name for name in stored if name.endswith(CONSTANT)]
    mardm = pipeline.mardm
    fresh = PositionalEncoding(mardm.position_enc.pe.shape[-1], 0.0)
    assert torch.equal(mardm.position_enc.pe, fresh.pe)
    assert weights_hash(mardm.state_dict()) == weights_hash(stored)
    changed = {name: x + (name == "mask_latent") for name, x in stored.items()}
    assert weights_hash(changed) != weights_hash(stored)


@pytest.mark.parametrize("weights", RELEASED)
def test_the_weights_of_the_checkout_draw_what_they_were_trained_on(weights, tmp_path):
    place = ["--weights", weights, "--output_dir", str(tmp_path), "--device", "cpu", "--time_steps", "4"]
    sample.main([*place, "--text_prompt", "a person walks forward", "--motion_length", "80"])
    (file,) = tmp_path.rglob("*.npy")
    joints = np.load(file)
    assert joints.shape == (80, 22, 3) and np.isfinite(joints).all()
    assert 0.5 < joints[..., 1].max() < 2.2 and np.linalg.norm(joints[-1, 0] - joints[0, 0]) > 0.5  # metres


def test_every_option_of_an_autoencoder_is_a_flag_and_is_read_back(tmp_path):
    """Without its flag an option of a checkpoint would silently be the default."""
    flags = {one.name for one in fields(AutoencoderConfig)}
    assert {name for entry in AE_models.values() for name in entry.func.options} <= flags
    own, config = {"codebook_size": 7, "commitment_cost": 0.5}, {"model": "VQ_AE_Model", "width": 8}
    config |= own | {"dataset": DatasetSpec("Demo", "Demo", SMPL22, 20.0, 16).as_dict()}
    state = {"config": config, "format": 1, "mean": torch.zeros(67), "std": torch.ones(67)}
    run(tmp_path, "AE").model.mkdir(parents=True)
    save_state(
        run(tmp_path, "AE").latest,
        state | {"ae": make_ae("VQ_AE_Model", width=8, codebook_size=7).state_dict()},
    )
    ae = checkpoints.load_ae(source(tmp_path), CPU, "AE").ae
    assert {name: getattr(ae, name) for name in ae.options} == own


def test_every_option_of_a_generator_is_read_back(tmp_path, monkeypatch):
    """All but those of training alone, and the levels, which are the autoencoder's."""
    run(tmp_path, "MARDM").model.mkdir(parents=True)
    save_state(run(tmp_path, "MARDM").latest, {"config": {"model": MODEL}, "ema_mardm": {}})
    make = Mock(side_effect=StopIteration)
    monkeypatch.setattr(checkpoints, "make_mardm", make)
    with pytest.raises(StopIteration):
        load_generator(source(tmp_path), CPU, autoencoder=Mock())
    others = {"cond_drop_prob", "diffmlps_batch_mul", "dropout", "levels"}
    assert {one.name for one in fields(GeneratorOptions)} - others <= make.call_args.kwargs.keys()


def test_a_long_list_of_prompts_is_drawn_in_batches(pipeline, monkeypatch):
    prompts, drawn, generate = [f"a person walks {k} steps" for k in range(5)], [], pipeline.mardm.generate
    at_once = pipeline.generate(prompts, seconds=2, time_steps=2)
    monkeypatch.setattr("utils.pipeline.BATCH", 2)
    monkeypatch.setattr(pipeline.mardm, "generate", lambda *given: drawn.append(given) or generate(*given))
    motions = pipeline.generate(prompts, seconds=2, time_steps=2)
    assert [list(keys) for *_, keys in drawn] == [[0, 1], [2, 3], [4]]
    for one, other, prompt in zip(motions, at_once, prompts, strict=True):
        assert one.caption == prompt
        np.testing.assert_allclose(one.joints, other.joints, atol=1e-4)


def test_an_empty_list_of_levels_is_damage(runs):
    path = run(runs, "demo_AE").model / "net_best_fid.tar"
    state = load_state(path)
    state["config"] |= {"model": "FSQ_AE_Model", "fsq_levels": []}
    save_state(path, state)
    with pytest.raises(BadInput, match="fsq_levels is \\[\\], not a list of at least one"):
        checkpoints.load_ae(source(runs, "demo_AE"), CPU)


def test_a_tensor_that_claims_more_than_its_file_holds_takes_no_more_memory():
    assert sound(torch.ones(3, 4)) and sound(torch.ones(3, 4).T)
    assert sound(torch.ones(1).expand(10**9, 10**9)) and not sound(torch.full((1,), torch.nan).expand(3, 4))
