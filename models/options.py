"""The options of a generator, and its sizes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GeneratorOptions:
    """How a generator is built, and what is dropped while it trains.

    attention: its initialisation, each head at one offset by a learned bias ("relative_bias", part of the
    state_dict) or by matching queries and keys ("neighbours"), or at all tokens alike ("flat"). text_tokens:
    if "on", the Transformer attends to the words of a text, which first pass text_refiner layers.
    """

    cond_drop_prob: float = 0.1  # share of texts dropped, for guidance
    diffmlps_batch_mul: int = 4  # noise draws per hidden token
    dropout: float = 0.2  # of the Transformer
    attention: str = "neighbours"  # has published weights' parameters; the default of --attention differs
    text_tokens: str = "off"
    text_refiner: int = 1
    pooled_drop_prob: float = 0.5  # share of texts whose pooled vector is dropped, which leaves the words
    head_width: int = 0  # of the head's network; 0: that of its size
    levels: tuple | None = None  # levels per grid dimension, for a Softmax head
    softmax_coordinates: str = "sequential"  # of a Softmax head: see models/Softmax.py


@dataclass(frozen=True)
class Size:
    """Widths and depth of the Transformer. head: depth and width of the head's network."""

    latent_dim: int
    ff: int
    heads: int
    head: tuple[int, int]
    layers: int = 1


SIZES = {
    "XS": Size(128, 512, 4, (4, 256)),
    "S": Size(256, 1024, 4, (8, 512)),
    "B": Size(512, 2048, 8, (12, 768)),
    "L": Size(768, 3072, 12, (12, 1280)),
    "XL": Size(1024, 4096, 16, (16, 1792)),
}
