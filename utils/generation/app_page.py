"""The page of app.py: its fields, and what its buttons do."""

import contextlib
import html
import os
import re
from math import floor

from models.AE import STRIDE
from motion.render.viewer import floor_plan, page_script, time_line, viewer_frame
from utils.errors import BadInput
from utils.flags import settled
from utils.generation.app_backend import (
    GUIDANCE,
    ROUNDS,
    VARIATIONS,
    check_edit,
    check_request,
    duration_range,
)

FIELDS = ("prompt", "estimate", "seconds", "seed", "cfg", "rounds", "variations", "waypoints", "weights")
CHANGE = ("prompt", "sections", "which", *FIELDS[3:7])
WEIGHTS = {  # of the repository: what they are for
    "demo": "demo: a few actions, reliable",
    "cmu": "CMU: many actions, less reliable",
}
VISITORS = 64  # whose last result is remembered; a program makes a new one with every request
EXAMPLES = (
    "a person walks forward",
    "someone waves with the right hand",
    "a person jumps",
    "a man turns left",
    "a person walks forward\nsomeone waves with the left hand\na man turns right",
)
PACE = {"pace": 0.9, "first": 1.0}  # metres a second between clicks on the floor; seconds to start walking
# the motion, which on a phone is a screen away from the buttons
INTO_VIEW = "() => document.querySelector('#viewer').scrollIntoView({block: 'nearest', behavior: 'smooth'})"
WELCOME = "<p style='text-align: center; padding: 6em 1em'>The motion appears here.</p>"


def gradio(folder):
    """The library, keeping its files in `folder` and reporting to nobody. Nothing else needs it."""
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    try:
        import gradio
    except ImportError:
        raise BadInput("app.py needs gradio: pip install -r requirements-app.txt") from None
    return gradio


def build(backends):
    """The page, not yet served. backends: by the name of their weights, the first one chosen."""
    first = next(iter(backends.values()))
    gr, sampling = gradio(first.folder), first.sampling
    usual_rounds = settled(sampling, first.pipeline.mardm).time_steps
    ranges = [duration_range(backend.pipeline.spec) for backend in backends.values()]
    shortest, longest = min(low for low, _ in ranges), max(high for _, high in ranges)
    step = max(STRIDE / backend.pipeline.spec.fps for backend in backends.values())
    latest = {}  # of each visitor backend and result, the oldest first; one request at a time changes it

    @contextlib.contextmanager
    def errors_on_the_page():
        try:
            yield
        except BadInput as error:
            text = re.sub(r"^--?\w+:? ", "", str(error))  # there are no flags here
            raise gr.Error(html.escape(text), title="", print_exception=False) from None

    def show(backend, result, visitor):
        latest.pop(visitor.session_hash, None)
        latest[visitor.session_hash] = backend, result
        while len(latest) > VISITORS:
            del latest[next(iter(latest))]
        for line in result.warnings:
            gr.Warning(html.escape(line), title="")
        page = viewer_frame(result.page.read_text(encoding="utf-8"), rows=-(-result.request.variations // 2))
        files = list(map(str, result.files))
        return page, files, result.line, result.command, time_line(result.frames, backend.pipeline.spec.fps)

    def generate(visitor: gr.Request, *values):
        with errors_on_the_page():
            fields = dict(zip(FIELDS, values))
            backend = chosen(backends, fields["weights"])
            return show(backend, backend.generate(check_request(backend.pipeline.spec, fields)), visitor)

    def change(visitor: gr.Request, *values):
        with errors_on_the_page():
            backend, result = latest.get(visitor.session_hash, (first, None))
            asked = check_edit(result, dict(zip(CHANGE, values)))
            return show(backend, backend.edit(result, asked), visitor)

    def video(visitor: gr.Request):
        with errors_on_the_page():
            backend, result = latest.get(visitor.session_hash, (first, None))
            path = backend.video(result)
        return [*map(str, result.files), str(path)]

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
                go = gr.Button("Generate", variant="primary")
                gr.Examples([[example] for example in EXAMPLES], prompt, label="For example")
                titles = [(WEIGHTS.get(name, name), name) for name in backends]
                weights = gr.Radio(titles, value=titles[0][1], label="Weights", visible=len(titles) > 1)
                estimate = gr.Checkbox(True, label="Length as the text suggests")
                seconds = gr.Slider(
                    shortest, longest, min(4, longest), step=step, label="Seconds", visible=False
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
                    rounds = gr.Slider(
                        *ROUNDS, min(usual_rounds, ROUNDS[1]), step=1, label="Unmasking rounds"
                    )
            with gr.Column(scale=5, min_width=320):
                viewer = gr.HTML(WELCOME, elem_id="viewer", padding=False)
                line = gr.Markdown()
                with gr.Accordion("Change a part of it", open=False):
                    bar = gr.HTML("", elem_id="timeline", js_on_load=page_script("timeline"))
                    with gr.Row():
                        sections = gr.Textbox(
                            label="Section",
                            info="Drag over the time line, or write frames or fractions: 40,80 or 0.3,0.6",
                            elem_id="stretch",
                        )
                        which = gr.Number(1, label="Variation", info="The one to change", precision=0)
                    other = gr.Textbox(label="What should it be?", max_lines=1, elem_id="change")
                    redo = gr.Button("Regenerate this section")
                files = gr.File(label="Files", file_count="multiple", interactive=False)
                mp4 = gr.Button("Make mp4")
                command = gr.Textbox(
                    label="The same from the command line", interactive=False, max_lines=4, elem_id="command"
                )
        estimate.change(
            lambda on: gr.update(visible=not on), estimate, seconds, queue=False, api_visibility="private"
        )
        alone = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "drawing"}
        drawing, shown = [seed, cfg, rounds, variations], [viewer, files, line, command, bar]
        asked = [prompt, estimate, seconds, *drawing, waypoints, weights]
        made = gr.on([go.click, prompt.submit], generate, asked, shown, **alone)
        redone = gr.on([redo.click, other.submit], change, [other, sections, which, *drawing], shown, **alone)
        for event in made, redone:
            event.success(None, js=INTO_VIEW, api_visibility="private")
        mp4.click(video, None, files, **alone)
    return page


def chosen(backends, name):
    if not isinstance(name, str) or name not in backends:
        raise BadInput(f"The weights must be one of {', '.join(backends)}.")
    return backends[name]
