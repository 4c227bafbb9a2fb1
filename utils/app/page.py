"""The page of app.py: its fields and what its buttons do."""

import contextlib
import html
import os
import re
from math import floor

from models.AE import STRIDE
from motion.render.viewer import floor_plan, page_script, time_line, viewer_frame
from utils.app.backend import (
    GUIDANCE,
    KEPT_RESULTS,
    ROUNDS,
    VARIATIONS,
    check_edit,
    check_request,
    duration_range,
)
from utils.errors import BadInput, system_error

FIELDS = ("prompt", "estimate", "seconds", "seed", "cfg", "rounds", "variations", "waypoints", "weights")
CHANGE = ("prompt", "sections", "which", *FIELDS[3:7])
WEIGHTS = {  # released weights -> their title on the page
    "demo": "demo: a few actions, reliable",
    "cmu": "CMU: many actions, less reliable",
}
EXAMPLES = (
    "a person walks forward",
    "someone waves with the right hand",
    "a person jumps",
    "a man turns left",
    "a person walks forward\nsomeone waves with the left hand\na man turns right",
)
PACE = {"pace": 0.9, "first": 1.0}  # metres a second between clicks on the floor; seconds to start walking
# scroll to the motion, which on a phone is a screen away from the buttons
INTO_VIEW = "() => document.querySelector('#viewer').scrollIntoView({block: 'nearest', behavior: 'smooth'})"
WELCOME = "<p style='text-align: center; padding: 6em 1em'>The motion appears here.</p>"


def gradio(folder):
    """Import Gradio, with its files in `folder` and without analytics. BadInput if it is not installed."""
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    try:
        import gradio
    except ImportError:
        raise BadInput("app.py needs gradio: pip install -r requirements-app.txt") from None
    return gradio


def build(backends):
    """The page, not yet served. backends: {name of the weights: Backend}; the first one is preselected."""
    gr = gradio(next(iter(backends.values())).folder)
    visits = Visits(gr, backends)

    def generate(visitor: gr.Request, *values):
        with errors_on_the_page(gr):
            return visits.generate(visitor.session_hash, dict(zip(FIELDS, values)))

    def change(visitor: gr.Request, *values):
        with errors_on_the_page(gr):
            return visits.change(visitor.session_hash, dict(zip(CHANGE, values)))

    def video(visitor: gr.Request):
        with errors_on_the_page(gr):
            return visits.video(visitor.session_hash)

    with gr.Blocks(title="FSQ-MARDM", analytics_enabled=False) as page:
        gr.Markdown("# FSQ-MARDM\nWrite what somebody does, and see it move.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                asked, go = ask(gr, backends)
            with gr.Column(scale=5, min_width=320):
                viewer = gr.HTML(WELCOME, elem_id="viewer", padding=False)
                line = gr.Markdown()
                bar, other, redo = ask_for_change(gr)
                files = gr.File(label="Files", file_count="multiple", interactive=False)
                mp4 = gr.Button("Make mp4")
                command = gr.Textbox(
                    label="The same from the command line", interactive=False, max_lines=4, elem_id="command"
                )
        estimate, seconds = asked["estimate"], asked["seconds"]
        estimate.change(
            lambda on: gr.update(visible=not on), estimate, seconds, queue=False, api_visibility="private"
        )
        alone = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "drawing"}
        shown = [viewer, files, line, command, bar]
        start = [go.click, asked["prompt"].submit]
        made = gr.on(start, generate, [asked[name] for name in FIELDS], shown, **alone)
        changed = [(asked | other)[name] for name in CHANGE]
        redone = gr.on([redo.click, other["prompt"].submit], change, changed, shown, **alone)
        for event in made, redone:
            event.success(None, js=INTO_VIEW, api_visibility="private")
        mp4.click(video, None, files, **alone)
    return page


def ask(gr, backends):
    """-> {name in FIELDS: component}, the button to generate."""
    first = next(iter(backends.values()))
    sampling, specs = first.sampling, [backend.pipeline.spec for backend in backends.values()]
    ranges, step = [duration_range(spec) for spec in specs], max(STRIDE / spec.fps for spec in specs)
    shortest, longest = min(low for low, _ in ranges), max(high for _, high in ranges)
    asked = {}
    asked["prompt"] = gr.Textbox(
        label="What does the person do?",
        info="Several lines become one motion, one after the other.",
        lines=2,
        autofocus=True,
    )
    go = gr.Button("Generate", variant="primary")
    gr.Examples([[example] for example in EXAMPLES], asked["prompt"], label="For example")
    titles = [(WEIGHTS.get(name, name), name) for name in backends]
    asked["weights"] = gr.Radio(titles, value=titles[0][1], label="Weights", visible=len(titles) > 1)
    asked["estimate"] = gr.Checkbox(True, label="Length as the text suggests")
    asked["seconds"] = gr.Slider(
        shortest, longest, min(4, longest), step=step, label="Seconds", visible=False
    )
    asked["variations"] = gr.Slider(*VARIATIONS, 1, step=1, label="Variations, side by side")
    with gr.Accordion("Where the person goes", open=False):
        way = PACE | {"longest": floor(10 * longest - 1) / 10}
        gr.HTML(floor_plan(), elem_id="floor", js_on_load=page_script("floor", way))
        asked["waypoints"] = gr.Textbox(
            label="Places and times",
            info="Click on the floor, or write x,z@seconds, in metres. @4:90 faces left then.",
            elem_id="waypoints",
        )
    with gr.Accordion("More", open=False):
        asked["seed"] = gr.Number(sampling.seed, label="Seed", precision=0)
        cfg = min(max(sampling.cfg, GUIDANCE[0]), GUIDANCE[1])
        asked["cfg"] = gr.Slider(*GUIDANCE, cfg, step=0.1, label="Guidance (1 = off)")
        asked["rounds"] = gr.Slider(*ROUNDS, first.shown_rounds, step=1, label="Unmasking rounds")
    return asked, go


def ask_for_change(gr):
    """-> the time line, {name: component} of the edit's own fields (of CHANGE), the button to regenerate."""
    other = {}
    with gr.Accordion("Change a part of it", open=False):
        bar = gr.HTML("", elem_id="timeline", js_on_load=page_script("timeline"))
        with gr.Row():
            other["sections"] = gr.Textbox(
                label="Section",
                info="Drag over the time line, or write frames or fractions: 40,80 or 0.3,0.6",
                elem_id="stretch",
            )
            other["which"] = gr.Number(1, label="Variation", info="The one to change", precision=0)
        other["prompt"] = gr.Textbox(label="What should it be?", max_lines=1, elem_id="change")
        redo = gr.Button("Regenerate this section")
    return bar, other, redo


@contextlib.contextmanager
def errors_on_the_page(gr):
    try:
        yield
    except Exception as error:
        line = str(error) if isinstance(error, BadInput) else system_error(error)
        if line is None:
            raise
        text = re.sub(r"^--?\w+:? ", "", line)  # there are no flags here
        raise gr.Error(html.escape(text), title="", print_exception=False) from None


class Visits:
    """What the buttons do, and each visitor's last result. Requests come one at a time."""

    def __init__(self, gr, backends):
        self.gr, self.backends = gr, backends
        self.latest = {}  # visitor -> (backend, result), the oldest first

    def generate(self, visitor, fields):
        backend = chosen(self.backends, fields["weights"])
        result = backend.generate(check_request(backend.pipeline.spec, fields))
        return self.show(visitor, backend, result)

    def change(self, visitor, fields):
        backend, result = self.last(visitor)
        return self.show(visitor, backend, backend.edit(result, check_edit(result, fields)))

    def video(self, visitor):
        backend, result = self.last(visitor)
        path = backend.video(result)
        return [*map(str, result.files), str(path)]

    def last(self, visitor):
        return self.latest.get(visitor, (next(iter(self.backends.values())), None))

    def show(self, visitor, backend, result):
        """Keep a result for the visitor's next click. -> what the page shows of it"""
        self.latest.pop(visitor, None)
        self.latest[visitor] = backend, result
        while len(self.latest) > KEPT_RESULTS:
            del self.latest[next(iter(self.latest))]
        for line in result.warnings:
            self.gr.Warning(html.escape(line), title="")
        page = viewer_frame(result.page.read_text(encoding="utf-8"), rows=-(-result.request.variations // 2))
        files = list(map(str, result.files))
        return page, files, result.line, result.command, time_line(result.frames, backend.pipeline.spec.fps)


def chosen(backends, name):
    if not isinstance(name, str) or name not in backends:
        raise BadInput(f"The weights must be one of {', '.join(backends)}.")
    return backends[name]
