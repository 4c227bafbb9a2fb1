"""The evaluators' networks, which embed a caption and its motion close together in one space.

Matching networks: Guo et al., "Generating Diverse and Natural 3D Human Motions from Text", CVPR 2022, here
on essential rows. Contrast model: a CLIP over motion and text (Radford et al. 2021), for the CLIP score.
Names of modules and parameters are those of the published weights.
B batch, T frames, L = T/4 tokens, S words, H hidden width, D embedding width.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from models.layers import sinusoid_table
from models.masking import lengths_to_mask
from utils.errors import BadInput
from utils.evaluation.glove import PARTS_OF_SPEECH, WORD_SIZE

POS_SIZE = len(PARTS_OF_SPEECH)


class MovementConvEncoder(nn.Module):
    """Rows of motion [B,T,C] -> movement tokens [B,T/4,output_size]: two strided convolutions."""

    def __init__(self, input_size, hidden_size=512, output_size=512, dropout=0.2):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv1d(input_size, hidden_size, kernel_size=4, stride=2, padding=1),
            nn.Dropout(dropout),
            nn.LeakyReLU(0.2),
            nn.Conv1d(hidden_size, output_size, kernel_size=4, stride=2, padding=1),
            nn.Dropout(dropout),
            nn.LeakyReLU(0.2),
        )
        self.out_net = nn.Linear(output_size, output_size)

    def forward(self, motion):
        return self.out_net(self.main(motion.mT).mT)


class _BiGRU(nn.Module):
    """A sequence -> one vector: linear layer, bidirectional GRU, its two last states through an MLP."""

    def __init__(self, input_size, hidden_size, output_size):
        super().__init__()
        self.input_emb = nn.Linear(input_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True, bidirectional=True)
        self.hidden = nn.Parameter(torch.randn(2, 1, hidden_size))  # the first state, learned
        self.output_net = nn.Sequential(
            nn.Linear(2 * hidden_size, hidden_size),
            nn.LayerNorm(hidden_size),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden_size, output_size),
        )

    def summary(self, sequence, lengths):
        """sequence [B,S,input_size], lengths [B] -> [B,output_size]; padding has no effect."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.input_emb(sequence), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        start = self.hidden.expand(-1, len(sequence), -1).contiguous()
        last = self.gru(packed, start)[1]  # [2,B,H], in the order of the input
        return self.output_net(torch.cat([last[0], last[1]], dim=-1))


class TextEncoderBiGRUCo(_BiGRU):
    """Word vectors [B,S,300] and parts of speech [B,S,15] -> [B,output_size]."""

    def __init__(self, word_size=WORD_SIZE, pos_size=POS_SIZE, hidden_size=512, output_size=512):
        super().__init__(word_size, hidden_size, output_size)
        self.pos_emb = nn.Linear(pos_size, word_size)

    def forward(self, words, pos, lengths):
        return self.summary(words + self.pos_emb(pos), lengths)


class MotionEncoderBiGRUCo(_BiGRU):
    """Movement tokens [B,L,input_size], lengths in tokens -> [B,output_size]."""

    def __init__(self, input_size=512, hidden_size=1024, output_size=512):
        super().__init__(input_size, hidden_size, output_size)

    def forward(self, movements, token_lens):
        return self.summary(movements, token_lens)


class _SinusoidalPositions(nn.Module):
    """Adds sinusoidal positions (Vaswani et al. 2017); the published weights hold the table [max_len,d]."""

    def __init__(self, d_model, max_len=2000):
        super().__init__()
        self.register_buffer("pe", sinusoid_table(max_len, d_model))

    def forward(self, x):
        return x + self.pe[: x.shape[1]]


def _transformer(d_model, ff, layers, heads):
    layer = nn.TransformerEncoderLayer(d_model, heads, ff, dropout=0, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class _MotionTransformer(nn.Module):
    """Motion [B,T,C] -> [B,out]: the output at a learned query token, which attends to the real frames."""

    def __init__(self, in_dim, d_model, ff, layers, heads, out):
        super().__init__()
        self.query_token = nn.Parameter(torch.randn(1, d_model))
        self.embed_motion = nn.Linear(in_dim, d_model)
        self.sequence_pos_encoder = _SinusoidalPositions(d_model)
        self.transformer = _transformer(d_model, ff, layers, heads)
        self.out_ln = nn.LayerNorm(d_model)
        self.out = nn.Linear(d_model, out)

    def forward(self, motion, m_lens):
        query = self.query_token.expand(len(motion), 1, -1)
        sequence = self.sequence_pos_encoder(torch.cat([query, self.embed_motion(motion)], dim=1))
        padding = ~lengths_to_mask(m_lens.to(motion.device) + 1, sequence.shape[1])
        return self.out(self.out_ln(self.transformer(sequence, src_key_padding_mask=padding)[:, 0]))


class MotionCLIP(nn.Module):
    """The contrast model: motion and token ids into one space of unit vectors. It trains without dropout,
    which would double the time.

    vocabulary_size: number of token ids; context: the most tokens of a caption.
    """

    def __init__(self, in_dim, d_model=512, layers=8, heads=8, vocabulary_size=49408, context=77, out=512):
        super().__init__()
        ff = 2 * d_model
        self.motion_encoder = _MotionTransformer(in_dim, d_model, ff, layers, heads, out)
        self.token_embedding = nn.Embedding(vocabulary_size, d_model)
        self.positional_embedding = nn.Parameter(torch.randn(context, d_model) * 0.01)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.textTransEncoder = _transformer(d_model, ff, layers, heads)
        self.text_ln = nn.LayerNorm(d_model)
        self.out = nn.Linear(d_model, out)

    def encode_motion(self, motion, m_lens):
        """motion [B,T,C], m_lens [B] frames -> unit vectors [B,out]."""
        return F.normalize(self.motion_encoder(motion, m_lens), dim=-1)

    def encode_text(self, tokens):
        """Token ids [B,context], zero past the end -> unit vectors [B,out], the output at the end token.

        No mask: the published model attends to the padding too. The end token is the one with the largest id.
        """
        sequence = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        hidden = self.text_ln(self.textTransEncoder(sequence))
        return F.normalize(self.out(hidden[torch.arange(len(tokens)), tokens.argmax(dim=-1)]), dim=-1)


def matching_networks(dim, sizes):
    """sizes: movement, text, motion (hidden widths) and embedding -> the three networks by their keys."""
    return {
        "movement_encoder": MovementConvEncoder(dim, sizes["movement"], sizes["movement"]),
        "text_encoder": TextEncoderBiGRUCo(hidden_size=sizes["text"], output_size=sizes["embedding"]),
        "motion_encoder": MotionEncoderBiGRUCo(sizes["movement"], sizes["motion"], sizes["embedding"]),
    }


def matching_sizes(state, path):
    """Hidden widths, read from the shapes of a checkpoint: published ones have no config."""
    try:
        return {
            "movement": state["movement_encoder"]["main.0.weight"].shape[0],
            "text": state["text_encoder"]["input_emb.weight"].shape[0],
            "motion": state["motion_encoder"]["input_emb.weight"].shape[0],
            "embedding": state["motion_encoder"]["output_net.3.weight"].shape[0],
        }
    except (KeyError, AttributeError, TypeError, IndexError):
        raise BadInput(
            f"{path} is no evaluator: movement_encoder, text_encoder, motion_encoder expected"
        ) from None


def contrast_sizes(weights, path, heads):
    try:
        token_rows, d_model = weights["token_embedding.weight"].shape
        if d_model % heads:
            raise ValueError(f"{heads} heads do not divide a width of {d_model}")
        return {
            "d_model": d_model,
            "layers": sum(key.endswith("linear1.weight") for key in weights) // 2,
            "heads": heads,
            "vocabulary_size": token_rows,
            "context": weights["positional_embedding"].shape[0],
            "out": weights["out.weight"].shape[0],
        }
    except (KeyError, AttributeError, TypeError, ValueError, IndexError):
        raise BadInput(f"{path} is no contrast evaluator: key contrast_model expected") from None
