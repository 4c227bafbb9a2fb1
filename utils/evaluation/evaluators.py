"""Load the evaluators from their files, and embed captions and motions with them.

checkpoints/<dataset>/text_mot_match/model/finest.tar       movement_encoder, text_encoder, motion_encoder;
                                                            or word_matching (word_networks.py)
checkpoints/<dataset>/text_mot_match_clip/model/finest.tar  contrast_model
Ours also hold config, format, mean, std and vocabulary; the published ones do not.
"""

from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from models.AE import STRIDE
from models.LengthEstimator import MAX_FRAMES
from models.masking import lengths_to_mask
from models.TextEncoder import TEXT_ENCODERS
from utils.checkpoints import load_into, normalizer_of
from utils.datasets import Normalizer
from utils.errors import BadInput
from utils.evaluation.evaluator_networks import MotionCLIP, contrast_sizes, matching_networks, matching_sizes
from utils.evaluation.glove import ClipTokens, WordTokens, WordVectors, has_published
from utils.evaluation.word_networks import HEADS, SIZES, WordMatching
from utils.runs import Run
from utils.safe_load import State, load_state
from utils.text_embeddings import embed_prompts

MATCHING, CONTRAST = "text_mot_match", "text_mot_match_clip"  # folders under checkpoints/<dataset>/
CLIP_TOKENS = 77  # of a caption, in the published contrast evaluator
TEXTS = 64  # captions at a time
LARGEST = 4096  # the largest valid size in a checkpoint


@dataclass
class TextMotionEvaluator:
    """The networks in eval mode. Motion is given as essential rows that are not normalised; the evaluator
    normalises them with its own statistics.
    """

    networks: dict  # movement_encoder, text_encoder, motion_encoder
    normalizer: Normalizer
    words: WordVectors
    contrast: MotionCLIP | None = None
    tokenize: object = None  # captions -> token ids of the contrast model
    test: dict | None = None  # R-precision of real test motion, measured after its training
    known: dict = field(default_factory=dict)  # (tower, caption) -> its embedding

    @classmethod
    def load(cls, run_config, spec, device, eval_mean_std=None, glove_dir="./glove", required=False):
        """The data set's evaluator, with its contrast model if there is one.

        Without an evaluator: BadInput if it is required, else None.
        """
        path = Run.of(run_config, MATCHING).model / "finest.tar"
        if not path.is_file():
            if required:
                raise BadInput(f"no evaluator for {spec.name} at {path}: train one with train_Evaluators.py")
            print(f"no evaluator at {path}: FID and R-precision are left out (train_Evaluators.py makes one)")
            return None
        state = State(load_state(path), path)
        refuse_other_features(state, spec)
        if "word_matching" in state.fields:
            kind, networks, words = WordEvaluator, *_word_matching(state, spec)
        else:
            kind, networks = cls, matching_networks(spec.dim, matching_sizes(state.fields, path))
            words = _words(state, glove_dir)
        for name, network in networks.items():
            load_into(network, state.fields[name], path)
            network.to(device).eval().requires_grad_(False)
        own = (
            Normalizer.load(eval_mean_std, spec.dim)
            if eval_mean_std
            else normalizer_of(run_config, spec, state)
        )
        evaluator = kind(networks, own, words, test=state.numbers("test"))
        evaluator._load_contrast(Run.of(run_config, CONTRAST).model / "finest.tar", spec, device)
        return evaluator

    def _load_contrast(self, path, spec, device):
        if not path.is_file():
            return
        state = State(load_state(path), path)
        weights, vocabulary = state.fields.get("contrast_model"), state.list_of("vocabulary", str)
        sizes = contrast_sizes(weights, path, heads=state.part("config").whole("contrast_heads", 1, 64, 8))
        if not vocabulary and sizes["context"] != CLIP_TOKENS:
            raise BadInput(
                f"{path} is no contrast evaluator: a vocabulary or {CLIP_TOKENS} positions expected"
            )
        try:
            self.tokenize = WordTokens(vocabulary, sizes["context"]) if vocabulary else ClipTokens()
        except (OSError, ValueError) as error:
            print(f"CLIP score is left out: {path} needs CLIP's tokenizer ({str(error).splitlines()[0]})")
            return
        contrast = MotionCLIP(spec.dim, **sizes)
        load_into(contrast, weights, path)
        self.contrast = contrast.to(device).eval().requires_grad_(False)

    @property
    def width(self):
        return self.networks["motion_encoder"].output_net[-1].out_features

    @torch.no_grad()
    def embed_text(self, tokens, texts=None):
        """Captions as lists of word/POS tokens, and as texts -> [B,D] on the CPU."""

        def embed(some):
            words, pos, lengths = self.words(some)
            return self.networks["text_encoder"](words.to(self.device), pos.to(self.device), lengths)

        return self._once("matching", [tuple(one) for one in tokens], embed)

    @torch.no_grad()
    def embed_motion(self, motion, m_lens):
        """Rows [B,T,dim] in the set's units, m_lens [B] frames -> [B,D] on the CPU; padding has no effect."""
        return self._embed_rows(self._prepared(motion, m_lens), m_lens).cpu()

    @torch.no_grad()
    def contrast_text(self, captions):
        """Strings -> unit vectors [B,C] on the CPU (published: C = 512), None without a contrast model."""
        if self.contrast is None:
            return None

        def embed(some):
            return self.contrast.encode_text(self.tokenize(some).to(self.device))

        return self._once("contrast", captions, embed)

    def _once(self, tower, captions, embed):
        """Embeddings [B,D] of captions, TEXTS at a time; kept, since other repeats need the same ones again.
        embed: list of captions -> [n,D].
        """
        new = sorted({one for one in captions if (tower, one) not in self.known})
        for start in range(0, len(new), TEXTS):
            some = new[start : start + TEXTS]
            self.known |= zip(((tower, one) for one in some), embed(some).cpu())
        return torch.stack([self.known[tower, one] for one in captions])

    @torch.no_grad()
    def contrast_motion(self, motion, m_lens):
        """As `embed_motion` -> unit vectors [B,C] on the CPU; None without a contrast model."""
        if self.contrast is None:
            return None
        return self.contrast.encode_motion(self._prepared(motion, m_lens), m_lens).cpu()

    @property
    def device(self):
        return next(next(iter(self.networks.values())).parameters()).device

    def _embed_rows(self, motion, m_lens):
        return embed_rows(self.networks, motion, m_lens)

    def _prepared(self, motion, m_lens):
        motion = self.normalizer(motion.to(self.device))
        return motion * lengths_to_mask(m_lens.to(self.device), motion.shape[1])[..., None]


@dataclass
class WordEvaluator(TextMotionEvaluator):
    """Reads captions as word states of a frozen encoder. networks: word_matching; words: encoder's name."""

    @property
    def width(self):
        return self.networks["word_matching"].text.summary.out[-1].out_features

    @torch.no_grad()
    def embed_text(self, tokens, texts=None):
        """As TextMotionEvaluator.embed_text, but reads `texts`. BadInput if the encoder has no weights."""

        def embed(some):
            states = embed_prompts(some, self.words, self.device, words=True)
            return self.networks["word_matching"].embed_text(states)

        return self._once("matching", texts, embed)

    def _embed_rows(self, motion, m_lens):
        return self.networks["word_matching"].embed_motion(motion, m_lens)


def embed_rows(networks, motion, m_lens):
    """z-normalised rows [B,T,dim], zero past each end -> [B,D].

    The second convolution reads what the first makes of the zeros after a clip, so there must always be some:
    the published evaluators saw clips padded to 196 frames, and a few zeros after the longest give the same.
    """
    room = max(min(motion.shape[1] + STRIDE, MAX_FRAMES) - motion.shape[1], 0)
    movements = networks["movement_encoder"](F.pad(motion, (0, 0, 0, room)))
    return networks["motion_encoder"](movements, m_lens // STRIDE)


def refuse_other_features(state, spec):
    """BadInput if the evaluator in `state` was trained on other headings or another rate than the set's.
    Published ones do not say.
    """
    trained = state.part("config").part("dataset").fields
    for key in ("facing", "fps"):
        if trained.get(key) not in (None, getattr(spec, key)):
            raise BadInput(
                f"{state.path} was trained with {key} {trained[key]}, {spec.name} has {getattr(spec, key)}: "
                f"remove {state.path.parents[1]} and run train_Evaluators.py anew"
            )


def _word_matching(state, spec):
    """-> the networks of a WordEvaluator, and the name of its text encoder. Raises BadInput."""
    config = state.part("config")
    sizes = {key: config.part("sizes").whole(key, 1, LARGEST) for key in SIZES}
    encoder = TEXT_ENCODERS.get(config.fields.get("text_encoder"))
    fits = encoder and (sizes["dim"], sizes["width"]) == (spec.dim, encoder.dim)
    if not fits or None in sizes.values() or sizes["hidden"] % HEADS:
        raise BadInput(f"{state.path} is no evaluator of {spec.name}: its sizes are {sizes}")
    return {"word_matching": WordMatching(sizes)}, config.fields["text_encoder"]


def _words(state, glove_dir):
    """The word vectors that this evaluator was trained with."""
    vocabulary = state.list_of("vocabulary", str)
    if vocabulary is not None:
        return WordVectors.hashed(vocabulary)
    if has_published(glove_dir):
        return WordVectors.published(glove_dir)
    raise BadInput(
        f"{state.path} was trained on the word vectors {glove_dir}/our_vab_*: "
        "bash scripts/download.sh glove fetches them"
    )
