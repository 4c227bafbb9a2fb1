"""What a released generator was trained on, in captions: how near a prompt is to them."""

from dataclasses import dataclass

import torch

from models.words import pooled_text
from utils.errors import BadInput

# Cosine of MiniLM's pooled vectors. On the demo set (python -m experiments.known_prompts) 15 of 15
# rewordings of known actions lie above it, 30 of 30 prompts of other things below.
FAR = 0.65
MOST = 1200  # captions that travel with the weights: 384 float16 numbers each, 0.9 MB


@dataclass(frozen=True)
class KnownCaptions:
    texts: list  # N of str
    rows: torch.Tensor  # [N,E], unit length
    actions: dict  # a caption of each label of the set

    @classmethod
    def of(cls, clips, labels, encode):
        """Of training clips; labels: utils.evaluation_report.read_labels; encode: N texts -> [N,E].

        Every k-th caption in alphabetical order where there are more than travel, actions where there are at
        most 200.
        """
        captions = sorted({caption.text for clip in clips for caption in clip.captions})
        texts = captions[:: -(-len(captions) // MOST)]
        actions = {label: clip.captions[0].text for (label, _), clip in zip(labels or (), clips)}
        actions = dict(sorted(actions.items())) if len(actions) <= 200 else {}
        return cls(texts, torch.nn.functional.normalize(encode(texts).cpu().float()), actions)

    def as_dict(self):
        """For a checkpoint."""
        return {"texts": self.texts, "rows": self.rows.half(), "actions": self.actions}

    @classmethod
    def from_state(cls, state):
        """A checkpoint's part (utils.safe_load.State), checked -> KnownCaptions, None where it is empty."""
        fields = state.fields
        if not fields:
            return None
        texts, rows, actions = (fields.get(key) for key in ("texts", "rows", "actions"))
        named = isinstance(texts, list) and isinstance(actions, dict)
        strings = named and all(isinstance(text, str) for text in [*texts, *actions, *actions.values()])
        if not strings or not isinstance(rows, torch.Tensor) or rows.ndim != 2 or len(rows) != len(texts):
            raise BadInput(f"{state.path}: its captions and their embeddings do not match")
        return cls(texts, torch.nn.functional.normalize(rows.float()), actions)

    def nearest(self, text):
        """Embedded prompts [B,E] or [B,1+W,E] -> [(caption, cosine)]."""
        similarity, index = (torch.nn.functional.normalize(pooled_text(text).cpu()) @ self.rows.T).max(dim=1)
        return [(self.texts[i], s) for s, i in zip(similarity.tolist(), index.tolist())]

    def warnings(self, prompts, text):
        """A line for every prompt that is far from all of them."""
        for prompt, (caption, cosine) in zip(prompts, self.nearest(text)):
            if cosine < FAR:
                yield (
                    f"{prompt[:60]!r} is unlike anything these weights were trained on; the nearest caption "
                    f"is {caption!r} (similarity {cosine:.2f}, below {FAR})"
                )
