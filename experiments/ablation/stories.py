"""Do errors grow along a story? Test captions stitched into long motions, measured by position in the story.

python -m experiments.ablation.stories --dataset_name BandaiNamco --name fsq_1_11 --snap off
Every quarter of the stories is held against the real clips of its captions: FID and physical distance.
"""

import time

import numpy as np
import torch

from models import counter_rng
from models.AE import STRIDE
from models.counter_rng import Purpose
from motion.files import write_json
from utils.cli import Parser, command_line, count, run, start
from utils.config import EvaluationConfig, RunConfig, WeightsConfig, from_flags
from utils.data.batches import collate
from utils.evaluation.motions import Motions
from utils.evaluation.physical import energy_distance
from utils.evaluation_report import make_generator_evaluation
from utils.flags import evaluation_flags, generator_flags, sampling_config
from utils.generation.stitch import draw_story
from utils.metrics import fid, half_width, over_halves
from utils.pipeline import Pipeline
from utils.runs import Run

QUARTERS, TRANSITION = 4, 2  # tokens, as sample.py


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    evaluation_flags(parser)
    parser.add_argument("--stories", type=count(2, 10**4), default=16, help="how many [%(default)s]")
    parser.add_argument("--prompts", type=count(8, 1000), default=32, help="of each [%(default)s]")
    return parser


def draw_parts(pipeline, evaluation, rows, sampling, story):
    """One story of the captions of these test clips [K], cut where its prompts change -> K Motions"""
    dataset = evaluation.dataset
    batch = collate([dataset[(0, int(i))] for i in rows]).to(evaluation.device)
    lengths = batch.m_lens // STRIDE
    features, _ = draw_story(pipeline, batch.text, lengths, sampling, TRANSITION, story)
    parts = torch.from_numpy(features).split((lengths * STRIDE).tolist())
    parts = [dataset.normalizer(part)[None].to(evaluation.device) for part in parts]
    return Motions.concatenate([evaluation.to_motions(x, torch.tensor([x.shape[1]])) for x in parts])


def main(argv=None):
    args = flags().parse_args(argv)
    begun, device = time.time(), start(args)
    config, this_run = from_flags(EvaluationConfig, args), from_flags(RunConfig, args)
    pipeline = Pipeline.open(from_flags(WeightsConfig, args), device)
    evaluation = make_generator_evaluation(this_run, config, pipeline)
    sampling, n_clips = sampling_config(args, pipeline.spec, pipeline.mardm), len(evaluation.dataset)

    asked, made = [], []
    for story in range(args.stories):
        rng = counter_rng.rng(Purpose.STORIES, config.seed, story)
        asked.append(rng.choice(n_clips, args.prompts, replace=n_clips < args.prompts))
        made.append(draw_parts(pipeline, evaluation, asked[-1], sampling, story))
    asked, pred = np.concatenate(asked), Motions.concatenate(made)
    real, groups = evaluation.real().take(asked), evaluation.groups()[asked]
    place = np.tile(np.arange(args.prompts) * QUARTERS // args.prompts, args.stories)
    quarters = []
    for quarter in range(QUARTERS):
        at = np.flatnonzero(place == quarter)

        def measure(some, at=at):
            x, y = real.take(at[some]), pred.take(at[some])
            physical = energy_distance(x.features, y.features, groups[at[some]])
            return {
                "fid": fid(x.embeddings, y.embeddings),
                "physical": np.nan if physical is None else physical,
            }

        values, rng = measure(np.arange(len(at))), counter_rng.rng(Purpose.HALVES, config.seed, quarter)
        halves = over_halves(measure, np.arange(len(at)), rng)
        half_clips = {name: half_width(column) for name, column in halves.items()}
        quarters.append(values | {"n": len(at), "half_clips": half_clips})
        print(f"quarter {quarter + 1}: {values}")
    record = {"command": command_line(), "flags": vars(args), "seconds": time.time() - begun}
    record["quarters"] = quarters
    write_json(Run.of(this_run).eval / f"{config.record or 'stories'}.json", record)


if __name__ == "__main__":
    run(main)
