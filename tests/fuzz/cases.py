"""What may be wrong with each kind of file: a table of contents a kind, one generator for all.

FILES names each file that a script reads and the commands that read it. Everything in ANY is put into
the place of every file, everything in OWN[its kind] into that of its kind.
"""

import io
import json
import pickle
from pathlib import PurePath

import numpy as np
import torch

from motion.skeletons import SMPL22
from tests.fuzz.contract import PLACE, Canary, Case
from tests.fuzz.home import COMMANDS, DATA, OUT
from tests.tiny import PAIR

FOLDER, NOTHING = object(), object()  # in the place of a file
LONG = "a person walks " * 70_000  # a megabyte


def reader(command, words=None, more="", expect=None):
    """(script, its words, how it must end, if only one end is right whatever the file holds)"""
    script, *words = f"{command} {COMMANDS[command] if words is None else words} {more}".split()
    return script, tuple(words), expect


def put(path, content):
    """-> a function that puts `content` in the place of a file of the home: text, bytes, FOLDER, NOTHING, a
    path (that file of the home) or a function of the bytes there. {first}: the first training clip.
    """

    def spoil(folder):
        name = path
        if "{first}" in path:
            name = path.replace("{first}", (folder / "datasets/Demo/train.txt").read_text().split()[0])
        (target,) = sorted(folder.glob(name))[:1] or [folder / name]
        new = content
        if callable(content):
            new = content(target.read_bytes())
        elif isinstance(content, PurePath):
            new = (folder / content).read_bytes()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # it may be a hard link
        if new is FOLDER:
            target.mkdir()
        elif new is not NOTHING:
            target.write_bytes(new if isinstance(new, bytes) else new.encode())

    return spoil


def damaged(kind, path, readers, contents, mentions=None):
    """A case for each reader of a file and each of contents {name: content or (content, how it must end)}."""
    for script, words, expect in readers:
        for name, content in contents.items():
            content, wanted = content if isinstance(content, tuple) else (content, expect)
            named = (path if mentions is None else mentions) if wanted == 2 else ""
            yield Case(kind, f"{path}, {name}", script, words, put(path, content), wanted, named)


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def saved(state, **options):
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


def nested(depth):
    tree = {}
    for _ in range(depth):
        tree = {"a": tree}
    return tree


def flip(data, bits, seed):
    data, rng = np.frombuffer(data, np.uint8).copy(), np.random.default_rng(seed)
    at = rng.integers(0, len(data), bits)
    np.bitwise_xor.at(data, at, (1 << rng.integers(0, 8, bits)).astype(np.uint8))
    return data.tobytes()


ANY = {
    "empty": b"",
    "binary": bytes(range(256)) * 20,
    "a zip of nothing": b"PK\x05\x06" + bytes(18),
    "nested deep": b"[" * 99_999,
    "a megabyte": b"a" * 2**20,
    "latin-1": b"a caf\xe9",
    "UTF-16": "walk\n".encode("utf-16"),
    "only a BOM": b"\xef\xbb\xbf",
    "a canary": pickle.dumps({"ae": Canary()}),
    "a folder": FOLDER,
}
OWN = {}

# ---- text ----

OWN["prompts"] = {
    "line ends": ("walk\r\njump#8\rrun\x0cjump\x1cturn\u2028bow", 0),
    "BOM": ("\ufeffwalk#8", 0),
    "NUL": ("wa\0lk", 0),
    "a line of a megabyte": (LONG, 0),
    "nothing": (NOTHING, 2),
    "cut UTF-8": (b"walk \xe4\xbd", 2),
    "length 0": ("walk#0", 2),
    "length 10^9": ("walk#1000000000", 2),
    "emoji, right to left, combining": ("👩‍🦽 \u202ewalk\u0301\u0301", 0),
}
OWN["texts"] = {
    "CRLF": b"walks#walk/VERB#0.0#0.0\r\n",
    "BOM": b"\xef\xbb\xbfwalks#walk/VERB#0.0#0.0",
    "NUL": b"wa\0lks#walk/VERB#0.0#0.0",
    "too many #": b"a#b#c#d#e#f",
    "tokens without /": b"walks#walk#0.0#0.0",
    "times are text": b"walks#walk/VERB#begin#end",
    "begin is inf": b"walks#walk/VERB#inf#inf",
    "end before begin": b"walks#walk/VERB#3#2",
    "nan": b"walks#walk/VERB#nan#nan",
    "a caption of a megabyte": (LONG + "#walk/VERB#0.0#0.0").encode(),
    "10^4 captions": b"walks#walk/VERB#0.0#0.0\n" * 10_000,
    "blank caption": b" #walk/VERB#0.0#0.0",
}
OWN["splits"] = {
    "nothing": (NOTHING, 2),
    "duplicates": lambda ids: ids * 3,
    "missing ids": lambda ids: ids + b"\nnobody\nnothing\n",
    "only missing ids": (b"nobody\nnothing\n", 2),
    "CRLF": lambda ids: ids.replace(b"\n", b"\r\n"),
    "BOM": lambda ids: b"\xef\xbb\xbf" + ids,
    "NUL in an id": lambda ids: ids + b"\nbad\0id\n",
    "an id of a megabyte": lambda ids: ids + b"\n" + b"x" * 2**20,
    "ids with paths": lambda ids: ids + b"\n../../../etc/passwd\n/etc/passwd\n.\n..\n",
}

# ---- arrays ----


def header(shape, descr="<f4", body=b""):
    """An .npy whose header says what its body does not hold."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


ROWS = np.random.default_rng(0).normal(size=(48, 67)).astype(np.float32) * 0.1
JOINTS = np.random.default_rng(1).normal(size=(48, 22, 3)).astype(np.float32)
OWN["arrays"] = {
    "cut in the data": lambda b: b[: len(b) // 2],
    "objects": npy(np.array([Canary(), {}], dtype=object), allow_pickle=True),
    "text": npy(np.array(["walk", "jump"])),
    "complex": npy(ROWS.astype(complex)),
    "big-endian": npy(ROWS.astype(">f8")),
    "float64 beyond float32": npy(ROWS.astype(np.float64) * 1e300),
    "NaN": npy(np.full_like(ROWS, np.nan)),
    "infinite": npy(np.where(ROWS > 0.2, np.inf, ROWS)),
    "zero": npy(np.zeros_like(ROWS)),
    "a number": npy(np.float32(3)),
    "no frames": npy(ROWS[:0]),
    "one frame": npy(ROWS[:1]),
    "too few columns": npy(ROWS[:, :66]),
    "10^6 frames": npy(np.zeros((10**6, 67), np.float16)),
    "Fortran order": npy(np.asfortranarray(ROWS)),
    "header of 10^13 frames": header((10**13, 67)),
    "header of negative frames": header((-4, 67), body=bytes(999)),
    "header is nested deep": header("(" * 3000),
    "header is code": header(f"__import__('os').mkdir({str(PLACE)!r})"),
    "a row": npy(ROWS[0]),
    "a negative row": npy(-np.ones(67)),
    "a huge row": npy(np.full(67, 1e38)),
}
OWN["sources"] = OWN["arrays"] | {
    "joints, 4 frames": npy(JOINTS[:4]),
    "joints, 21": npy(JOINTS[:, :21]),
    "joints, zero": npy(JOINTS * 0),
    "joints, NaN": npy(JOINTS * np.nan),
    "joints, 10^6 frames": npy(np.zeros((10**6, 22, 3), np.float16)),
}

# ---- spec.json, captions, labels, joint maps, BVH, event files ----

SPEC = {"name": "Demo", "source": "", "licence": "", "version": 1}
SPEC |= {"fps": 20.0, "min_frames": 24, "cfg": 2.5, "skeleton": SMPL22.name}
ODD = (None, "text", -1, 0, 10**400, [], True, float("nan"))


def odd_fields():
    for field in ("fps", "min_frames", "skeleton", "cfg"):
        yield f"no {field}", json.dumps({key: value for key, value in SPEC.items() if key != field})
        for value in ODD:
            yield f"{field} {str(value)[:12]}", json.dumps(SPEC | {field: value})


OWN["spec"] = dict(odd_fields()) | {
    "half": json.dumps(SPEC)[:40],
    "BOM": "\ufeff" + json.dumps(SPEC),
}
OWN["captions"] = {
    "a number": "7",
    "null": "null",
    "no captions": '{"name": "x"}',
    "blank caption": '{"name": "x", "captions": [" "]}',
}
OWN["labels"] = {
    "a short row": "name,split,content,style\nx\n",
    "NUL": "name,caption,split,content,style\n\0,\0,\0,\0,\0\n",
    "a field of 10^6": "name,caption,split,content,style\n" + "x" * 10**6 + ",train,a,b,c\n",
}
OWN["maps"] = {
    "unknown": '{"tail": "Hips"}',
}
OWN["BVH"] = {
    "half": lambda b: b[: len(b) // 2],
    "a byte short of the motion": lambda b: b[:-9],
    "NaN": lambda b: b.replace(b"0.", b"nan ", 40),
    "CRLF": lambda b: b.replace(b"\n", b"\r\n"),
    "BOM": lambda b: b"\xef\xbb\xbf" + b,
    "no frames": lambda b: b.replace(b"Frames: 40", b"Frames: 0"),
    "10^12 frames": lambda b: b.replace(b"Frames: 40", b"Frames: 1000000000000"),
    "values of 1e300": lambda b: b.replace(b"0.", b"1e300 "),
}
OWN["events"] = {f"cut at {i}/10": lambda b, i=i: b[: len(b) * i // 10] for i in range(10)}
OWN["events"] |= {f"{n} bits flipped": lambda b, n=n: flip(b, n, n) for n in (1, 2, 4, 8, 16, 32)}
OWN["events"] |= {"twice": lambda b: b + b, "a huge record": lambda b: b"\xff" * 8 + b}


def packed_with(key, value):
    def rewrite(data):
        with np.load(io.BytesIO(data)) as packed:
            arrays = dict(packed) | {key: value}
        file = io.BytesIO()
        np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
        return file.getvalue()

    return rewrite


ODD_ARRAYS = {
    "left out": None,
    "NaN": np.full(4, np.nan),
    "text": np.array("walk"),
    "a canary": np.array([Canary()], dtype=object),
    "infinite": np.array(np.inf),
    "zero": np.array(0.0),
    "negative": np.array(-5),
    "2-d": np.zeros((2, 2)),
    "empty": np.zeros(0),
}
OWN["packed"] = {
    f"{key}, {name}": packed_with(key, value)
    for key in ("joints", "offsets", "names", "joint_names", "unit_m", "fps")
    for name, value in ODD_ARRAYS.items()
}

# ---- checkpoints ----

OLD = {"_use_new_zipfile_serialization": False}
KEYS = "ae ema_mardm estimator movement_encoder contrast_model config mean std target_stats vocabulary format"


def changed(change, **options):
    """-> a function of a checkpoint's bytes: `change` alters its dict, or returns another."""

    def rewrite(data):
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return saved(change(state) or state, **options)

    return rewrite


def flip_pickle(data, seed):
    """A bit of data.pkl, where it does the most."""
    begin = data.index(b"data.pkl") + len(b"data.pkl")
    end = data.index(b"PK\x03\x04", begin)
    return data[:begin] + flip(data[begin:end], 1, seed) + data[end:]


def scalar_of_a_canary():
    """What NumPy's own unpickling would be handed: a scalar of objects."""
    head = b"\x80\x02}X\x02\x00\x00\x00epcnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n"
    head += b"X\x02\x00\x00\x00O8K\x00K\x01\x87R"
    return head + pickle.dumps(Canary(), protocol=2)[2:-1] + b"tRs."


CODE = {
    "code in a zip": saved({"ae": Canary()}),
    "code deep inside": saved({"config": {"a": [1, {"b": Canary()}]}, "ae": {}}),
    "code in the old form": saved({"ae": Canary()}, **OLD),
    "code in protocol 0": pickle.dumps({"ae": Canary()}, protocol=0),
    "code in protocol 5": pickle.dumps({"ema_mardm": Canary()}, protocol=5),
    "eval by name": b'cbuiltins\neval\n(S\'__import__("os").mkdir("canary")\'\ntR.',
    "a NumPy scalar of a canary": scalar_of_a_canary(),
}
OWN["checkpoints"] = CODE | {
    "a list": saved([1, 2, 3]),
    "a tensor": saved(torch.zeros(4)),
    "an empty dict": saved({}),
    "another project's weights": saved({"state_dict": {"layer.weight": torch.zeros(3, 3)}, "epoch": 3}),
    "keys that are numbers": saved({1: 2, None: 3}),
    "keys with wrong values": saved(dict.fromkeys(KEYS.split(), 7)),
    "keys with nothing": saved(dict.fromkeys(KEYS.split())),
    "dicts nested deep": saved(nested(200)),
    "a byte short": lambda b: b[:-1],
}
OWN["checkpoints"] |= {f"cut at {i}/10": lambda b, i=i: b[: len(b) * i // 10] for i in range(1, 10)}
OWN["checkpoints"] |= {
    f"the old form cut at {i}/4": lambda b, i=i: (lambda o: o[: len(o) * i // 4])(changed(dict, **OLD)(b))
    for i in range(1, 4)
}
BENT = {f"{n} bits flipped": lambda b, n=n: flip(b, n, n) for n in (1, 8, 64, 1000, 30_000)}
BENT |= {f"a bit of its pickle ({s})": lambda b, s=s: flip_pickle(b, s) for s in range(8)}
BENT |= {
    f"the old form, a bit ({s})": lambda b, s=s: (lambda o: flip(o[:2000], 1, s) + o[2000:])(
        changed(dict, **OLD)(b)
    )
    for s in range(4)
}
SOUND = {
    "the old form": (changed(dict, **OLD), 0),
    "NumPy scalars": (changed(lambda s: s | {"best": {"fid": np.float32(0.5), "n": np.bool_(True)}}), 0),
    "NumPy scalars in the old form": (changed(lambda s: s | {"best": {"fid": np.float64(0.5)}}, **OLD), 0),
}
VALUES = {
    "NaN": float("nan"),
    "huge": 10**12,
    "negative": -3,
    "text": "text",
    "None": None,
    "list": [1],
    "0": 0,
}
TENSORS = {
    "NaN": lambda x: x * torch.nan,
    "infinite": lambda x: x + torch.inf,
    "shorter": lambda x: x[:-1],
    "2-d": lambda x: x[None],
    "int": lambda x: x.int(),
    "complex": lambda x: x.to(torch.complex64),
    "a list": lambda x: x.tolist(),
    "text": lambda x: "text",
    "sparse": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
    "0-d": lambda x: x.sum(),
    "huge": lambda x: x.float() * 1e30 + 1e30,
    "zero": lambda x: x * 0,
}


def place_of(state, field):
    """Of "config.width": the dict that holds the field, and its key there."""
    *path, key = field.split(".")
    for step in path:
        state = state[step]
    return state, key


def values(*fields):
    """Sound checkpoints, of which one field, as "config.width", is something else, or missing."""

    def change(state, field, value):
        tree, key = place_of(state, field)
        tree.pop(key, None)
        if value is not NOTHING:
            tree[key] = value

    for field in fields:
        for name, value in (VALUES | {"missing": NOTHING}).items():
            yield f"{field} {name}", changed(lambda s, f=field, v=value: change(s, f, v))


def other_tensors(*fields):
    """The same for tensors; of a dict of weights its first floating one."""

    def change(state, field, alter):
        tree, key = place_of(state, field)
        if isinstance(tree[key], dict):
            tree = tree[key]
            key = next(k for k, x in tree.items() if x.ndim and x.is_floating_point())
        tree[key] = alter(tree[key])

    for field in fields:
        for name, alter in TENSORS.items():
            yield f"{field} {name}", changed(lambda s, f=field, a=alter: change(s, f, a))
    weights = fields[0]
    yield "a weight less", changed(lambda s: s[weights].popitem() and None)
    yield "a weight more", changed(lambda s: s[weights].update(extra=torch.zeros(2)))
    yield "weights with keys that are numbers", changed(lambda s: s[weights].update({3: torch.zeros(2)}))


SET = [f"dataset.{field}" for field in ("fps", "min_frames", "max_frames", "cfg", "skeleton", "name")]
OWN["autoencoders"] = dict(other_tensors("ae", "mean", "std")) | dict(
    values(*[f"config.{key}" for key in ["width", "fsq_levels", "dataset", "model", *SET]], "config", "ae")
)
OWN["generators"] = dict(other_tensors("ema_mardm", "target_stats.mean", "target_stats.std")) | dict(
    values(*[f"config.{key}" for key in ("text_dim", "ddpm_steps", "text_encoder", "ae_name", "model")])
)
OWN["evaluators"] = dict(values("vocabulary", "test"))
OWN["contrast"] = dict(values("vocabulary", "config.contrast_heads"))
OWN["continued"] = dict(values("ep", "total_it", "batch", "best", "seconds", "scheduler", "opt_ae"))

# ---- which command reads which file ----

RUNS, RELEASED = "checkpoints/Demo", "released/Demo"
AE, MARDM = f"{RUNS}/AE/model/latest.tar", f"{RUNS}/MARDM/model/latest.tar"
PROMPTS = COMMANDS["sample"].replace("--text_prompt walk", "--text_path {home}/p.txt")
DEMO = "--demo --checkpoints_dir {home}/released --device cpu --time_steps 1 --cfg 1 --motion_length 8 "
DEMO += f"{OUT} --text_prompt walk"
SAMPLED = reader("sample", DEMO)
EVALUATED = reader("evaluation_AE")
CONTINUE = f"{DATA} --name AE --model FSQ_AE_High --width 16 --batch_size 64 --max_iters 9 --is_continue"
CONTINUED = {
    AE: reader("train_AE", CONTINUE),
    MARDM: reader("train_MARDM", f"{DATA} --name MARDM {PAIR} --batch_size 64 --max_iters 9 --is_continue"),
}
CHECKPOINTS = {  # file -> (what it holds, the command that reads it)
    f"{RELEASED}/demo_AE/model/net_best_fid.tar": ("autoencoders", SAMPLED),
    f"{RELEASED}/demo_MARDM/model/net_best_fid.tar": ("generators", SAMPLED),
    AE: ("autoencoders", reader("evaluation_AE", more="--checkpoint latest")),
    MARDM: ("generators", reader("evaluation_MARDM", more="--checkpoint latest")),
    f"{RUNS}/length_estimator/model/finest.tar": (
        "lengths",
        reader("sample", COMMANDS["sample"].replace("--motion_length 8", "--motion_length 0")),
    ),
    f"{RUNS}/text_mot_match/model/finest.tar": ("evaluators", EVALUATED),
    f"{RUNS}/text_mot_match_clip/model/finest.tar": ("contrast", EVALUATED),
}
SET_FOLDER = "datasets/Demo"
CHECK = reader("prepare_dataset check")
TRAINED = reader("train_AE")
TRAINED_WELL = reader("train_AE", expect=0)
FILES = {  # file -> (kind of its contents, the commands that read it, what an error names, if not the file)
    "p.txt": ("prompts", [reader("sample", PROMPTS)], ""),
    f"{SET_FOLDER}/texts/{{first}}.txt": ("texts", [CHECK, reader("train_Evaluators", expect=0)], ""),
    f"{SET_FOLDER}/train.txt": ("splits", [CHECK, TRAINED], "train"),
    f"{SET_FOLDER}/new_joint_vecs/{{first}}.npy": ("arrays", [CHECK, TRAINED_WELL], ""),
    f"{SET_FOLDER}/Mean.npy": ("arrays", [TRAINED], None),
    f"{SET_FOLDER}/Std.npy": ("arrays", [TRAINED, CHECK], None),
    "source.npy": ("sources", [reader("edit")], None),
    f"{SET_FOLDER}/spec.json": ("spec", [TRAINED, reader("train_LengthEstimator")], None),
    "packed/motions.npz": ("packed", [reader("prepare_dataset joints")], ""),
    "packed/captions.jsonl": ("captions", [reader("prepare_dataset joints", expect=2)], "packed"),
    "packed/labels.csv": ("labels", [reader("prepare_dataset joints", expect=2)], ""),
    "bvh/captions.jsonl": ("captions", [reader("prepare_dataset bvh", expect=2)], "captions"),
    "bvh/captions.csv": (
        "labels",
        [reader("prepare_dataset bvh", more="--captions {home}/bvh/captions.csv", expect=2)],
        "",
    ),
    "map.json": (
        "maps",
        [reader(script, more="--joint_map {home}/map.json") for script in ("prepare_dataset bvh", "edit")],
        "",
    ),
    "source.bvh": ("BVH", [reader("edit", COMMANDS["edit"].replace("source.npy", "source.bvh"))], ""),
    "bvh/*.bvh": ("BVH", [reader("prepare_dataset bvh")], ""),
    f"{RUNS}/AE/model/events.*": ("events", [reader("plot_loss")], ""),
}
# word lists of published evaluators: a pickle
GLOVE = {name: content for name, content in CODE.items() if isinstance(content, bytes)}
GLOVE |= {"numbers": pickle.dumps({1: 2}), "rows beyond": pickle.dumps({"unk": 10**9})}
GLOVE |= {"dicts nested deep": pickle.dumps(nested(200)), "half": pickle.dumps({"unk": 0})[:9]}

# ---- flags that disagree with the files ----

OTHERS = """--ae_name Small --ae_model FSQ_AE_Small|--ae_name Small|--ae_model AE_Model|--ae_model VQ_AE_Model
--model FSQ-MARDM-SiT-S|--model FSQ-MARDM-DDPM-XS|--model MARDM-SiT-XS|--model VQ_MARDM-SiT-XS|--model no-such
--ae_model no-such|--text_encoder clip-vit-b32|--name AE|--ae_name MARDM|--dataset_name kit|--dataset_name t2m
--name ..|--name a/b|--checkpoints_dir {home}/source.npy|--text_path {home}|--text_path {home}/nowhere
--text_path /dev/zero/x|--stitch --text_path {home}/prompts.txt"""
FLAGS = {
    "sample": OTHERS,
    "edit": "--joint_map {home}",
    "prepare_dataset bvh": "--split 0 0 0|--captions {home}/bvh",
}


def cases():
    for path, (kind, readers, mentions) in FILES.items():
        yield from damaged(kind, path, readers, ANY | OWN[kind], mentions)
    for path, (kind, command) in CHECKPOINTS.items():
        script, words, _ = command
        yield Case(kind, f"{path} as it is", script, words, expect=0)
        others = {f"is {other}": (PurePath(other), None) for other in CHECKPOINTS if other != path}
        foreign = OWN["checkpoints"] | others | {"a folder": (FOLDER, None)}
        yield from damaged("checkpoints", path, [(script, words, 2)], ANY | foreign)
        yield from damaged(kind, path, [command], BENT | OWN.get(kind, {}) | SOUND)
    for path, (script, words, _) in CONTINUED.items():
        yield from damaged("continued", path, [(script, words, 2)], ANY | OWN["checkpoints"])
        yield from damaged("continued", path, [(script, words, None)], BENT | OWN["continued"])
    glove = reader("train_Evaluators", more="--glove_dir {home}/glove", expect=2)
    yield from damaged("GloVe", "glove/our_vab_idx.pkl", [glove], ANY | GLOVE, "glove")
    for command, lines in FLAGS.items():
        for flags in lines.replace("\n", "|").split("|"):
            script, words, _ = reader(command, more=flags)
            yield Case("flags", flags, script, words, expect=2)
