"""A page in the browser: write what a person does, see it move, download it as glb, bvh, mp4, npy or html.

python app.py                     # the demo weights of this repository, at http://127.0.0.1:7860
python app.py --dataset_name t2m --name FSQ_MARDM    # a trained generator

The page is for this computer alone unless --host says otherwise. All it writes goes into one temporary
folder that is removed at the end.
"""

import utils.environment  # noqa: F401  # isort: skip
import contextlib
import html
import os
import signal
import sys
import tempfile
from pathlib import Path

from models.AE import STRIDE
from motion.render.viewer import viewer_frame
from utils.cli import Parser, count, run, start
from utils.config import WeightsConfig, from_flags
from utils.errors import BadInput
from utils.flags import DEMO, generator_flags, sampling_config
from utils.generation.app_backend import (
    GUIDANCE,
    STEPS,
    VARIATIONS,
    Backend,
    check_request,
    duration_range,
)
from utils.pipeline import Pipeline

WAITING = 16  # requests in the queue; more are refused
FIELDS = ("prompt", "estimate", "seconds", "seed", "cfg", "steps", "variations")
VISITORS = 64  # whose last result is remembered; a program makes a new one with every request
EXAMPLES = (
    "a person walks forward",
    "someone waves with the right hand",
    "a person jumps",
    "a man turns left",
)
STYLE = """
.gradio-container { max-width: 1280px !important; margin: 0 auto; }
#viewer iframe { width: 100%; border: 1px solid var(--border-color-primary); }
"""
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

    @contextlib.contextmanager
    def errors_on_the_page():
        try:
            yield
        except BadInput as error:
            raise gr.Error(html.escape(str(error)), title="", print_exception=False) from None

    def generate(*values):
        with errors_on_the_page():
            request = check_request(spec, dict(zip(FIELDS, values)))
            result = backend.generate(request)
        for line in result.warnings:
            gr.Warning(html.escape(line), title="")
        page = viewer_frame(result.page.read_text(encoding="utf-8"), rows=-(-request.variations // 2))
        return page, list(map(str, result.files)), result.line, backend.command_line(request), result

    def video(result):
        with errors_on_the_page():
            path = backend.video(result)
        return [*map(str, result.files), str(path)]

    with gr.Blocks(title="FSQ-MARDM", analytics_enabled=False) as page:
        last = gr.State()
        gr.Markdown("# FSQ-MARDM\nWrite what somebody does, and see it move.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                prompt = gr.Textbox(label="What does the person do?", max_lines=4, autofocus=True)
                gr.Examples([[example] for example in EXAMPLES], prompt, label="For example")
                estimate = gr.Checkbox(True, label="Length as the text suggests")
                seconds = gr.Slider(
                    shortest, longest, min(4, longest), step=STRIDE / spec.fps, label="Seconds", visible=False
                )
                variations = gr.Slider(*VARIATIONS, 1, step=1, label="Variations, side by side")
                with gr.Accordion("More", open=False):
                    seed = gr.Number(sampling.seed, label="Seed", precision=0)
                    cfg = gr.Slider(*GUIDANCE, sampling.cfg, step=0.1, label="Guidance (1 = off)")
                    steps = gr.Slider(
                        *STEPS, min(sampling.time_steps, STEPS[1]), step=1, label="Unmasking rounds"
                    )
                go = gr.Button("Generate", variant="primary")
            with gr.Column(scale=5, min_width=480):
                viewer = gr.HTML(WELCOME, elem_id="viewer", padding=False)
                line = gr.Markdown()
                files = gr.File(label="Files", file_count="multiple", interactive=False)
                mp4 = gr.Button("Make mp4")
                command = gr.Textbox(label="The same from the command line", interactive=False, max_lines=4)
        estimate.change(
            lambda on: gr.update(visible=not on), estimate, seconds, queue=False, api_visibility="private"
        )
        alone = {"concurrency_limit": 1, "concurrency_id": "drawing"}
        inputs = [prompt, estimate, seconds, seed, cfg, steps, variations]
        outputs = [viewer, files, line, command, last]
        gr.on([go.click, prompt.submit], generate, inputs, outputs, preprocess=False, **alone)
        mp4.click(video, last, files, **alone)
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
            state_session_capacity=VISITORS,
            run_history=False,
            footer_links=[],
            theme=look,
            css=STYLE,
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
    return words + ["--fix_feet"] * values["fix_feet"]


if __name__ == "__main__":
    run(main)
