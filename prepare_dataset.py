"""Turn motion with captions into a data set that all scripts can use.

  python prepare_dataset.py demo          the embedded demo set -> datasets/Demo
  python prepare_dataset.py joints --input $FSQ_MARDM_DATA/bandai_namco --name BandaiNamco
                                          joints packed in one file -> datasets/BandaiNamco
  python prepare_dataset.py bvh --input DIR --captions captions.jsonl --name Own
                                          any BVH files -> datasets/Own
  python prepare_dataset.py bvh --input DIR --preset bandai_namco --name BandaiNamco
                                          a clone of the Bandai-Namco-Research-Motiondataset
  python prepare_dataset.py cmu --bvh DIR --humanml3d DIR --name CMU
                                          HumanML3D's clips and captions of CMU's own motion, without AMASS
  python prepare_dataset.py check --dataset_name t2m          is a set fit for training?

A set appears in its place only when it is complete. datasets/README.md describes the layout, and how to get
HumanML3D and KIT-ML.
"""

import utils.environment  # noqa: F401  # isort: skip
import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

from models.counter_rng import SEED
from motion.synthetic.clips import DEMO_CLIPS
from utils.cli import Parser, count, name, number, run
from utils.config import add_flags, from_flags
from utils.data import bandai_namco, bvh_dataset
from utils.data.bvh_dataset import BvhConfig, Reading
from utils.data.caption_text import read_captions, tagger_name
from utils.data.clips import SPLITS, Skipped
from utils.data.cmu import LICENCE, SOURCE, CmuConfig, cmu_clips, print_verdicts, report_csv
from utils.data.dataset_writer import UNSAID, SetConfig, demo_set, read_packed, with_twins, write_set
from utils.data.unseen_pairs import hold_out_pairs
from utils.data.validation import check_dataset
from utils.datasets import find_dataset
from utils.errors import BadInput

TWINS = {"none": (), "train": ("train",), "all": SPLITS}


def demo(config, clips, seed):
    """The embedded demo set: procedural motion with captions, to try things out with."""
    source = f"motion/synthetic/clips.py, {clips} clips, seed {seed}: procedural, not captured"
    config = replace(config, source=source, licence="that of this repository")
    write_set(demo_set(clips, seed), clips, config)


def joints(config, folder, split_column, mirrored_splits, unseen=None):
    """Joints packed in one file, with captions and labels."""
    fps, clips = read_packed(folder, split_column)
    clips = hold_out_pairs(clips, *unseen) if unseen else clips  # unseen: (test clips, seed)
    total = len(clips) + sum(clip.split in mirrored_splits for clip in clips)
    config = replace(config, fps=fps, source=config.source or Path(folder).resolve().name)
    config = replace(config, licence=config.licence or UNSAID)
    write_set(with_twins(clips, mirrored_splits), total, config)


def bvh(config, files, reading):
    """A folder of BVH files with captions. Converted files are kept until the set is complete, so that an
    interrupted run continues where it stopped."""
    skipped, work = Skipped(), config.root.with_name(f".{config.root.name}.work")
    paths = bvh_dataset.find_bvh(files.input)
    if files.captions and not Path(files.captions).exists():
        raise BadInput(f"--captions {files.captions} does not exist: datasets/README.md describes it")
    described = bandai_namco.describe(paths) if files.preset else read_captions(files.captions)
    paths = bvh_dataset.described_files(paths, described, skipped, files.mirror)
    bvh_dataset.assign_splits(described, paths, files.split, files.seed)  # refuse a wrong one before the work
    print(
        f"{config.root}: {len(paths)} files with captions; words without tokens are tagged by {tagger_name()}"
    )
    kept = bvh_dataset.convert(paths, reading, work, files.num_workers, skipped)
    kept = bvh_dataset.drop_short(kept, config.min_frames, skipped)
    skipped.report(files.input)
    if not kept:
        raise BadInput(f"{files.input}: no file can be used, for the reasons above; nothing was written")
    bvh_dataset.warn_of_lying(kept, config.root)
    splits = bvh_dataset.assign_splits(described, kept, files.split, files.seed)
    clips = bvh_dataset.raw_clips(described, kept, splits, files.skeleton)
    write_set(with_twins(clips) if files.mirror else clips, len(kept) * (1 + files.mirror), config)
    remove(work)


def cmu(config, files, mirrored_splits):
    """HumanML3D's CMU part from the public BVH files: its clips and captions, nothing of AMASS or SMPL.

    Broken clips, and clips that share frames with val or test, are left out; report.csv in the set says why.
    """
    work = config.root.with_name(f".{config.root.name}.work")
    clips, report = cmu_clips(files, work, config.min_frames)
    config = replace(config, source=config.source or SOURCE, licence=config.licence or LICENCE)
    total = len(clips) + sum(clip.split in mirrored_splits for clip in clips)
    write_set(with_twins(clips, mirrored_splits), total, config, {"report.csv": report_csv(report)})
    print_verdicts(report)
    remove(work)


def remove(work):
    """Remove the converted files; another run may have done so already."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(work)


def check(name, dataset_dir):
    """Check every file of a data set before training on it; exits with 2 if it is not fit for training."""
    spec, root = find_dataset(name, dataset_dir)
    findings = check_dataset(spec, root)
    print(findings.table())
    if findings.failed():
        raise BadInput(f"{root} is not fit for training: {'; '.join(findings.failed())}")
    print(f"{root} is fit for training")


def set_flags(parser, default=None, with_source=True):
    """Flags of every subcommand that writes a set."""
    parser.add_argument(
        "--name", type=name, default=default, required=not default, help=f"of the set [{default or 'needed'}]"
    )
    add_flags(parser, "the set", SetConfig, skip=() if with_source else ("source", "licence"))


def mirror_flag(parser):
    parser.add_argument(
        "--mirror",
        nargs="?",
        choices=TWINS,
        const="train",
        default="none",
        help="mirrored clips (M...) of none, of the training clips, or of all [none; without a value: train]",
    )


def bvh_flags(parser):
    parser.add_argument("--input", required=True, help="folder of BVH files, with its subfolders (needed)")
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument(
        "--captions", help=".jsonl or .csv: name, captions and, if wanted, tokens, split, labels"
    )
    words.add_argument("--preset", choices=("bandai_namco",), help="captions and split from the file names")
    group = parser.add_argument_group("reading")
    group.add_argument("--fps", type=number(float, 1, 240), default=20.0, help="of the set [%(default)s]")
    bvh_dataset.reading_flags(group)
    add_flags(parser, "clips", BvhConfig)


def parse(argv=None):
    parser = Parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{demo,joints,bvh,cmu,check}")

    sub = commands.add_parser("demo", doc=demo.__doc__, help="procedural clips with captions, from a seed")
    set_flags(sub, "Demo", with_source=False)
    sub.add_argument("--clips", type=count(10, 10**5), default=DEMO_CLIPS, help="how many [%(default)s]")
    sub.add_argument("--seed", type=count(), default=SEED, help="every clip follows from it [%(default)s]")

    sub = commands.add_parser("joints", doc=joints.__doc__, help="22-joint motion, packed in one file")
    set_flags(sub)
    sub.add_argument(
        "--input", required=True, help="folder with motions.npz, captions.jsonl, labels.csv (needed)"
    )
    sub.add_argument("--split_column", default="split", help="column of labels.csv [%(default)s]")
    mirror_flag(sub)
    sub.add_argument(
        "--unseen_pairs",
        type=count(1),
        metavar="N",
        help="new split: N or more test clips, of content-style pairs not in training [as labels.csv]",
    )
    sub.add_argument("--seed", type=count(), default=SEED, help="seed of --unseen_pairs [%(default)s]")

    sub = commands.add_parser("bvh", doc=bvh.__doc__, help="a folder of BVH files with captions")
    set_flags(sub)
    bvh_flags(sub)

    sub = commands.add_parser("cmu", doc=cmu.__doc__, help="HumanML3D's CMU part, from BVH files")
    set_flags(sub)
    sub.add_argument("--bvh", required=True, help="folder of SS/SS_TT.bvh files, one conversion (needed)")
    sub.add_argument("--humanml3d", required=True, help="a clone of HumanML3D's repository (needed)")
    mirror_flag(sub)
    add_flags(sub, "speed", BvhConfig, only=("num_workers",))

    sub = commands.add_parser("check", doc=check.__doc__, help="is a data set fit for training?")
    sub.add_argument(
        "--dataset_name", type=name, required=True, help="t2m, kit or a set of your own (needed)"
    )
    sub.add_argument("--dataset_dir", default="./datasets", help="folder of the data sets [%(default)s]")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    if args.command == "check":
        check(args.dataset_name, args.dataset_dir)
        return
    config = from_flags(SetConfig, args)
    config.refuse_existing()
    if args.command == "demo":
        demo(config, args.clips, args.seed)
    elif args.command == "joints":
        unseen = (args.unseen_pairs, args.seed) if args.unseen_pairs else None
        joints(config, args.input, args.split_column, TWINS[args.mirror], unseen)
    elif args.command == "cmu":
        cmu(config, from_flags(CmuConfig, args), TWINS[args.mirror])
    else:
        if args.preset:
            source, licence = bandai_namco.SOURCE, bandai_namco.LICENCE
        else:
            source, licence = Path(args.input).resolve().name, UNSAID
        config = replace(config, source=args.source or source, licence=args.licence or licence)
        reading = from_flags(Reading, args, joint_map=bvh_dataset.read_joint_map(args.joint_map))
        bvh(config, from_flags(BvhConfig, args), reading)


if __name__ == "__main__":
    run(main)
