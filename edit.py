"""Keep part of a motion and regenerate the rest from a text.

python edit.py ... --source_motion walk.npy --text_prompt "a person jumps" -msec 0.3,0.6     # fractions
python edit.py ... --source_motion walk.npy --text_prompt "a person waves" -msec 0,40 120,160   # frames
python edit.py ... --source_motion walk.bvh --text_prompt "a person jumps" -msec 0.6,1.0     # a known rig
python edit.py ... --text_prompt "a person walks" --motion_length 120 --keep_pose sit.bvh@0 sit.bvh@5.9

Kept frames stay where they were in the source's world. A .bvh source gives a .bvh beside the other files.
"""

import utils.environment  # noqa: F401  # isort: skip

from models.AE import STRIDE
from models.LengthEstimator import MAX_FRAMES
from motion.captions import clean_text
from motion.export import FORMATS, Motion, Names, export_motion, in_place
from motion.render.rendering import render_video
from utils.cli import Parser, count, run, start
from utils.config import WeightsConfig, from_flags
from utils.data.bvh_dataset import Reading, read_joint_map, reading_flags
from utils.errors import BadInput
from utils.flags import generator_flags, output_flags, output_folder, sampling_config
from utils.generation.edit_source import BONES, is_bvh
from utils.generation.edits import EditConfig, draw_edits, read_plan
from utils.pipeline import Pipeline


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    group = parser.add_argument_group("what to edit")
    group.add_argument(
        "--source_motion",
        help=".npy: feature rows [T,67|263] or joints [T,22,3]; or .bvh, brought to the model's frame rate",
    )
    group.add_argument("--text_prompt", required=True, help="what the new part shows")
    group.add_argument(
        "-msec",
        "--mask_edit_section",
        nargs="+",
        metavar="a,b",
        help="sections to regenerate: fractions of the motion if written with a point (0.3,0.6), else frames "
        "(40,80) [with --keep_pose: everything]",
    )
    group.add_argument(
        "--keep_pose",
        nargs="+",
        metavar="FILE@SECONDS[:OF_FILE]",
        help="keyframes: the pose in the first frame of FILE, or OF_FILE seconds into it, at SECONDS of the "
        "result, in a part that is generated; FILE as for --source_motion, but one frame is enough. Pose and "
        "height are met; place and heading are those of the motion",
    )
    group.add_argument(
        "--motion_length",
        type=count(2 * STRIDE, MAX_FRAMES),
        help="frames of a motion from text and keyframes alone, without --source_motion",
    )
    group.add_argument("--repeat_times", type=count(1, 10**4), default=1, help="edits to draw [%(default)s]")
    group.add_argument(
        "--bones",
        choices=("auto", *BONES),
        default="auto",
        help="bone lengths on which the model sees a motion of 22 joints: the source's, HumanML3D's, or "
        "those that the autoencoder reproduces best; the result has the source's [%(default)s]",
    )
    reading_flags(parser.add_argument_group("a .bvh source"))
    output_flags(parser, "./editing", FORMATS)
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    prompt = clean_text(args.text_prompt)
    if not prompt:
        raise BadInput("--text_prompt is empty")
    folder = output_folder(args)  # before weights are loaded
    device = start(args)
    pipeline = Pipeline.open(from_flags(WeightsConfig, args), device)
    spec, sampling = pipeline.spec, sampling_config(args, pipeline.spec, pipeline.mardm)
    reading = from_flags(Reading, args, fps=spec.fps, joint_map=read_joint_map(args.joint_map))
    files = [args.source_motion or "", *(word.rpartition("@")[0] for word in args.keep_pose or ())]
    if reading != Reading(spec.fps) and not any(map(is_bvh, files)):
        raise BadInput("--joint_map, --unit, --up and --position_channels are for a .bvh: leave them out")
    plan, notes = read_plan(from_flags(EditConfig, args), spec, reading)
    print(*notes, sep="\n")
    text = pipeline.embed([prompt])
    for line in pipeline.warnings([prompt], text):
        print(f"warning: {line}")

    folder.mkdir(parents=True, exist_ok=True)
    names = Names(folder, prefix="editing_caption", plain=not args.mardm_names)
    from_bvh = args.source_motion and is_bvh(args.source_motion)
    formats = [*args.export, "bvh"] if from_bvh else args.export
    move = in_place if args.in_place else lambda joints: joints
    edits = draw_edits(pipeline, text, plan, sampling, args.repeat_times)
    for r, (rows, joints, lines) in enumerate(edits):
        for line in lines:  # none if an edit keeps nothing
            print(line)
        stem = names.stem(prompt, 0, r, len(joints))
        joints = move(joints)
        export_motion(stem, Motion(joints, prompt, spec.fps, spec.skeleton, rows, plan.own), formats)
        if "mp4" in formats and args.source_motion:
            beside = stem.with_name(stem.name + "_beside_source.mp4")
            pair, titles = [move(plan.source.joints), joints], ["source", "edit"]
            render_video(beside, pair, spec.skeleton, spec.fps, prompt, titles=titles)
    print(f"{args.repeat_times} edits in {folder}")


if __name__ == "__main__":
    run(main)
