"""Requests of the browser page, checked, and what they give: motions as files in one folder."""

import shlex
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.AE import STRIDE
from motion.captions import clean_text
from motion.export import Names, export_motion, safe_caption
from motion.feet import fix_feet
from motion.render.rendering import render_video
from motion.render.viewer import write_html
from utils.errors import BadInput
from utils.generation.prompts import MAX_FRAMES

PROMPT_LETTERS = 1000
STEPS, GUIDANCE, VARIATIONS, SEED = (1, 50), (1.0, 10.0), (1, 4), (0, 10**9)
KEPT_RESULTS = 30


@dataclass(frozen=True)
class Request:
    """A request within its bounds, whoever sends it, a browser or a program."""

    prompt: str
    frames: int  # 0 = estimated from the text
    seed: int
    cfg: float
    steps: int
    variations: int


def check_request(spec, fields):
    """The page's values, a dict -> Request. Raises BadInput with a line for the user."""
    prompt, estimate = fields["prompt"], fields["estimate"]
    if not isinstance(prompt, str) or not clean_text(prompt[: PROMPT_LETTERS + 1]):
        raise BadInput("Write what the person does.")
    if len(prompt) > PROMPT_LETTERS:
        raise BadInput(f"The text has {len(prompt)} letters, {PROMPT_LETTERS} are the most: shorten it.")
    if not isinstance(estimate, bool):
        raise BadInput("Whether the length is estimated must be true or false.")
    frames = 0
    if not estimate:
        frames = round(bounded(fields["seconds"], "The length in seconds", *duration_range(spec)) * spec.fps)
    return Request(
        clean_text(prompt),
        min(frames // STRIDE * STRIDE, MAX_FRAMES),
        int(bounded(fields["seed"], "The seed", *SEED, whole=True)),
        bounded(fields["cfg"], "The guidance", *GUIDANCE),
        int(bounded(fields["steps"], "The number of rounds", *STEPS, whole=True)),
        int(bounded(fields["variations"], "The number of variations", *VARIATIONS, whole=True)),
    )


def bounded(value, what, low, high, whole=False):
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{what} is not a number.") from None
    if not low <= number <= high or (whole and number != int(number)):
        raise BadInput(f"{what} must be a {'whole ' * whole}number from {low:g} to {high:g}.")
    return number


def duration_range(spec):
    """The shortest and the longest motion in seconds, both of whole tokens."""
    shortest = -(-spec.min_frames // STRIDE) * STRIDE
    return shortest / spec.fps, MAX_FRAMES / spec.fps


@dataclass(frozen=True)
class Result:
    """The motions of a request and where their files are."""

    request: Request
    folder: Path
    files: list
    page: Path  # the viewer
    line: str
    warnings: tuple = ()

    def __deepcopy__(self, memo):
        return self


@dataclass(frozen=True)
class Backend:
    """Generates motions on request and keeps the files of the latest, each result in a folder of its own."""

    pipeline: object
    sampling: object
    folder: Path
    command: tuple = ()  # flags with which sample.py finds the same weights and does the same with the feet
    fix_feet: bool = False

    def generate(self, request):
        began, pipeline, spec = time.perf_counter(), self.pipeline, self.pipeline.spec
        text = pipeline.embed([request.prompt])
        lengths = pipeline.lengths(text, [request.frames], request.seed)
        sampling = replace(self.sampling, cfg=request.cfg, time_steps=request.steps, seed=request.seed)
        n = request.variations
        _, joints = pipeline.draw(text.expand(n, *text.shape[1:]), lengths.repeat(n), sampling, range(n))
        if self.fix_feet:
            joints = [fix_feet(one, spec.fps, spec.skeleton) for one in joints]
        line = f"{len(joints[0]) / spec.fps:.1f} s of motion ({len(joints[0])} frames), "
        line += f"generated in {time.perf_counter() - began:.1f} s"

        self.remove_oldest()
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="result_"))
        names, files, prompt = Names(folder), [], request.prompt
        for r, one in enumerate(joints):
            stem = names.stem(prompt, 0, r, len(one))
            files += export_motion(stem, one, prompt, spec.fps, spec.skeleton, ("npy", "bvh", "glb")).values()
        page = folder / f"{safe_caption(prompt, 150, plain=True)}.html"
        write_html(page, joints, prompt, spec.fps, spec.skeleton)
        warnings = tuple(pipeline.warnings([request.prompt], text))
        return Result(request, folder, [*files, page], page, line, warnings)

    def video(self, result):
        """All motions of a result side by side -> its mp4."""
        if result is None or not result.page.is_file():
            raise BadInput("There is no motion, or it is no longer kept: press Generate first.")
        motions = [np.load(file, allow_pickle=False) for file in result.files if file.suffix == ".npy"]
        titles = [f"variation {r + 1}" for r in range(len(motions))] if len(motions) > 1 else None
        spec, path = self.pipeline.spec, result.page.with_suffix(".mp4")
        return render_video(path, motions, spec.skeleton, spec.fps, result.request.prompt, titles)

    def command_line(self, request):
        """The command that makes the same motions."""
        flags = {
            "--text_prompt": request.prompt,
            "--motion_length": request.frames,
            "--seed": request.seed,
            "--cfg": f"{request.cfg:g}",
            "--time_steps": request.steps,
            "--repeat_times": request.variations,
        }
        parts = [str(part) for pair in flags.items() for part in pair]
        return shlex.join(["python", "sample.py", *self.command, *parts])

    def remove_oldest(self):
        """Remove old results until one more fits."""
        folders = sorted(Path(self.folder).iterdir(), key=lambda path: path.stat().st_mtime)
        for path in folders[: max(len(folders) - KEPT_RESULTS + 1, 0)]:
            shutil.rmtree(path, ignore_errors=True)
