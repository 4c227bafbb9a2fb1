"""Turn motion with captions into a data set that every script here trains on.

  python prepare_dataset.py demo          the embedded demo set -> datasets/Demo
  python prepare_dataset.py joints --input $FSQ_MARDM_DATA/bandai_namco --name BandaiNamco
                                          joints packed in one file -> datasets/BandaiNamco
  python prepare_dataset.py bvh --input DIR --captions captions.jsonl --name Own
                                          any BVH files -> datasets/Own
  python prepare_dataset.py bvh --input DIR --preset bandai_namco --name BandaiNamco
                                          a clone of the Bandai-Namco-Research-Motiondataset
  python prepare_dataset.py check --dataset_name t2m          is a set fit for training?

A set is written beside its place and moved there when it is whole. datasets/README.md describes the layout,
and how to get HumanML3D and KIT-ML.
"""

import os
import shutil
from pathlib import Path

from utils.cli import Parser, count, name, number, run
from utils.data import bandai_namco
from utils.data import bvh_dataset as prepare_bvh
from utils.data.caption_text import read_captions, tagger_name
from utils.data.clips import Skipped
from utils.data.dataset_writer import Header, demo_set, read_packed, refuse_existing, write_set
from utils.data.validation import check_dataset
from utils.datasets import find_dataset
from utils.errors import BadInput

UNSAID = "see its source"


def demo(args):
    """The embedded demo set: procedural motion with captions, to try things out with."""
    source = f"motion/synthetic/clips.py, {args.clips} clips, seed {args.seed}: procedural, not captured"
    header = Header(args.name, 20.0, args.min_frames, source, "that of this repository")
    root = Path(args.dataset_dir) / args.name
    write_set(demo_set(args.clips, args.seed), args.clips, root, header, args.overwrite)


def joints(args):
    """Packed joints with captions and labels."""
    root = Path(args.dataset_dir) / args.name
    refuse_existing(root, args.overwrite)
    fps, clips = read_packed(args.input)
    source = args.source or Path(args.input).resolve().name
    header = Header(args.name, fps, args.min_frames, source, args.licence or UNSAID)
    write_set(clips, len(clips), root, header, args.overwrite)


def bvh(args):
    """A folder of BVH files with captions. Converted files are kept until the set is whole, so that an
    interrupted run goes on where it stopped."""
    root, skipped = Path(args.dataset_dir) / args.name, Skipped()
    refuse_existing(root, args.overwrite)
    reading = prepare_bvh.reading_of(args, args.fps)
    files = prepare_bvh.find_bvh(args.input)
    described = bandai_namco.describe(files) if args.preset else read_captions(args.captions)
    files = prepare_bvh.described_files(files, described, skipped)
    print(f"{root}: {len(files)} files with captions; words without tokens are tagged by {tagger_name()}")
    work = root.with_name(f".{root.name}.work")
    kept = prepare_bvh.drop_short(
        prepare_bvh.convert(files, reading, work, args.num_workers, skipped), args.min_frames, skipped
    )
    skipped.report(args.input)
    splits = prepare_bvh.assign_splits(described, kept, args.split, args.seed)
    clips = prepare_bvh.raw_clips(described, kept, splits, args.skeleton, not args.no_mirror)
    source, licence = Path(args.input).resolve().name, UNSAID
    if args.preset:
        source, licence = bandai_namco.SOURCE, bandai_namco.LICENCE
    header = Header(args.name, args.fps, args.min_frames, args.source or source, args.licence or licence)
    write_set(clips, len(kept) * (2 - args.no_mirror), root, header, args.overwrite)
    shutil.rmtree(work)


def check(args):
    """Look at every file of a data set before hours are spent on it; exits with 2 if it is not fit."""
    spec, root = find_dataset(args.dataset_name, args.dataset_dir)
    findings = check_dataset(spec, root)
    print(findings.table())
    if findings.failed():
        raise BadInput(f"{root} is not fit for training: {'; '.join(findings.failed())}")
    print(f"{root} is fit for training")


def set_flags(parser, default_name=None):
    """Flags of every subcommand that writes a set."""
    group = parser.add_argument_group("the set")
    shown = f"[{default_name}]" if default_name else "(needed)"
    group.add_argument(
        "--name", type=name, default=default_name, required=not default_name, help=f"name of the set {shown}"
    )
    group.add_argument("--dataset_dir", default="./datasets", help="where the data sets lie [%(default)s]")
    group.add_argument(
        "--min_frames", type=count(4, 199), default=24, help="shorter clips are left out [%(default)s]"
    )
    group.add_argument("--overwrite", action="store_true", help="replace a set of that name")


def source_flags(parser):
    group = parser.add_argument_group("for spec.json")
    group.add_argument("--source", default="", help="where the motion is from [the folder's name]")
    group.add_argument("--licence", default="", help=f"its terms [{UNSAID}]")


def bvh_flags(parser):
    parser.add_argument("--input", required=True, help="folder of BVH files, also in folders below (needed)")
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument(
        "--captions", help=".jsonl or .csv: name, captions and, if wanted, tokens, split, labels"
    )
    words.add_argument("--preset", choices=("bandai_namco",), help="captions and split from the file names")
    group = parser.add_argument_group("reading")
    group.add_argument("--fps", type=number(float, 1, 240), default=20.0, help="of the set [%(default)s]")
    prepare_bvh.reading_flags(group)
    group.add_argument(
        "--skeleton",
        choices=prepare_bvh.SKELETONS,
        default="uniform",
        help="bone lengths: the median over all clips, HumanML3D's, or each clip's own [%(default)s]",
    )
    group = parser.add_argument_group("clips")
    group.add_argument("--no_mirror", action="store_true", help="no mirrored twins (M...)")
    group.add_argument(
        "--split",
        type=number(float, 0, 1e6),
        nargs=3,
        default=(80, 5, 15),
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares, where the captions name no split [80 5 15]",
    )
    group.add_argument("--seed", type=count(), default=3407, help="of the split [%(default)s]")
    group.add_argument(
        "--num_workers", type=count(1, 256), default=os.cpu_count() or 1, help="processes [all cores]"
    )


def parse(argv=None):
    parser = Parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{demo,joints,bvh,check}")

    sub = commands.add_parser(
        "demo", doc=demo.__doc__, help="procedural clips with captions, made from a seed"
    )
    sub.set_defaults(make=demo)
    set_flags(sub, "Demo")
    sub.add_argument("--clips", type=count(10, 10**5), default=1500, help="how many [%(default)s]")
    sub.add_argument("--seed", type=count(), default=3407, help="every clip follows from it [%(default)s]")

    sub = commands.add_parser(
        "joints", doc=joints.__doc__, help="joints of 22-joint motion, packed in one file"
    )
    sub.set_defaults(make=joints)
    set_flags(sub)
    sub.add_argument(
        "--input", required=True, help="folder with motions.npz, captions.jsonl, labels.csv (needed)"
    )
    source_flags(sub)

    sub = commands.add_parser("bvh", doc=bvh.__doc__, help="a folder of BVH files with captions")
    sub.set_defaults(make=bvh)
    set_flags(sub)
    bvh_flags(sub)
    source_flags(sub)

    sub = commands.add_parser("check", doc=check.__doc__, help="is a data set fit for training?")
    sub.set_defaults(make=check)
    sub.add_argument(
        "--dataset_name", type=name, required=True, help="t2m, kit or a set of your own (needed)"
    )
    sub.add_argument("--dataset_dir", default="./datasets", help="where the data sets lie [%(default)s]")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    args.make(args)


if __name__ == "__main__":
    run(main)
