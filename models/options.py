"""The choices of a generator, and its sizes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GeneratorOptions:
    """What a generator is built of, and what is left out while it trains.

    attention: how it begins, by a learned bias of each head for one offset ("relative_bias", part of the
    state_dict), by queries and keys that match at that offset ("neighbours"), or at all tokens alike
    ("flat"). text_tokens: "on", the Transformer attends to the words of a text, which text_refiner layers
    read first.
    """

    cond_drop_prob: float = 0.1  # share of texts left out
    diffmlps_batch_mul: int = 4  # noise draws per hidden token
    dropout: float = 0.2  # of the Transformer
    attention: str = "neighbours"  # the parameters of published weights; --attention has another default
    text_tokens: str = "off"
    text_refiner: int = 1
    pooled_drop_prob: float = 0.5  # share of texts of which the words alone are left
    head_width: int = 0  # of the head's network; 0: that of its size
    levels: tuple | None = None  # of the grid, which a Softmax head classifies
    softmax_coordinates: str = "sequential"  # of a Softmax head: see models/Softmax.py


@dataclass(frozen=True)
class Size:
    """Of the Transformer."""

    latent_dim: int
    ff: int
    heads: int
    layers: int = 1


SIZES = {
    "XS": Size(128, 512, 4),
    "S": Size(256, 1024, 4),
    "B": Size(512, 2048, 8),
    "L": Size(768, 3072, 12),
    "XL": Size(1024, 4096, 16),
}
