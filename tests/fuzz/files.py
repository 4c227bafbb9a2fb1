"""Hostile text files, split files, arrays, specs and event files."""

import io
import json
import pickle

import numpy as np
import torch

from motion.skeletons import SMPL22
from tests.fuzz.canary import PLACE, Canary
from tests.fuzz.contract import Case
from tests.fuzz.flags import BASES, PREPARE
from tests.fuzz.home import EDIT, GENERATOR

TRAIN_AE = BASES["train_AE"]
TRAIN_LENGTH = BASES["train_LengthEstimator"]
CHECK = f"check {PREPARE['check']}"
DATA = "datasets/Demo"
LONG = "a person walks " * 70_000  # a megabyte


def case(kind, name, script, words, spoil=None, expect=None, mentions=""):
    return Case(kind, f"{script}, {name}", script, tuple(words.split()), spoil, expect, mentions)


def writes(path, content):
    """-> a function that puts text or bytes in the place of a file of the home."""

    def spoil(folder):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # it may be a hard link
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def becomes_folder(path):
    def spoil(folder):
        (folder / path).unlink()
        (folder / path).mkdir()

    return spoil


def first_id(folder):
    return (folder / DATA / "train.txt").read_text().split()[0]


# ---- text ----

NO_TEXT = {
    "latin-1": b"a caf\xe9",
    "UTF-16": "walk\n".encode("utf-16"),
    "cut UTF-8": b"walk \xe4\xbd",
    "binary": bytes(range(256)) * 9,
}
PROMPTS = {
    "CRLF": ("walk\r\njump#8\r\n", 0),
    "old Mac ends": ("walk\rjump", 0),
    "BOM": ("\ufeffwalk#8", 0),
    "NUL": ("wa\0lk", 0),
    "only NUL": ("\0\0\0", 2),
    "a line of a megabyte": (LONG, 0),
    "500 equal lines": ("walk#4\n" * 500, 0),
    "form feeds": ("walk\x0cjump\x1cturn\u2028bow", 0),
    "empty": ("", 2),
    "blank": (" \n\t\r\n", 2),
    "no frames left": ("#", None),
    "length 0": ("walk#0", 2),
    "length 10^9": ("walk#1000000000", 2),
    "length -8": ("walk#-8", 2),
    "Arabic digits": ("walk#٤٠", None),
    "emoji, right to left, combining": ("👩‍🦽 \u202ewalk\u0301\u0301", 0),
}


def prompt_files():
    short = "--time_steps 1 --cfg 1 --motion_length 4"
    words = f"{GENERATOR} {short} --output_dir {{home}}/out --export npy --text_path {{home}}/p.txt"
    for name, (text, expect) in PROMPTS.items():
        yield case("prompt files", name, "sample", words, writes("p.txt", text), expect)
    for name, content in NO_TEXT.items():
        yield case("prompt files", name, "sample", words, writes("p.txt", content), 2, "p.txt")
    yield case(
        "prompt files", "stitched, one prompt", "sample", f"{words} --stitch", writes("p.txt", "walk"), 2
    )
    for name, path in {
        "a folder": "{home}",
        "nowhere": "{home}/nowhere",
        "a device of zeros": "/dev/zero/x",
    }.items():
        yield case("prompt files", name, "sample", f"{words} --text_path {path}", None, 2)


# ---- a data set's texts and splits ----

TEXTS = {
    "empty": b"",
    "blank lines": b"\n\n \n",
    "CRLF": b"walks#walk/VERB#0.0#0.0\r\n",
    "BOM": b"\xef\xbb\xbfwalks#walk/VERB#0.0#0.0",
    "NUL": b"wa\0lks#walk/VERB#0.0#0.0",
    "no #": b"a person walks",
    "too many #": b"a#b#c#d#e#f",
    "no tokens": b"walks##0.0#0.0",
    "tokens without /": b"walks#walk#0.0#0.0",
    "times are text": b"walks#walk/VERB#begin#end",
    "times are inf": b"walks#walk/VERB#0.0#inf",
    "begin is inf": b"walks#walk/VERB#inf#inf",
    "times are 1e300": b"walks#walk/VERB#0.0#1e300",
    "end before begin": b"walks#walk/VERB#3#2",
    "negative times": b"walks#walk/VERB#-5#-2",
    "section of 2 frames": b"walks#walk/VERB#0.1#0.2",
    "nan": b"walks#walk/VERB#nan#nan",
    "latin-1": b"a caf\xe9#a/DET#0.0#0.0",
    "UTF-16": "walks#walk/VERB#0.0#0.0".encode("utf-16"),
    "binary": bytes(range(256)) * 20,
    "a megabyte": (LONG + "#walk/VERB#0.0#0.0").encode(),
    "10^4 captions": b"walks#walk/VERB#0.0#0.0\n" * 10_000,
    "10^5 tokens": b"walks#" + b"walk/VERB " * 100_000 + b"#0.0#0.0",
    "blank caption": b" #walk/VERB#0.0#0.0",
}


def texts():
    """One clip's text is hostile: it is skipped, or used; the others stay."""
    for name, content in TEXTS.items():

        def spoil(folder, content=content):
            writes(f"{DATA}/texts/{first_id(folder)}.txt", content)(folder)

        yield case("texts", name, "prepare_dataset", CHECK, spoil)
        yield case(
            "texts", name, "train_Evaluators", BASES["train_Evaluators"] + " --which matching", spoil, 0
        )
        if name in ("BOM", "begin is inf", "blank caption", "10^5 tokens", "no tokens"):
            yield case("texts", name, "train_LengthEstimator", TRAIN_LENGTH, spoil, 0)


def splits():
    """train.txt and its like; every script that reads a data set reads them in the same way."""

    def every(change):
        def spoil(folder):
            path = f"{DATA}/train.txt"
            writes(path, change((folder / path).read_bytes()))(folder)

        return spoil

    hostile = {
        "empty": (lambda ids: b"", 2),
        "blank": (lambda ids: b"\n \n", 2),
        "duplicates": (lambda ids: ids * 3, 0),
        "missing ids": (lambda ids: ids + b"\nnobody\nnothing\n", 0),
        "only missing ids": (lambda ids: b"nobody\nnothing\n", 2),
        "CRLF": (lambda ids: ids.replace(b"\n", b"\r\n"), 0),
        "BOM": (lambda ids: b"\xef\xbb\xbf" + ids, 0),
        "NUL in an id": (lambda ids: ids + b"\nbad\0id\n", 0),
        "an id of a megabyte": (lambda ids: ids + b"\n" + b"x" * 2**20, 0),
        "ids with paths": (lambda ids: ids + b"\n../../../etc/passwd\n/etc/passwd\n", 0),
        "an id is a folder": (lambda ids: ids + b"\n.\n..\n", 0),
        "latin-1": (lambda ids: ids + b"caf\xe9", 2),
        "UTF-16": (lambda ids: ids.decode().encode("utf-16"), 2),
        "10^4 missing ids": (lambda ids: ids + b"\n" + b"\n".join(b"x%d" % i for i in range(10**4)), 0),
        "one id": (lambda ids: ids.split()[0], None),
    }
    scripts = {"train_AE": TRAIN_AE, "train_Evaluators": BASES["train_Evaluators"] + " --which matching"}
    for name, (change, expect) in hostile.items():
        for script, words in scripts.items():
            yield case(
                "split files", name, script, words, every(change), expect, "train.txt" if expect else ""
            )
        yield case("split files", name, "prepare_dataset", CHECK, every(change))
    for split in ("train", "val", "test"):
        path = f"{DATA}/{split}.txt"
        yield case("split files", f"{split}.txt is a folder", "train_AE", TRAIN_AE, becomes_folder(path))
        yield case(
            "split files",
            f"no {split}.txt",
            "train_AE",
            TRAIN_AE,
            lambda f, p=path: (f / p).unlink(),
            2,
            f"{split}.txt",
        )


# ---- arrays ----


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def header(shape, descr="<f4", body=b""):
    """An .npy whose header says what its body does not hold."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


def arrays(dim, frames=48):
    """Contents of an .npy that should hold [frames, dim] floats."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(frames, dim)).astype(np.float32) * 0.1
    whole = npy(rows)
    return {
        "empty": b"",
        "garbage": b"not an array at all",
        "cut in the header": whole[:40],
        "cut in the data": whole[: len(whole) // 2],
        "a byte short": whole[:-1],
        "bytes after the end": whole + b"more",
        "object array": npy(np.array([{}, []], dtype=object), allow_pickle=True),
        "object array with a canary": npy(np.array([Canary()], dtype=object), allow_pickle=True),
        "a pickle with a canary": pickle.dumps(Canary()),
        "text": npy(np.array(["walk", "jump"])),
        "complex": npy(rows.astype(complex)),
        "bool": npy(rows > 0),
        "int64": npy((rows * 10).astype(np.int64)),
        "float16": npy(rows.astype(np.float16)),
        "big-endian": npy(rows.astype(">f8")),
        "float64 beyond float32": npy(rows.astype(np.float64) * 1e300),
        "float32 at its end": npy(np.full((frames, dim), 3e38, np.float32)),
        "NaN": npy(np.full_like(rows, np.nan)),
        "infinite": npy(np.where(rows > 0.2, np.inf, rows).astype(np.float32)),
        "zeros": npy(np.zeros_like(rows)),
        "a structured type": npy(np.zeros(9, dtype=[("a", "f4"), ("b", "i4")])),
        "a number": npy(np.float32(3)),
        "1-d": npy(rows.ravel()),
        "3-d": npy(rows[None]),
        "no frames": npy(rows[:0]),
        "one frame": npy(rows[:1]),
        "no columns": npy(rows[:, :0]),
        "too few columns": npy(rows[:, : dim - 1]),
        "one column more": npy(np.pad(rows, ((0, 0), (0, 1)))),
        "10^6 frames": npy(np.zeros((10**6, dim), np.float16)),
        "Fortran order": npy(np.asfortranarray(rows)),
        "header of 10^13 frames": header((10**13, dim)),
        "header of 10^30 frames": header((10**30, dim)),
        "header of negative frames": header((-4, dim), body=bytes(4 * dim)),
        "header of an unknown type": header((4, dim), descr="zebra"),
        "header is nested deep": header("(" * 3000),
        "header is code": header(f"__import__('os').mkdir({str(PLACE)!r})"),
        "a zip": b"PK\x03\x04" + bytes(60),
        "an .npz": npz(rows),
    }


def npz(rows):
    file = io.BytesIO()
    np.savez(file, rows=rows)
    return file.getvalue()


def motions():
    """A hostile training clip is skipped, or used; hostile statistics are refused, or used."""
    for name, content in arrays(67).items():

        def spoil(folder, content=content):
            writes(f"{DATA}/new_joint_vecs/{first_id(folder)}.npy", content)(folder)

        yield case(".npy", f"motion, {name}", "train_AE", TRAIN_AE, spoil, 0)
        yield case(".npy", f"motion, {name}", "prepare_dataset", CHECK, spoil)
        yield case(".npy", f"source, {name}", "edit", EDIT, writes("source.npy", content))
    joints = np.random.default_rng(1).normal(size=(48, 22, 3)).astype(np.float32)
    shapes = {
        "joints": joints,
        "joints, no frames": joints[:0],
        "joints, 4 frames": joints[:4],
        "joints, 21": joints[:, :21],
        "joints, zeros": joints * 0,
        "joints, NaN": joints * np.nan,
        "joints, infinite": joints * np.inf,
        "joints, 2-d": joints[..., :2],
        "joints, float64 beyond float32": joints.astype(float) * 1e200,
        "joints, equal": np.ones_like(joints),
        "joints, 10^6 frames": np.zeros((10**6, 22, 3), np.float16),
    }
    for name, array in shapes.items():
        yield case(".npy", name, "edit", EDIT, writes("source.npy", npy(array)))
    yield case(".npy", "source is a folder", "edit", EDIT, becomes_folder("source.npy"), 2, "source.npy")
    row = np.ones(67, np.float32)
    for name, content in (
        arrays(67)
        | {
            "fits": npy(row),
            "wide": npy(np.ones(263)),
            "negative": npy(-row),
            "tiny": npy(row * 1e-44),
            "huge": npy(row * 1e38),
        }
    ).items():
        for file in ("Mean.npy", "Std.npy"):
            yield case(
                ".npy", f"{file}, {name}", "train_AE", TRAIN_AE, writes(f"{DATA}/{file}", content), None
            )
        yield case(".npy", f"Std.npy, {name}", "prepare_dataset", CHECK, writes(f"{DATA}/Std.npy", content))


# ---- spec.json, caption files, packed joints ----

WHOLE_SPEC = {
    "name": "Demo",
    "fps": 20.0,
    "min_frames": 24,
    "source": "",
    "licence": "",
    "cfg": 2.5,
    "skeleton": "smpl22",
    "version": 1,
}
ODD = (None, "", "text", -1, 0, 1e9, 10**400, [], {}, True, 1e308)  # and the three that JSON has no word for


def specs():
    whole = WHOLE_SPEC | {"skeleton": SMPL22.name}
    for field in ("fps", "min_frames", "skeleton", "cfg"):
        without = {key: value for key, value in whole.items() if key != field}
        yield spec_case(f"no {field}", json.dumps(without))
        for value in ODD:
            yield spec_case(f"{field} {str(value)[:12]}", json.dumps(whole | {field: value}))
        for word in ("NaN", "Infinity", "-Infinity"):
            yield spec_case(f"{field} {word}", json.dumps(whole | {field: "@"}).replace('"@"', word))
    hostile = {
        "empty": "",
        "a list": "[]",
        "a number": "7",
        "null": "null",
        "text": '"spec"',
        "half": json.dumps(whole)[:40],
        "nested deep": "[" * 100_000,
        "BOM": "\ufeff" + json.dumps(whole),
        "binary": b"\xff\xfe\0",
        "twice": json.dumps(whole) * 2,
        "10^6 fields": "{" + ",".join(f'"a{i}":{i}' for i in range(10**6)) + "}",
    }
    for name, content in hostile.items():
        yield spec_case(name, content)
    yield case(
        "spec.json", "a folder", "train_AE", TRAIN_AE, becomes_folder(f"{DATA}/spec.json"), 2, "spec.json"
    )


def spec_case(name, content):
    script = "train_LengthEstimator" if "min_frames" in name or "fps" in name else "train_AE"
    return case("spec.json", name, script, BASES[script], writes(f"{DATA}/spec.json", content))


def broken_npz(folder_file="packed/motions.npz", **changes):
    """motions.npz with some of its arrays replaced (None: left out)."""

    def spoil(folder):
        with np.load(folder / folder_file) as packed:
            arrays = dict(packed) | changes
        file = io.BytesIO()
        np.savez(file, **{key: value for key, value in arrays.items() if value is not None})
        writes(folder_file, file.getvalue())(folder)

    return spoil


def packed_joints():
    words = f"joints {PREPARE['joints']}"
    changes = {
        f"{key}, {name}": {key: value}
        for key in ("joints", "offsets", "names", "joint_names", "unit_m", "fps")
        for name, value in {
            "left out": None,
            "NaN": np.full(4, np.nan),
            "text": np.array("walk"),
            "a canary": np.array([Canary()], dtype=object),
            "infinite": np.array(np.inf),
            "zero": np.array(0.0),
            "negative": np.array(-5),
            "2-d": np.zeros((2, 2)),
            "empty": np.zeros(0),
        }.items()
    }
    for name, change in changes.items():
        yield case("packed joints", name, "prepare_dataset", words, broken_npz(**change))
    for file in ("motions.npz", "captions.jsonl", "labels.csv"):
        path = f"packed/{file}"
        for name, content in {
            "empty": b"",
            "garbage": b"\0\1\2" * 999,
            "PK": b"PK\x03\x04" + bytes(99),
            "BOM": b"\xef\xbb\xbf",
            "nested": b"[" * 99_999,
            "a megabyte": b"a" * 2**20,
        }.items():
            yield case(
                "packed joints",
                f"{file}, {name}",
                "prepare_dataset",
                words,
                writes(path, content),
                2,
                "packed",
            )
        yield case(
            "packed joints", f"{file} is a folder", "prepare_dataset", words, becomes_folder(path), 2, file
        )
    rows = {
        "a short row": "name,split,content,style\nx\n",
        "no header": "a,b\n",
        "NUL": "name,split,content,style\n\0,\0,\0,\0\n",
        "a field of 10^6": "name,split,content,style\n" + "x" * 10**6 + ",train,a,b\n",
        "an open quote": 'name,split,content,style\n"x',
    }
    for name, content in rows.items():
        yield case(
            "packed joints",
            f"labels.csv, {name}",
            "prepare_dataset",
            words,
            writes("packed/labels.csv", content),
            2,
        )
    for name, row in {
        "a number": "7",
        "null": "null",
        "wrong types": '{"name": 3, "captions": 4, "tokens": 5}',
        "tokens are numbers": '{"name": "x", "captions": ["a"], "tokens": [[1, 2]]}',
    }.items():
        yield case(
            "packed joints",
            f"captions.jsonl, {name}",
            "prepare_dataset",
            words,
            writes("packed/captions.jsonl", row),
            2,
        )


def bvh_inputs():
    words = f"bvh {PREPARE['bvh']} --num_workers 1"
    captions = {
        "empty": "",
        "a number": "7\n",
        "no captions": '{"name": "x"}',
        "numbers": '{"name": 3, "captions": [4]}',
        "nested": "[" * 99_999,
        "NUL": '{"name": "a\\u0000b", "captions": ["walk"]}',
        "tokens are numbers": '{"name": "x", "captions": ["a"], "tokens": 5}',
        "blank caption": '{"name": "x", "captions": [" "]}',
        "latin-1": b'{"name": "caf\xe9"}',
    }
    for name, content in captions.items():
        yield case(
            "captions",
            name,
            "prepare_dataset",
            words,
            writes("bvh/captions.jsonl", content),
            2,
            "captions" if name != "NUL" else "",
        )
    yield case(
        "captions", "a folder", "prepare_dataset", words, becomes_folder("bvh/captions.jsonl"), 2, "captions"
    )
    tables = {
        "empty": "",
        "NUL": "name,caption\n\0,\0\n",
        "a field of 10^6": "name,caption\nx," + "y" * 10**6,
        "short rows": "name,caption\nx\n",
    }
    for name, content in tables.items():
        given = words.replace("captions.jsonl", "captions.csv")
        yield case(
            "captions", f"csv, {name}", "prepare_dataset", given, writes("bvh/captions.csv", content), 2
        )
    maps = {
        "empty": "",
        "a list": "[]",
        "numbers": '{"pelvis": 3}',
        "unknown": '{"tail": "Hips"}',
        "nested": "[" * 99_999,
        "no such joint": '{"pelvis": "Nowhere"}',
        "binary": b"\xff\xfe",
    }
    for name, content in maps.items():
        for script, given in {"prepare_dataset": words, "edit": EDIT}.items():
            yield case(
                "joint map",
                name,
                script,
                f"{given} --joint_map {{home}}/map.json",
                writes("map.json", content),
            )
    yield case("joint map", "a folder", "edit", f"{EDIT} --joint_map {{home}}", None, 2)
    yield case(
        "captions", "shares of nothing", "prepare_dataset", f"{words} --split 0 0 0", None, 2, "--split"
    )


def bvh_sources():
    for name, change in {
        "empty": lambda b: b"",
        "half": lambda b: b[: len(b) // 2],
        "a byte short of the motion": lambda b: b[:-9],
        "binary": lambda b: bytes(range(256)) * 50,
        "NaN": lambda b: b.replace(b"0.", b"nan ", 40),
        "CRLF": lambda b: b.replace(b"\n", b"\r\n"),
        "BOM": lambda b: b"\xef\xbb\xbf" + b,
        "no frames": lambda b: b.replace(b"Frames: 40", b"Frames: 0"),
        "10^12 frames": lambda b: b.replace(b"Frames: 40", b"Frames: 1000000000000"),
        "values of 1e300": lambda b: b.replace(b"0.", b"1e300 "),
        "frame time 0": lambda b: b.replace(b"Frame Time: 0.05", b"Frame Time: 0.0"),
        "braces": lambda b: b"HIERARCHY ROOT a " + b"{" * 10**5,
    }.items():

        def spoil(folder, change=change):
            whole = sorted((folder / "bvh").glob("*.bvh"))[0].read_bytes()
            (folder / "source.bvh").write_bytes(change(whole))

        yield case("BVH", name, "edit", EDIT.replace("source.npy", "source.bvh"), spoil)


# ---- event files ----


def events():
    run = "checkpoints/Demo/AE/model"

    def change(rewrite):
        def spoil(folder):
            for file in (folder / run).glob("events.*"):
                writes(file, rewrite(file.read_bytes()))(folder)

        return spoil

    rng = np.random.default_rng(5)

    def flipped(data, share):
        data = np.frombuffer(data, np.uint8).copy()
        at = rng.integers(0, len(data), max(1, int(share * len(data))))
        data[at] ^= (1 << rng.integers(0, 8, len(at))).astype(np.uint8)
        return data.tobytes()

    hostile = {f"cut at {i}/20": lambda b, i=i: b[: len(b) * i // 20] for i in range(20)}
    hostile |= {f"bits flipped {i}": lambda b, i=i: flipped(b, 0.001 * i) for i in range(1, 9)}
    hostile |= {
        "garbage": lambda b: b"events" * 999,
        "zeros": lambda b: bytes(5000),
        "twice": lambda b: b + b,
        "a huge record": lambda b: b"\xff" * 8 + b,
    }
    for name, rewrite in hostile.items():
        yield case("event files", name, "plot_loss", BASES["plot_loss"], change(rewrite))
    base = BASES["plot_loss"]
    for words in (
        "--metric nothing",
        "--metric ../../x",
        "--names",
        "--names a b",
        "--output {home}",
        "--output x.exe",
        "--log_dir {home}/nowhere",
        "--log_dir {home}/packed",
        "--all --output_dir {home}/out",
    ):
        yield case("event files", words.replace("{home}", ""), "plot_loss", f"{base} {words}")


def caches():
    """What a data set's cache holds was written by whoever had the folder before."""
    hostile = {
        "empty": b"",
        "garbage": b"garbage" * 99,
        "a canary": pickle.dumps({"minilm": Canary()}),
        "a list": b"[]",
    }
    words = TRAIN_LENGTH
    for name, content in hostile.items():
        yield case(
            "caches",
            f"embeddings, {name}",
            "train_LengthEstimator",
            words,
            writes(f"{DATA}/cache/text_minilm.pt", content),
            0,
        )
        yield case(
            "caches",
            f"clips, {name}",
            "train_LengthEstimator",
            words,
            writes(f"{DATA}/cache/train.npy", content),
            0,
        )
    odd = {
        "captions are a dict": {"captions": {"a": 1}, "rows": torch.zeros(1, 384)},
        "rows are NaN": None,
        "rows are text": {"captions": ["a"], "rows": "x"},
    }
    for name, part in odd.items():
        yield case(
            "caches",
            f"embeddings, {name}",
            "train_LengthEstimator",
            words,
            lambda f, p=part: spoil_embeddings(f, p),
            0,
        )


def spoil_embeddings(folder, part):
    file = folder / DATA / "cache/text_minilm.pt"
    cache = torch.load(file, weights_only=True)
    if part is None:
        cache["minilm"]["rows"] *= torch.nan
    data = io.BytesIO()
    torch.save({"minilm": part or cache["minilm"]}, data)
    writes(file, data.getvalue())(folder)


def cases():
    for part in (
        prompt_files,
        texts,
        splits,
        motions,
        specs,
        packed_joints,
        bvh_inputs,
        bvh_sources,
        events,
        caches,
    ):
        yield from part()
