"""Does it help to draw several motions of a prompt and to keep the one that an evaluator finds nearest to it?

  python -m experiments.best_of --weights cmu --ranker checkpoints/ranker --record best_of

measures the first of --candidates motions, the better of two, the best of four and so on. --ranker: the
checkpoints folder of the evaluator that chooses, of another seed than the one that judges. With --text_path
it draws the first and the best instead, as `experiments.blind` does, whose --judged counts the marks.
"""

import utils.environment  # noqa: F401  # isort: skip
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from experiments.blind import draw_sheets
from utils import metrics
from utils.cli import Parser, count, run, start
from utils.config import EvaluationConfig, RunConfig, WeightsConfig, from_flags
from utils.eval_utils import Scores, generate
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.evaluation.motions import Motions
from utils.evaluation_report import Report, make_generator_evaluation
from utils.flags import evaluation_flags, generator_flags, sampling_config
from utils.generation.prompts import read_prompts
from utils.pipeline import Pipeline
from utils.runs import Run


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    evaluation_flags(parser)
    group = parser.add_argument_group("choosing")
    group.add_argument(
        "--ranker", required=True, help="checkpoints folder of the evaluator that chooses (needed)"
    )
    group.add_argument("--candidates", type=count(2), default=8, help="motions of a prompt [%(default)s]")
    group.add_argument("--text_path", help="file of prompts, to be drawn for judging by eye")
    group.add_argument("--groups", type=count(), default=2, help="of candidates of a prompt [%(default)s]")
    group.add_argument("--output_dir", default="./blind", help="of the pictures [%(default)s]")
    return parser


def candidates(evaluation, ranker, pipeline, sampling, repeat, n):
    """n motions for each caption of this repeat -> list of Motions, and how badly each fits [n,N]."""
    text, clips = ranker.embed_text(*evaluation.captions(repeat)), len(evaluation.dataset)

    def drawn(k):
        found = torch.zeros_like(text)

        def produce(batch, rows):
            keys = [(repeat * n + k) * clips + int(row) for row in rows]
            motion = generate(
                pipeline.mardm, pipeline.autoencoder.ae, batch.text, batch.m_lens, sampling, keys
            )
            rows_in_units = evaluation.dataset.normalizer.inverse(motion)
            found[torch.as_tensor(rows)] = ranker.embed_motion(rows_in_units, batch.m_lens)
            return motion

        return evaluation.motions(produce, repeat, desc=f"candidate {k + 1}"), metrics.matching(text, found)

    motions, misfit = zip(*map(drawn, range(n)))
    return motions, np.stack(misfit)


def best(motions, misfit):
    """Of each clip's candidates the one that fits best. -> Motions"""
    return Motions.concatenate([motions[k].take([i]) for i, k in enumerate(misfit.argmin(axis=0))])


def measured(evaluation, draw, n, repeats):
    """draw(repeat) -> what `candidates` returns. -> {name: Scores}"""
    sizes, rows = [2**i for i in range(n.bit_length()) if 2**i <= n], {}
    for repeat in range(repeats):
        motions, misfit = draw(repeat)
        for size in sizes:
            chosen = best(motions[:size], misfit[:size])
            scores = rows.setdefault("first" if size == 1 else f"best of {size}", Scores([]))
            scores.repeats.append(evaluation.compare(evaluation.real(repeat), chosen, repeat))
            if repeat == 0:
                scores.halves = evaluation.halves(evaluation.real(), chosen)
    return {"real": evaluation.repeats(evaluation.real, repeats)} | rows


def first_and_best(pipeline, ranker, prompts, sampling, groups, n):
    """{(name, group): a motion of five seconds for each prompt}; every candidate has a seed of its own, from
    that of `sampling` on.
    """
    settings = asdict(sampling)
    text, drawn = ranker.embed_text([[] for _ in prompts], prompts), {}
    for group in range(groups):
        seeds = range(sampling.seed + group * n, sampling.seed + (group + 1) * n)
        tries = [pipeline.generate(prompts, seconds=5, **settings | {"seed": seed}) for seed in seeds]
        misfit = []
        for motions in tries:
            rows = torch.stack([torch.as_tensor(one.features) for one in motions])
            lengths = torch.tensor([len(one.features) for one in motions])
            misfit.append(metrics.matching(text, ranker.embed_motion(rows, lengths)))
        chosen = np.stack(misfit).argmin(axis=0)
        drawn["first", group] = tries[0]
        drawn[f"best of {n}", group] = [tries[k][i] for i, k in enumerate(chosen)]
    return drawn


def main(argv=None):
    args = flags().parse_args(argv)
    device = start(args)
    config, this_run = from_flags(EvaluationConfig, args), from_flags(RunConfig, args)
    pipeline = Pipeline.open(from_flags(WeightsConfig, args), device)
    other = from_flags(RunConfig, args, checkpoints_dir=args.ranker)
    ranker = TextMotionEvaluator.load(other, pipeline.spec, device, required=True)
    sampling = sampling_config(args, pipeline.spec, pipeline.mardm)
    if args.text_path:
        prompts = [prompt.text for prompt in read_prompts([], args.text_path, 0)]
        drawn = first_and_best(pipeline, ranker, prompts, sampling, args.groups, args.candidates)
        draw_sheets(drawn, prompts, Path(args.output_dir))
        return
    evaluation = make_generator_evaluation(this_run, config, pipeline)
    report = Report(Run.of(this_run).eval, vars(args))

    def draw(repeat):
        return candidates(evaluation, ranker, pipeline, sampling, repeat, args.candidates)

    rows = measured(evaluation, draw, args.candidates, config.repeat_times)
    report.finish(evaluation, rows, decoding=asdict(sampling))


if __name__ == "__main__":
    run(main)
