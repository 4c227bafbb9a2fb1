"""The captions that a released generator was trained on, and how near a prompt is to them."""

from dataclasses import dataclass

import torch

from models.words import pooled_text
from utils.errors import BadInput
from utils.safe_load import sound

# Cosine of pooled vectors below which a prompt is unknown, for encoders with a chosen threshold. On the demo
# set (python -m experiments.known_prompts) 15 of 15 rewordings of known actions lie above it, 30 of 30
# prompts of other things below.
FAR = {"minilm": 0.65}
MOST = 1200  # captions kept with the weights: 384 float16 numbers each, 0.9 MB
MOST_ACTIONS = 200


@dataclass(frozen=True)
class KnownCaptions:
    texts: list  # N of str
    rows: torch.Tensor  # [N,E], unit length
    actions: dict  # label of the set -> a caption

    @classmethod
    def of(cls, clips, labels, encode):
        """Those of training clips. labels: utils.evaluation_report.read_labels; encode: N texts -> [N,E].

        Of more than MOST captions the shortest, which name single actions. Actions are the labels of the set;
        if too many, without the demo set's sequences ("walk+hop"); if still too many, none.
        """
        captions = {caption.text for clip in clips for caption in clip.captions}
        texts = sorted(captions, key=lambda text: (len(text), text))[:MOST]
        actions = {label: clip.captions[0].text for (label, _), clip in zip(labels or (), clips)}
        if len(actions) > MOST_ACTIONS:
            actions = {label: caption for label, caption in actions.items() if "+" not in label}
        actions = dict(sorted(actions.items())) if len(actions) <= MOST_ACTIONS else {}
        return cls(texts, torch.nn.functional.normalize(encode(texts).cpu().float()), actions)

    def as_dict(self):
        """For a checkpoint."""
        return {"texts": self.texts, "rows": self.rows.half(), "actions": self.actions}

    @classmethod
    def from_state(cls, state, dim):
        """From a part of a checkpoint (utils.safe_load.State), for text width dim; None if it is empty."""
        fields = state.fields
        if not fields:
            return None
        texts, rows, actions = (fields.get(key) for key in ("texts", "rows", "actions"))
        named = isinstance(texts, list) and isinstance(actions, dict)
        strings = named and all(isinstance(text, str) for text in [*texts, *actions, *actions.values()])
        fits = strings and bool(texts) and sound(rows) and rows.shape == (len(texts), dim)
        if not fits:
            raise BadInput(f"{state.path}: its captions and their embeddings do not match")
        return cls(texts, torch.nn.functional.normalize(rows.float()), actions)

    def nearest(self, text):
        """Embedded prompts [B,E] or [B,1+W,E] -> [(caption, cosine)]."""
        similarity, index = (torch.nn.functional.normalize(pooled_text(text).cpu()) @ self.rows.T).max(dim=1)
        return [(self.texts[i], s) for s, i in zip(similarity.tolist(), index.tolist())]

    def warnings(self, prompts, text, encoder):
        """A line for every prompt that is far from all captions; none for encoders without a threshold."""
        far = FAR.get(encoder, -1.0)
        for prompt, (caption, cosine) in zip(prompts, self.nearest(text)):
            if cosine < far:
                yield (
                    f"{prompt[:60]!r} is unlike anything these weights were trained on; the nearest caption "
                    f"is {caption!r} (similarity {cosine:.2f}, below {far})"
                )
