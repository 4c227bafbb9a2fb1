"""A page in the browser: write what a person does, see it move, lead it, change a part of it, download it.

python app.py                     # the demo weights of this repository, at http://127.0.0.1:7860
python app.py --dataset_name t2m --name FSQ_MARDM    # a trained generator

The page is for this computer alone unless --host says otherwise. All it writes goes into one temporary
folder that is removed at the end.
"""

import utils.environment  # noqa: F401  # isort: skip
import contextlib
import html
import os
import re
import signal
import sys
import tempfile
from math import floor
from pathlib import Path

from models.AE import STRIDE
from motion.render.viewer import ASSETS, floor_plan, page_script, time_line, viewer_frame
from utils.cli import Parser, count, run, start
from utils.config import WeightsConfig, from_flags
from utils.errors import BadInput
from utils.flags import DEMO, generator_flags, sampling_config
from utils.generation.app_backend import (
    GUIDANCE,
    STEPS,
    VARIATIONS,
    Backend,
    check_edit,
    check_request,
    duration_range,
)
from utils.pipeline import Pipeline

WAITING = 16  # requests in the queue; more are refused
FIELDS = ("prompt", "estimate", "seconds", "seed", "cfg", "steps", "variations", "waypoints")
CHANGE = ("prompt", "sections", "which", *FIELDS[3:7])
VISITORS = 64  # whose last result is remembered; a program makes a new one with every request
EXAMPLES = (
    "a person walks forward",
    "someone waves with the right hand",
    "a person jumps",
    "a man turns left",
    "a person walks forward\nsomeone waves with the left hand\na man turns right",
)
PACE = {"pace": 0.9, "first": 1.0}  # metres a second between clicks on the floor; seconds to start walking
WELCOME = "<p style='text-align: center; padding: 6em 1em'>The motion appears here.</p>"


def gradio(folder):
    """The library, keeping its files in `folder` and reporting to nobody. Nothing else needs it."""
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    try:
        import gradio
    except ImportError:
        raise BadInput("app.py needs gradio: pip install -r requirements-app.txt") from None
    return gradio


def build(backend):
    """The page, not yet served."""
    gr, spec, sampling = gradio(backend.folder), backend.pipeline.spec, backend.sampling
    shortest, longest = duration_range(spec)
    latest = {}  # result of each visitor, the oldest first; one request at a time changes it

    @contextlib.contextmanager
    def errors_on_the_page():
        try:
            yield
        except BadInput as error:
            text = re.sub(r"^--?\w+:? ", "", str(error))  # there are no flags here
            raise gr.Error(html.escape(text), title="", print_exception=False) from None

    def show(result, visitor):
        latest.pop(visitor.session_hash, None)
        latest[visitor.session_hash] = result
        while len(latest) > VISITORS:
            del latest[next(iter(latest))]
        for line in result.warnings:
            gr.Warning(html.escape(line), title="")
        page = viewer_frame(result.page.read_text(encoding="utf-8"), rows=-(-result.request.variations // 2))
        files = list(map(str, result.files))
        return page, files, result.line, result.command, time_line(result.frames, spec.fps)

    def generate(visitor: gr.Request, *values):
        with errors_on_the_page():
            return show(backend.generate(check_request(spec, dict(zip(FIELDS, values)))), visitor)

    def change(visitor: gr.Request, *values):
        with errors_on_the_page():
            result = latest.get(visitor.session_hash)
            return show(backend.edit(result, check_edit(result, dict(zip(CHANGE, values)))), visitor)

    def video(visitor: gr.Request):
        with errors_on_the_page():
            path = backend.video(latest.get(visitor.session_hash))
        return [*map(str, latest[visitor.session_hash].files), str(path)]

    with gr.Blocks(title="FSQ-MARDM", analytics_enabled=False) as page:
        gr.Markdown("# FSQ-MARDM\nWrite what somebody does, and see it move.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                prompt = gr.Textbox(
                    label="What does the person do?",
                    info="Several lines become one motion, one after the other.",
                    lines=2,
                    autofocus=True,
                )
                gr.Examples([[example] for example in EXAMPLES], prompt, label="For example")
                estimate = gr.Checkbox(True, label="Length as the text suggests")
                seconds = gr.Slider(
                    shortest, longest, min(4, longest), step=STRIDE / spec.fps, label="Seconds", visible=False
                )
                variations = gr.Slider(*VARIATIONS, 1, step=1, label="Variations, side by side")
                with gr.Accordion("Where the person goes", open=False):
                    way = PACE | {"longest": floor(10 * longest - 1) / 10}
                    gr.HTML(floor_plan(), elem_id="floor", js_on_load=page_script("floor", way))
                    waypoints = gr.Textbox(
                        label="Places and times",
                        info="Click on the floor, or write x,z@seconds, in metres. @4:90 faces left then.",
                        elem_id="waypoints",
                    )
                with gr.Accordion("More", open=False):
                    seed = gr.Number(sampling.seed, label="Seed", precision=0)
                    cfg = gr.Slider(*GUIDANCE, sampling.cfg, step=0.1, label="Guidance (1 = off)")
                    steps = gr.Slider(
                        *STEPS, min(sampling.time_steps, STEPS[1]), step=1, label="Unmasking rounds"
                    )
                go = gr.Button("Generate", variant="primary")
            with gr.Column(scale=5, min_width=320):
                viewer = gr.HTML(WELCOME, elem_id="viewer", padding=False)
                line = gr.Markdown()
                with gr.Accordion("Change a part of it", open=False):
                    bar = gr.HTML("", elem_id="timeline", js_on_load=page_script("timeline"))
                    with gr.Row():
                        sections = gr.Textbox(
                            label="Stretch", info="Drag over the time line: frames a,b", elem_id="stretch"
                        )
                        which = gr.Number(1, label="Variation", info="The one to change", precision=0)
                    other = gr.Textbox(label="What should it be?", max_lines=1, elem_id="change")
                    redo = gr.Button("Draw this part anew")
                files = gr.File(label="Files", file_count="multiple", interactive=False)
                mp4 = gr.Button("Make mp4")
                command = gr.Textbox(
                    label="The same from the command line", interactive=False, max_lines=4, elem_id="command"
                )
        estimate.change(
            lambda on: gr.update(visible=not on), estimate, seconds, queue=False, api_visibility="private"
        )
        alone = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "drawing"}
        drawing, shown = [seed, cfg, steps, variations], [viewer, files, line, command, bar]
        asked = [prompt, estimate, seconds, *drawing, waypoints]
        gr.on([go.click, prompt.submit], generate, asked, shown, **alone)
        gr.on([redo.click, other.submit], change, [other, sections, which, *drawing], shown, **alone)
        mp4.click(video, None, files, **alone)
    return page


def serve(page, host, port, wait=True):
    """Opens the page to browsers, until Ctrl-C if `wait`."""
    gr = gradio(page.GRADIO_CACHE)
    look = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        page.queue(max_size=WAITING).launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=1,  # nothing is to be uploaded
            run_history=False,
            footer_links=[],
            theme=look,
            css=(ASSETS / "page.css").read_text(encoding="utf-8"),
        )
    except OSError as error:
        raise BadInput(f"the page cannot open at {host}:{port} ({error}): pass another --port") from None
    print(f"open http://{host}:{port} in a browser; Ctrl-C ends it", flush=True)
    if wait:
        page.block_thread()


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    parser.set_defaults(**DEMO, device="cpu")
    group = parser.add_argument_group("the page")
    group.add_argument("--host", default="127.0.0.1", help="address to listen at [%(default)s]")
    group.add_argument("--port", type=count(1, 65535), default=7860, help="[%(default)s]")
    group.add_argument("--fix_feet", action="store_true", help="hold standing feet in place")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    device = start(args)
    pipeline = Pipeline.open(from_flags(WeightsConfig, args), device)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is removed then too
    with tempfile.TemporaryDirectory(prefix="fsq_mardm_app_") as folder:
        command = sample_flags(vars(args))
        sampling = sampling_config(args, pipeline.spec)
        backend = Backend(pipeline, sampling, Path(folder), command, args.fix_feet)
        page = build(backend)
        pipeline.embed([EXAMPLES[0]])  # a missing encoder ends the program, not the first request
        serve(page, args.host, args.port)


def sample_flags(values):
    """The flags, from app.py's by name, with which sample.py draws the same way; the page adds its own."""
    parser = Parser("")
    generator_flags(parser)
    demo = all(values[key] == value for key, value in DEMO.items())
    skipped = {"seed", "cfg", "time_steps", "device", *(DEMO if demo else ())}
    words = ["--demo"] if demo else []
    for key, default in vars(parser.parse_args([])).items():
        if key not in skipped and values[key] != default:
            words += [f"--{key}"] if values[key] is True else [f"--{key}", str(values[key])]
    return words


if __name__ == "__main__":
    run(main)
