"""A page in the browser: generate motion from text, guide it along waypoints, edit it, download it.

python app.py                     # both released weights, chosen on the page: http://127.0.0.1:7860
python app.py --dataset_name t2m --name FSQ_MARDM    # a trained generator

Only this computer can open the page unless --host says otherwise. All files go into one temporary folder
that is removed at the end.
"""

import utils.environment  # noqa: F401  # isort: skip
import argparse
import errno
import signal
import socket
import sys
import tempfile
from pathlib import Path

import torch

from motion.render.viewer import ASSETS
from utils.app.backend import Backend
from utils.app.page import EXAMPLES, build, gradio
from utils.cli import Parser, count, run, start
from utils.config import WeightsConfig, from_flags
from utils.errors import BadInput
from utils.flags import DEMO, RELEASED, generator_flags, sampling_config
from utils.pipeline import Pipeline

WAITING = 16  # requests in the queue; more are refused
VISITS = 32  # sessions kept, 0.6 MB each; Gradio's default is 10,000, and each request of a program is one


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    parser.set_defaults(**DEMO, device="cpu")
    group = parser.add_argument_group("the page")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    group.add_argument("--port", type=count(1, 65535), default=7860, help="port to listen on [%(default)s]")
    group.add_argument("--fix_feet", action="store_true", help="hold standing feet in place")
    return parser


def offered(values):
    """{name: flags}: of the weights asked for; if these are released ones, also of the others present."""
    named = {key: values[key] for key in DEMO}
    if named not in RELEASED.values():
        return {values["name"]: values}
    names = sorted(RELEASED, key=lambda name: RELEASED[name] != named)  # the one that was asked for first
    there = [name for name in names if Path(values["checkpoints_dir"], *RELEASED[name].values()).is_dir()]
    return {name: values | RELEASED[name] for name in there or names[:1]}


def sample_flags(values):
    """Flags of app.py, by name -> those with which sample.py draws the same; the page adds its own."""
    parser = Parser("")
    generator_flags(parser)
    words, skipped = [], {"seed", "cfg", "time_steps"}
    if values["device"] == "cpu" and not torch.cuda.is_available():
        skipped.add("device")  # sample.py chooses it by itself
    for name, released in RELEASED.items():
        if released.items() <= values.items():
            words, skipped = ["--weights", name], skipped | released.keys()
    for key, default in vars(parser.parse_args([])).items():
        if key not in skipped and values[key] != default:
            words += [f"--{key}"] if values[key] is True else [f"--{key}", str(values[key])]
    return words


def check_address(host, port):
    """BadInput if no server can listen there: before weights are loaded, and instead of Gradio's advice."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:  # also of a name that is no address
        flag = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        reason = str(error.strerror).split(" (while")[0]
        raise BadInput(f"the page cannot open at {host}:{port} ({reason}): pass another {flag}") from None


def serve(page, host, port):
    """Serve the page until Ctrl-C."""
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
            state_session_capacity=VISITS,
            footer_links=[],
            theme=look,
            css=(ASSETS / "page.css").read_text(encoding="utf-8"),
        )
    except OSError:
        check_address(host, port)  # taken in the meantime
        raise
    print(f"open http://{host}:{port} in a browser; Ctrl-C ends it", flush=True)
    page.block_thread()


def main(argv=None):
    args = flags().parse_args(argv)
    check_address(args.host, args.port)
    device = start(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the page takes a Ctrl-C for itself
    with tempfile.TemporaryDirectory(prefix="fsq_mardm_app_") as folder:
        backends = {}
        for name, values in offered(vars(args)).items():
            asked = argparse.Namespace(**values)
            pipeline = Pipeline.open(from_flags(WeightsConfig, asked), device)
            command, sampling = sample_flags(values), sampling_config(asked, pipeline.spec)
            backends[name] = Backend(pipeline, sampling, Path(folder), command, args.fix_feet)
            pipeline.embed([EXAMPLES[0]])  # a missing encoder ends the program, not the first request
        serve(build(backends), args.host, args.port)


if __name__ == "__main__":
    run(main)
