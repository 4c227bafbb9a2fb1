"""Motions of several prompts, each independent of the others."""

# N prompts, E text width

from dataclasses import dataclass

import torch

from utils.generation.windows import part_key


@dataclass(frozen=True)
class Texts:
    """N prompts with their embeddings and lengths."""

    prompts: list  # of str
    rows: torch.Tensor  # [N,E]
    m_lens: torch.Tensor  # [N] tokens


def draw_each(pipeline, texts, sampling, repeats, batch_size):
    """Every prompt and repeat, in batches of similar length. Yields (entry of samples.json, rows, joints)."""
    jobs = [(i, r) for i in range(len(texts.prompts)) for r in range(repeats)]
    jobs.sort(key=lambda job: int(texts.m_lens[job[0]]))
    for first in range(0, len(jobs), batch_size):
        batch = jobs[first : first + batch_size]
        rows = torch.tensor([i for i, _ in batch])
        keys = [part_key(i, r) for i, r in batch]  # a repeat is another motion of the same prompt
        text, m_lens = texts.rows[rows.to(texts.rows.device)], texts.m_lens[rows]
        features, joints = pipeline.draw(text, m_lens, sampling, keys)
        for (i, r), rows, one in zip(batch, features, joints):
            yield {"prompt": texts.prompts[i], "sample": i, "repeat": r}, rows, one
