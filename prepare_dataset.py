"""Turn motion with captions into a data set that every script here trains on.

  python prepare_dataset.py demo          the embedded demo set -> datasets/Demo
  python prepare_dataset.py joints --input $FSQ_MARDM_DATA/bandai_namco --name BandaiNamco
                                          joints packed in one file -> datasets/BandaiNamco

A set is written beside its place and moved there when it is whole. datasets/README.md describes the layout,
and how to get HumanML3D and KIT-ML.
"""

from pathlib import Path

from utils.cli import Parser, count, name, run
from utils.prepare import Header, RawClip, read_packed, write_set


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


def demo(args):
    """The embedded demo set."""
    from motion.synthetic import demo_clips  # the only subcommand that needs it

    source = f"motion/synthetic.py, {args.clips} clips, seed {args.seed}: procedural, not captured"
    header = Header(args.name, 20.0, args.min_frames, source, "that of this repository")
    clips = (
        RawClip(
            clip.name,
            clip.joints,
            tuple(clip.captions),
            tuple(tuple(words) for words in clip.tokens),
            clip.split,
            content=clip.label,
        )
        for clip in demo_clips(args.clips, args.seed)
    )
    write_set(clips, args.clips, Path(args.dataset_dir) / args.name, header, args.overwrite)


def joints(args):
    """Packed joints with captions and labels."""
    fps, clips = read_packed(args.input)
    header = Header(args.name, fps, args.min_frames, args.source or Path(args.input).name, args.licence)
    write_set(clips, len(clips), Path(args.dataset_dir) / args.name, header, args.overwrite)


def parse(argv=None):
    parser = Parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{demo,joints}")

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
    sub.add_argument(
        "--source", default="", help="where the motion is from, for spec.json [the folder's name]"
    )
    sub.add_argument(
        "--licence", default="see its source", help="terms of the motion, for spec.json [%(default)s]"
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    args.make(args)


if __name__ == "__main__":
    run(main)
