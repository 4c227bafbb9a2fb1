"""BERT's encoder (Devlin et al., NAACL 2019) from a folder of the hub, without `transformers`: importing that
takes longer than everything else that a prompt needs. Tests compare the two.
"""

import json
import threading
from types import SimpleNamespace

import torch
from torch import nn

from models.layers import Linear
from models.Transformer import Attention

LAYER = {  # our names <- BERT's
    "attn.query": "attention.self.query",
    "attn.key": "attention.self.key",
    "attn.value": "attention.self.value",
    "attn.proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "norm2": "output.LayerNorm",
}


class Layer(nn.Module):
    """A post-norm layer: attention, then feed-forward, each added to its input and normalised."""

    def __init__(self, dim, heads, hidden, eps):
        super().__init__()
        self.attn = Attention(dim, heads, dropout=0.0)
        self.fc1, self.fc2 = Linear(dim, hidden), Linear(hidden, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)

    def forward(self, x, inside):
        x = self.norm1(x + self.attn(x, inside))
        return self.norm2(x + self.fc2(nn.functional.gelu(self.fc1(x))))


class Bert(nn.Module):
    """BERT's encoder. config: the content of its config.json."""

    def __init__(self, config):
        super().__init__()
        dim, eps = config["hidden_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], dim)
        self.places = nn.Embedding(config["max_position_embeddings"], dim)
        self.kinds = nn.Embedding(config["type_vocab_size"], dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        shape = dim, config["num_attention_heads"], config["intermediate_size"], eps
        self.layers = nn.ModuleList(Layer(*shape) for _ in range(config["num_hidden_layers"]))

    def forward(self, input_ids, attention_mask):
        """Both int64 [N,S] -> states, as `last_hidden_state` [N,S,E]."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.words(input_ids) + self.kinds.weight[0] + self.places(places))
        inside = attention_mask != 0
        for layer in self.layers:
            x = layer(x, inside)
        return SimpleNamespace(last_hidden_state=x)

    def load(self, weights):
        """Load a state_dict with BERT's names; KeyError where one is missing. -> self"""
        state = {}
        for name, theirs in (("words", "word"), ("places", "position"), ("kinds", "token_type")):
            state[f"{name}.weight"] = weights[f"embeddings.{theirs}_embeddings.weight"]
        for kind in ("weight", "bias"):
            state[f"norm.{kind}"] = weights[f"embeddings.LayerNorm.{kind}"]
            for i in range(len(self.layers)):
                state |= {
                    f"layers.{i}.{ours}.{kind}": weights[f"encoder.layer.{i}.{theirs}.{kind}"]
                    for ours, theirs in LAYER.items()
                }
        self.load_state_dict(state)
        return self


class WordPieces:
    """The tokenizer of a tokenizer.json, with the call interface of `transformers`."""

    def __init__(self, file):
        from tokenizers import Tokenizer

        self.tokenizer, self.lock = Tokenizer.from_file(str(file)), threading.Lock()

    def __call__(self, texts, max_length=None, **_):
        """N strings -> {"input_ids", "attention_mask"}, int64 [N,S], rows cut and padded; one string ->
        {"input_ids": list}, not cut.
        """
        with self.lock:  # truncation is a setting of the tokenizer, which threads share
            if isinstance(texts, str):
                self.tokenizer.no_truncation()
                return {"input_ids": self.tokenizer.encode(texts).ids}
            self.tokenizer.enable_truncation(max_length)
            self.tokenizer.enable_padding()
            rows = self.tokenizer.encode_batch(texts)
        return {
            "input_ids": torch.tensor([row.ids for row in rows]),
            "attention_mask": torch.tensor([row.attention_mask for row in rows]),
        }


def from_folder(folder, weights):
    """-> (tokenizer, model), or None where the folder holds no plain BERT. weights: its model.safetensors."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    plain = config.get("model_type") == "bert" and config.get("hidden_act") == "gelu"
    if not plain or not weights or not (folder / "tokenizer.json").is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return WordPieces(folder / "tokenizer.json"), Bert(config).load(load(weights))
    except SafetensorError as error:
        raise ValueError(f"model.safetensors: {error}") from None
