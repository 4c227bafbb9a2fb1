"""Requests of the browser page: checked, then answered with motions as files in one folder."""

import shlex
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.AE import STRIDE
from models.LengthEstimator import MAX_FRAMES
from models.sampling import SamplingConfig
from motion.captions import clean_text
from motion.export import Motion, Names, export_motion, safe_caption
from motion.feet import fix_feet
from motion.render.rendering import render_video
from motion.render.viewer import write_html
from utils.data.bvh_dataset import Reading
from utils.errors import BadInput
from utils.flags import settled
from utils.generation.edits import EditConfig, draw_edits, read_plan
from utils.generation.prompts import frames_as_words, parse_prompt, prompt_lines
from utils.generation.single_motions import Texts, draw_each
from utils.generation.stitch import TRANSITION, draw_stories
from utils.generation.waypoints import Arrival, draw_routes, frames_for, parse_waypoints
from utils.pipeline import Pipeline

PROMPT_LETTERS, STORY_LINES, OTHER_LETTERS = 1000, 6, 200
ROUNDS, GUIDANCE, VARIATIONS, SEED = (1, 50), (1.0, 10.0), (1, 4), (0, 10**9)
CANDIDATES = 32  # for waypoints, of all variations together
KEPT_RESULTS = 30
SOURCE = "source.npy"  # of an edit, beside its result
NO_MOTION = "There is no motion, or it is no longer kept: press Generate first."


@dataclass(frozen=True)
class Request:
    """A request whose values have been checked, whether from a browser or a program."""

    prompts: tuple  # of str; several are a story
    frames: tuple  # of each; 0 = estimated from the text
    seed: int
    cfg: float
    rounds: int
    variations: int
    waypoints: str = ""
    change: tuple = ()  # for an edit: (number of the variation to change, sections)

    @property
    def caption(self):
        return " → ".join(self.prompts)


def check_request(spec, fields):
    """The page's values, by FIELDS -> Request. Raises BadInput with a line for the user."""
    lines, estimate = _lines(fields["prompt"]), fields["estimate"]
    if not isinstance(estimate, bool):
        raise BadInput("Whether the length is estimated must be true or false.")
    asked = 0
    if not estimate:
        asked = round(bounded(fields["seconds"], "The length in seconds", *duration_range(spec)) * spec.fps)
        asked = min(asked // STRIDE * STRIDE, MAX_FRAMES)
    if len(lines) > 1:  # like a file of prompts
        story = [parse_prompt(line, asked, f"line {k}") for k, line in enumerate(lines, start=1)]
        lines, frames = zip(*((prompt.text, prompt.frames) for prompt in story))
    else:
        frames = (asked,)
    waypoints = _short(fields["waypoints"], "The waypoints")
    if waypoints:
        if len(lines) > 1:
            raise BadInput("A story goes where it goes: take its other lines out, or the waypoints.")
        frames = (frames_for(parse_waypoints(waypoints, spec.fps), asked),)
    return Request(tuple(lines), tuple(frames), **_drawing(fields), waypoints=waypoints)


def check_edit(result, fields):
    """As check_request, for an edit of a Result: the same length, some sections drawn anew."""
    if result is None or not result.page.is_file():
        raise BadInput(NO_MOTION)
    lines = _lines(fields["prompt"])
    if len(lines) > 1:
        raise BadInput("Write one line for the section to regenerate.")
    number = int(bounded(fields["which"], "The variation", 1, len(result.motions), whole=True))
    sections = tuple(_short(fields["sections"], "The stretch").split())
    if not sections:
        raise BadInput("Select the section to regenerate.")
    return Request(tuple(lines), (result.frames,), **_drawing(fields), change=(number, sections))


def _lines(text):
    """The lines of a prompt, cleaned, without empty ones. Raises BadInput."""
    if isinstance(text, str) and len(text) > PROMPT_LETTERS:
        raise BadInput(f"The text has {len(text)} letters, {PROMPT_LETTERS} are the most: shorten it.")
    lines = [line for _, line in prompt_lines(text)] if isinstance(text, str) else []
    if not lines:
        raise BadInput("Write what the person does.")
    if len(lines) > STORY_LINES:
        raise BadInput(f"The text has {len(lines)} lines, {STORY_LINES} are the most: leave some out.")
    return lines


def _short(text, what):
    """A cleaned text of a few letters; "" for a field that nobody touched, which is None."""
    text = "" if text is None else text
    if not isinstance(text, str) or len(text) > OTHER_LETTERS:
        raise BadInput(f"{what} must be a text of up to {OTHER_LETTERS} letters.")
    return clean_text(text)


def _drawing(fields):
    """The sampling settings of a request, by their names in Request."""
    return {
        "seed": int(bounded(fields["seed"], "The seed", *SEED, whole=True)),
        "cfg": bounded(fields["cfg"], "The guidance", *GUIDANCE),
        "rounds": int(bounded(fields["rounds"], "The number of rounds", *ROUNDS, whole=True)),
        "variations": int(bounded(fields["variations"], "The number of variations", *VARIATIONS, whole=True)),
    }


def bounded(value, what, low, high, whole=False):
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{what} is not a number.") from None
    if not low <= number <= high or (whole and number != int(number)):
        kind = "whole number from {:d} to {:d}" if whole else "number from {:g} to {:g}"
        raise BadInput(f"{what} must be a {kind.format(low, high)}.")
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
    frames: int
    line: str
    command: str  # that makes the same motions
    warnings: tuple = ()

    @property
    def motions(self):
        """The .npy of every variation."""
        return [file for file in self.files if file.suffix == ".npy" and file.name != SOURCE]


@dataclass(frozen=True)
class Backend:
    """Generates motions on request, and keeps the latest results' files, each in a folder of its own."""

    pipeline: Pipeline
    sampling: SamplingConfig
    folder: Path
    command: tuple = ()  # flags with which sample.py uses the same weights
    fix_feet: bool = False

    def generate(self, request):
        """Request -> Result. Raises BadInput."""
        pipeline, spec = self.pipeline, self.pipeline.spec
        text = pipeline.embed(list(request.prompts))
        texts = Texts(request.prompts, text, pipeline.lengths(text, request.frames, request.seed))
        draw, how = draw_each, request.variations
        flags = {"--text_prompt": request.prompts[0], "--motion_length": request.frames[0]}
        if len(request.prompts) > 1:
            draw, how = draw_stories, TRANSITION // STRIDE
            flags = {"--text_path": "story.txt", "--stitch": None}
        elif request.waypoints:
            candidates = CANDIDATES // request.variations
            draw, how = draw_routes, (parse_waypoints(request.waypoints, spec.fps), candidates)
            flags |= {"--waypoints": request.waypoints, "--candidates": candidates}
        hold = self.fix_feet and not request.waypoints  # with waypoints they are held already
        flags |= {"--fix_feet": None} if hold else {}
        began, motions, notes = time.perf_counter(), [], []
        try:
            for made, _, joints in draw(pipeline, texts, self._sampling(request), request.variations, how):
                notes += [str(Arrival(**made["waypoints"]))] if "waypoints" in made else []
                motions.append(fix_feet(joints, spec.fps, spec.skeleton) if hold else joints)
        except BadInput as error:  # raised last, for variations that miss a waypoint: keep the others
            if not motions:
                raise
            notes.append(str(error))
        seconds = time.perf_counter() - began
        return self._keep(request, motions, [took(motions[0], spec.fps, seconds), *notes], flags, text)

    def edit(self, result, request):
        """Draw sections of a Result's motion anew -> Result. Raises BadInput."""
        pipeline, spec = self.pipeline, self.pipeline.spec
        number, sections = request.change
        source = result.motions[number - 1]
        asked = EditConfig(source_motion=str(source), mask_edit_section=list(sections))
        plan, notes = read_plan(asked, spec, Reading(spec.fps))
        text = pipeline.embed(list(request.prompts))
        began = time.perf_counter()
        edits = draw_edits(pipeline, text, plan, self._sampling(request), request.variations)
        motions = [joints for _, joints, _ in edits]
        line = took(motions[0], spec.fps, time.perf_counter() - began)
        flags = {"--source_motion": SOURCE, "--text_prompt": request.prompts[0]}
        return self._keep(request, motions, [line, notes[-1]], flags, text, plan)

    @property
    def shown_rounds(self):
        """What the slider of rounds shows at first. Left there it means the default, which depends on the
        guidance: beyond that of the one-step head another sampler draws.
        """
        return min(settled(self.sampling, self.pipeline.mardm).time_steps, ROUNDS[1])

    def _sampling(self, request):
        rounds = self.sampling.time_steps if request.rounds == self.shown_rounds else request.rounds
        settings = {"cfg": request.cfg, "time_steps": rounds, "seed": request.seed}
        sampling = replace(self.sampling, **settings)
        settled(sampling, self.pipeline.mardm)  # BadInput for what this generator does not have
        return sampling

    def _keep(self, request, motions, notes, flags, text, plan=None):
        """Write the files of a result -> Result. notes: lines to show; flags: of its command, by name;
        plan: of an edit, whose source the command needs.
        """
        self.remove_oldest()
        spec, caption = self.pipeline.spec, request.caption
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="result_"))
        names, files = Names(folder), []
        for r, joints in enumerate(motions):
            stem = names.stem("story" if len(request.prompts) > 1 else caption, 0, r, len(joints))
            motion = Motion(joints, caption, spec.fps, spec.skeleton, own=plan and plan.own)
            files += export_motion(stem, motion, ("npy", "bvh", "glb")).values()
        if plan:
            Motion(plan.source.joints, caption, spec.fps, spec.skeleton).save(folder / SOURCE)
            files.append(folder / SOURCE)
        if len(request.prompts) > 1:
            story = folder / "story.txt"
            lines = (f"{p}#{n or 'NA'}\n" for p, n in zip(request.prompts, request.frames))
            story.write_text("".join(lines), encoding="utf-8")
            files.append(story)
        end = frames_as_words(caption) if len(request.prompts) == 1 else None
        ends = [f"{end} is read as words: the length of a single prompt is set below it"] if end else []
        page = folder / f"{safe_caption(caption, 150, plain=True)}.html"
        write_html(page, motions, caption, spec.fps, spec.skeleton)
        return Result(
            request,
            folder,
            [*files, page],
            page,
            len(motions[0]),
            "  \n".join(notes),
            self._command(request, flags),
            (*self.pipeline.warnings(request.prompts, text), *ends),
        )

    def _command(self, request, flags):
        """The command line that makes the same motions."""
        flags |= {
            "--seed": request.seed,
            "--cfg": f"{request.cfg:.12g}",
            "--repeat_times": request.variations,
        }
        rounds = self._sampling(request).time_steps
        flags |= {} if rounds is None else {"--time_steps": rounds}
        words = [word for flag, value in flags.items() for word in spelled(flag, value)]
        sections = ["-msec", *request.change[1]] if request.change else []
        script = "edit.py" if request.change else "sample.py"
        return shlex.join(["python", script, *self.command, *words, *sections])

    def video(self, result):
        """Render all motions of a result side by side -> path of the mp4."""
        if result is None or not result.page.is_file():
            raise BadInput(NO_MOTION)
        motions = [np.load(file, allow_pickle=False) for file in result.motions]
        titles = [f"variation {r + 1}" for r in range(len(motions))] if len(motions) > 1 else None
        spec, path = self.pipeline.spec, result.page.with_suffix(".mp4")
        return render_video(path, motions, spec.skeleton, spec.fps, result.request.caption, titles)

    def remove_oldest(self):
        """Remove the oldest results, to make room for one more."""
        folders = sorted(Path(self.folder).iterdir(), key=lambda path: path.stat().st_mtime)
        for path in folders[: max(len(folders) - KEPT_RESULTS + 1, 0)]:
            shutil.rmtree(path, ignore_errors=True)


def spelled(flag, value):
    """A flag and its value (None: it has none) as words of a command line."""
    if value is None:
        return [flag]
    return [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]


def took(joints, fps, seconds):
    """A line with a motion's length and the time it took."""
    return f"{len(joints) / fps:.1f} s of motion ({len(joints)} frames), generated in {seconds:.1f} s"
