"""The ablation's jobs: every command, what it waits for, how settings are chosen on val. RULES.md: why."""

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

LEVELS = {
    9: [8] * 3,
    12: [8] * 4,
    14: [8, 8, 8, 6, 5],
    16: [8, 8, 8, 5, 5, 5],
    18: [8] * 6,
    24: [8] * 8,
}  # 2^k codes
ARMS = {  # generator, its autoencoder, its own flags
    "continuous": ("MARDM-SiT-XS", "AE", ()),
    "narrow": ("MARDM-SiT-XS", "Narrow", ()),
    "fsq": ("FSQ-MARDM-SiT-XS", "FSQ_16", ()),
    "finer": ("FSQ-MARDM-SiT-XS", "FSQ_24", ()),
    "vq": ("VQ_MARDM-SiT-XS", "VQ_14", ()),
    "softmax": ("FSQ-MARDM-Softmax-XS", "FSQ_16", ("--softmax_coordinates", "sequential")),
    "independent": ("FSQ-MARDM-Softmax-XS", "FSQ_16", ("--softmax_coordinates", "independent")),
}
STORY_ARMS = ("continuous", "narrow", "fsq")  # evaluated on stories too
DIFFUSION = ("continuous", "narrow", "fsq", "finer", "vq")
SEARCH = tuple(product(("1.5", "2.5", "4"), ("9", "18"), ("1", "0.8")))  # cfg, rounds, temperature
ONESTEP = ("--sampler", "onestep", "--refine", "0")
NARROWED = ("continuous", "narrow", "fsq", "vq")  # also with narrower heads
FULL_WIDTH = 256  # of the head of size XS
REFERENCE = "AE_1"  # the run whose evaluation holds the references
PREPARE = {
    "BandaiNamco": (["bandai_namco"], []),
    "CMU": (["cmu_humanml3d", "--mirror"], ["--text", "minilm", "--weight_decay", "0.05", "--epoch", "24"]),
}


@dataclass(frozen=True)
class Size:
    """How much is run. Where time is short, code book sizes and head widths go before seeds."""

    codes: tuple = (9, 12, 14, 16, 18)  # binary logarithms of the code book's sizes
    widths: tuple = (32, 64, 128)  # of heads, beside FULL_WIDTH
    seeds: tuple = (1, 2, 3, 4)  # of autoencoders; generators take the first three
    generator_seeds: tuple = (11, 12)
    sets: tuple = ("BandaiNamco", "CMU")
    arms: tuple = tuple(ARMS)
    ae_width: int = 128
    ae_steps: int = 2000
    windows: str = "all"  # of each clip, for an autoencoder: --windows_per_clip
    steps: int = 2500
    distillation: int = 1500  # steps of 4 clips
    batch: int = 32
    eval_every: int = 8  # epochs
    repeats: int = 5
    stories: tuple = (16, 32)  # how many, of how many prompts
    rates: tuple = ("2e-3", "7e-4")  # of learning, searched on val
    search: tuple = SEARCH  # settings of drawing, searched on val


SMALL = Size(
    codes=(9, 14),
    widths=(32,),
    seeds=(1, 2, 3),
    generator_seeds=(11,),
    sets=("BandaiNamco",),
    ae_width=96,
    ae_steps=3000,
    steps=2400,
    distillation=800,
    batch=16,
    eval_every=4,
    repeats=2,
    stories=(8, 32),
    rates=("2e-3",),
    search=SEARCH[2::4],  # guidance alone: 18 rounds, temperature 1
)
SIZES = {
    "full": Size(),
    "reduced": Size(codes=(9, 14, 16), widths=(64,), generator_seeds=(11,)),
    "small": SMALL,
    "equal": replace(SMALL, windows="equal"),
    "tiny": Size(
        codes=(9, 14, 16),
        widths=(32,),
        seeds=(1, 2),
        generator_seeds=(11,),
        sets=("Demo",),
        ae_width=16,
        ae_steps=4,
        steps=4,
        distillation=2,
        batch=8,
        eval_every=1,
        repeats=1,
        stories=(2, 8),
        search=SEARCH[:2],
    ),
}


@dataclass(frozen=True)
class Job:
    """A command. run/record: folder and name of its result; arm: whose settings, chosen on val, it gets."""

    run: str
    record: str
    command: tuple
    needs: tuple = ()  # of other jobs: "run/record"
    arm: str = ""

    @property
    def name(self):
        return f"{self.run}/{self.record}"


def variant(name):
    """A variant's entry in AE_models and its own options, as `make_ae` takes them."""
    kind, _, codes = name.partition("_")
    if kind == "FSQ" and codes != "16":
        return "FSQ_AE_Model", {"fsq_levels": LEVELS[int(codes)]}
    if kind == "VQ":
        return "VQ_AE_Model", {"codebook_size": 2 ** int(codes), "commitment_cost": 1.0}
    return {"AE": "AE_Model", "Narrow": "Narrow_AE_Model", "FSQ": "FSQ_AE_High"}[kind], {}


class Plan:
    """The jobs of a size on one data set, below `folder`."""

    def __init__(self, size, dataset, folder, data="../shared/data"):
        self.size, self.dataset, self.data = SIZES[size], dataset, Path(data)
        self.runs = Path(folder) / dataset
        self.common = ("--dataset_name", dataset, "--checkpoints_dir", str(folder), "--num_workers", "0")
        self.main = dataset != "CMU"  # every hypothesis; else the diffusion arms alone
        self.arms = [arm for arm in self.size.arms if self.main or arm in DIFFUSION]
        wanted = {ARMS[arm][1] for arm in self.arms}
        wanted |= {f"{kind}_{k}" for kind, k in product(("FSQ", "VQ"), self.size.codes) if self.main}
        names = ["AE", "Narrow", *(f"{kind}_{k}" for kind, k in product(("FSQ", "VQ"), LEVELS))]
        self.variants = [name for name in names if name in wanted]
        pairs = product(self.size.seeds[:3], self.size.generator_seeds if self.main else (11,))
        self.seeds = list(pairs)  # of autoencoder and generator

    def jobs(self):
        """All jobs in order: the arms come first, then what the hypotheses need besides."""
        own = [name for name in self.variants if name in {ARMS[arm][1] for arm in self.arms}]
        others = [name for name in self.variants if name not in own]
        yield from self.preparation()
        yield from (
            job for seed, name in product(self.size.seeds, own) for job in self.autoencoder(name, seed)
        )
        for arm in self.arms:
            yield from self.search(arm)
        for seeds, arm in product(self.seeds, self.arms):
            yield self.training(arm, seeds)
            yield self.evaluation(arm, seeds, "test_latest", "--checkpoint", "latest")
        yield from (
            job for seed, name in product(self.size.seeds, others) for job in self.autoencoder(name, seed)
        )
        if self.main:
            yield from self.questions()
        for seeds, arm in product(self.seeds, self.arms):
            yield self.evaluation(arm, seeds, "test_best", "--checkpoint", "best")

    def preparation(self):
        source, evaluator = PREPARE.get(self.dataset, ((), ()))
        if source:
            where = ("joints", "--input", str(self.data / source[0]), *source[1:], "--name", self.dataset)
            yield Job("prepare", "data", ("prepare_dataset.py", *where))
        command = ("train_Evaluators.py", *self.common, "--which", "matching", *evaluator)
        yield Job("prepare", "evaluator", command, ("prepare/data",) if source else ())

    def autoencoder(self, name, seed):
        run, steps, (model, options) = f"{name}_{seed}", self.size.ae_steps, variant(name)
        flags = [
            word
            for key, value in options.items()
            for word in (f"--{key}", *map(str, value if isinstance(value, list) else [value]))
        ]
        here = (*self.common, "--name", run, "--model", model)
        settings = f"--width {self.size.ae_width} --recipe mardm --root_weight 4 "
        settings += f"--batch_size {self.size.batch} --windows_per_clip {self.size.windows} "
        settings += f"--max_iters {steps} --lr 1e-3 --warm_up_iter 100 --lr_decay 0.3 --seed {seed} "
        settings += f"--milestones {steps * 13 // 20} {steps * 7 // 8}"
        yield Job(run, "train", ("train_AE.py", *here, *flags, *settings.split()), ("prepare/evaluator",))
        more = ("--baselines",) if run == REFERENCE else ()
        more += ("--repeat_times", str(self.size.repeats), "--record", "test")
        yield Job(run, "test", ("evaluation_AE.py", *here, *more), (f"{run}/train",))

    def named(self, arm, run, seed):
        model, name, _ = ARMS[arm]
        return *self.common, "--name", run, "--model", model, "--ae_name", f"{name}_{seed}"

    def training(self, arm, seeds, *flags, run=None, search=False):
        """seeds: of autoencoder and generator. Outside the search, at the learning rate that it chose."""
        run, steps = run or run_of(arm, seeds), self.size.steps
        settings = f"--batch_size {self.size.batch} --max_iters {steps} --warm_up_iter 100 --lr_decay 0.3 "
        settings += f"--milestones {steps * 2 // 3} {steps * 9 // 10} --seed {seeds[1]} --ema_decay 0.999 "
        settings += "--dropout 0.1 --diffmlps_batch_mul 2 --log_every 10 --need_evaluation "
        settings += f"--eval_every {self.size.eval_every}"
        flags = *ARMS[arm][2], *settings.split(), *flags
        command = ("train_MARDM.py", *self.named(arm, run, seeds[0]), *flags)
        needs = f"{ARMS[arm][1]}_{seeds[0]}/train"
        return Job(run, "train", command, (needs,), "" if search else arm)

    def evaluation(self, arm, seeds, record, *flags, run=None, search=False, after="train"):
        run = run or run_of(arm, seeds)
        more = ("--record", record, "--repeat_times", str(self.size.repeats), *flags)
        command = ("evaluation_MARDM.py", *self.named(arm, run, seeds[0]), *more)
        return Job(run, record, command, (f"{run}/{after}",), "" if search else arm)

    def search(self, arm):
        """The same search for every arm: learning rates and sampling settings, by FID on val. Generator seed
        10 is used nowhere else.
        """
        seeds = (self.size.seeds[0], 10)
        for rate in self.size.rates:
            run = f"{arm}_lr{rate}"
            yield self.training(arm, seeds, "--lr", rate, run=run, search=True)
            for one in self.size.search:
                flags = ("--split", "val", "--checkpoint", "latest", *drawing(arm, one))
                yield self.evaluation(arm, seeds, record_of(one), *flags, run=run, search=True)

    def questions(self):
        """What the hypotheses need beyond the arms: evaluations of trained runs, and further runs."""
        for seeds, arm in product(self.seeds, DIFFUSION):
            yield from self.cheaper_drawing(arm, seeds)
        names = [f"{name}_{seed}" for name, seed in product(self.variants, self.size.seeds)]  # H6
        files = ("--output", str(self.runs / "topology.png"), "--json", str(self.runs / "topology.json"))
        command = ("analyze_topology.py", *self.common, "--ae_names", *names, *files)
        yield Job("topology", "topology", command, tuple(f"{name}/train" for name in names))
        for arm, width, seed in product(NARROWED, self.size.widths, self.size.seeds[:3]):  # H9
            seeds = (seed, self.size.generator_seeds[0])
            run = run_of(f"{arm}_w{width}", seeds)
            yield self.training(arm, seeds, "--head_width", str(width), run=run)
            yield self.evaluation(arm, seeds, "test_latest", "--checkpoint", "latest", run=run)
        for seeds, arm in product(self.seeds, STORY_ARMS):
            yield from self.stories(arm, seeds)

    def cheaper_drawing(self, arm, seeds):
        """One solver step (H5) and one distilled evaluation (H7)."""
        run, latest = run_of(arm, seeds), ("--checkpoint", "latest")
        for snap, n in (("step", 1), ("off", 1), ("off", 4)):
            if arm == "fsq" or snap == "step":
                flags = (*latest, "--snap", snap, "--sampler_steps", str(n))
                yield self.evaluation(arm, seeds, f"snap_{snap}_{n}", *flags)
        settings = f"--batch_size 4 --max_iters {self.size.distillation} --warm_up_iter 50 --teacher_steps 4"
        command = ("distill_MARDM.py", *self.named(arm, run, seeds[0]), *latest, *settings.split())
        yield Job(run, "distill", command, (f"{run}/train",))
        yield self.evaluation(arm, seeds, "onestep", *latest, *ONESTEP, after="distill")

    def stories(self, arm, seeds):
        """Do errors grow along a story? (H10)"""
        run, (stories, prompts) = run_of(arm, seeds), map(str, self.size.stories)
        for snap in ("step", "off") if arm == "fsq" else ("step",):
            flags = ("--checkpoint", "latest", "--snap", snap, "--stories", stories, "--prompts", prompts)
            flags += ("--record", f"stories_{snap}")
            command = ("-m", "experiments.ablation.stories", *self.named(arm, run, seeds[0]), *flags)
            yield Job(run, f"stories_{snap}", command, (f"{run}/train",), arm)

    def needs(self, job):
        """All that a job waits for: names of jobs."""
        if not job.arm:
            return job.needs
        return *job.needs, *(
            f"{job.arm}_lr{r}/{record_of(s)}" for r in self.size.rates for s in self.size.search
        )

    def command(self, job):
        """A job's command, with what was chosen on val for its arm where it does not say otherwise."""
        if not job.arm:
            return job.command
        rate, setting = chosen(self.runs, job.arm, self.size)
        more = ("--lr", rate) if job.record == "train" else drawing(job.arm, setting)
        pairs = zip(more[::2], more[1::2])
        return *job.command, *(x for flag, value in pairs if flag not in job.command for x in (flag, value))


def run_of(arm, seeds):
    return f"{arm}_{seeds[0]}_{seeds[1]}"


def record_of(setting):
    return "val_" + "_".join(setting)


def drawing(arm, setting):
    """Sampling flags of an entry of SEARCH: by midpoint, also where the run has a one-step head."""
    cfg, rounds, temperature = setting
    solver = ("--sampler", "midpoint") if arm in DIFFUSION else ()
    return "--cfg", cfg, "--time_steps", rounds, "--order", "random", "--temperature", temperature, *solver


def chosen(runs, arm, size):
    """-> (rate, setting of drawing) with the least FID on val."""

    def fid(one):
        text = (runs / f"{arm}_lr{one[0]}" / "eval" / f"{record_of(one[1])}.json").read_text(encoding="utf-8")
        return json.loads(text)["rows"]["generated"]["interval"]["fid"]["mean"]

    return min(product(size.rates, size.search), key=fid)
