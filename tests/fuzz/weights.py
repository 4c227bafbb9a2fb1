"""Hostile checkpoints: truncated, flipped, foreign, of another model, with code inside."""

import io
import pickle
from pathlib import Path

import numpy as np
import torch

from tests.fuzz.canary import Canary
from tests.fuzz.contract import Case
from tests.fuzz.files import becomes_folder, writes
from tests.fuzz.flags import BASES
from tests.fuzz.home import CHEAP, EDIT, LOAD, RELEASED, SAMPLE

DEMO = f"{RELEASED} {CHEAP} --text_prompt walk"
AE, MARDM = "released/Demo/demo_AE/model/net_best_fid.tar", "released/Demo/demo_MARDM/model/net_best_fid.tar"
RUNS = "checkpoints/Demo"
ESTIMATED = SAMPLE.replace("--motion_length 8", "--motion_length 0")  # asks the length estimator
EVALUATED = BASES["evaluation_AE"]
# which command reads which file
READERS = {
    AE: ("sample", DEMO),
    MARDM: ("sample", DEMO),
    f"{RUNS}/AE/model/latest.tar": ("edit", EDIT),
    f"{RUNS}/MARDM/model/latest.tar": ("evaluation_MARDM", BASES["evaluation_MARDM"]),
    f"{RUNS}/length_estimator/model/finest.tar": ("sample", ESTIMATED),
    f"{RUNS}/text_mot_match/model/finest.tar": ("evaluation_AE", EVALUATED),
    f"{RUNS}/text_mot_match_clip/model/finest.tar": ("evaluation_AE", EVALUATED),
}
CONTINUE = {
    f"{RUNS}/AE/model/latest.tar": (
        "train_AE",
        f"{LOAD} --name AE --model FSQ_AE_High --width 16 --batch_size 64 --max_iters 3 --is_continue",
    ),
    f"{RUNS}/MARDM/model/latest.tar": (
        "train_MARDM",
        f"{LOAD} --name MARDM --ae_name AE --ae_model FSQ_AE_High --model FSQ-MARDM-SiT-XS --batch_size 64 "
        "--max_iters 3 --is_continue",
    ),
}


def case(kind, name, reader, spoil, expect=None, mentions=""):
    script, words = reader
    return Case(kind, f"{script}, {name}", script, tuple(words.split()), spoil, expect, mentions)


def short(path):
    return "/".join((Path(path).parts[-3], Path(path).name))


def rewrites(path, change):
    """-> a function that puts change(bytes) in the place of a file."""

    def spoil(folder):
        writes(path, change((folder / path).read_bytes()))(folder)

    return spoil


def changes(path, change, **options):
    """-> a function that loads a checkpoint, lets `change` alter its dict, and saves it."""

    def spoil(folder):
        state = torch.load(folder / path, map_location="cpu", weights_only=True)
        changed = change(state)
        file = io.BytesIO()
        torch.save(state if changed is None else changed, file, **options)
        writes(path, file.getvalue())(folder)

    return spoil


def both(first, second):
    def spoil(folder):
        first(folder)
        second(folder)

    return spoil


def truncated():
    """At every twentieth, each file of every kind; the whole of it, once."""
    for path, reader in READERS.items():
        for i in range(20):
            cut = rewrites(path, lambda b, i=i: b[: len(b) * i // 20])
            yield case("checkpoints, truncated", f"{short(path)} at {i}/20", reader, cut, 2, path)
        yield case(
            "checkpoints, truncated",
            f"{short(path)} a byte short",
            reader,
            rewrites(path, lambda b: b[:-1]),
            2,
            path,
        )
        yield case("checkpoints, whole", short(path), reader, None, 0)


def flip(data, bits, seed):
    data = np.frombuffer(data, np.uint8).copy()
    rng = np.random.default_rng(seed)
    at = rng.integers(0, len(data), bits)
    np.bitwise_xor.at(data, at, (1 << rng.integers(0, 8, bits)).astype(np.uint8))
    return data.tobytes()


def pickled_part(data):
    """The place of data.pkl in a checkpoint: where a flipped bit does the most."""
    begin = data.index(b"data.pkl") + len(b"data.pkl")
    return begin, data.index(b"PK\x03\x04", begin)


def flip_pickle(data, seed):
    begin, end = pickled_part(data)
    return data[:begin] + flip(data[begin:end], 1, seed) + data[end:]


def flipped():
    for path, reader in READERS.items():
        for seed in range(6):
            bits = (1, 1, 8, 64, 1000, 30_000)[seed]
            yield case(
                "checkpoints, bits flipped",
                f"{short(path)}, {bits} bits ({seed})",
                reader,
                rewrites(path, lambda b, n=bits, s=seed: flip(b, n, s)),
            )
        for seed in range(12):
            yield case(
                "checkpoints, bits flipped",
                f"{short(path)}, a bit of its pickle ({seed})",
                reader,
                rewrites(path, lambda b, s=seed: flip_pickle(b, s)),
            )
    for path, reader in CONTINUE.items():
        for seed in range(4):
            yield case(
                "checkpoints, bits flipped",
                f"{short(path)}, a bit of its pickle ({seed})",
                reader,
                rewrites(path, lambda b, s=100 + seed: flip_pickle(b, s)),
            )


def foreign():
    """Files that are something else."""
    weights = {"layer.weight": torch.zeros(3, 3)}
    contents = {
        "empty": b"",
        "text": b"these are weights\n" * 99,
        "zeros": bytes(10_000),
        "a zip of nothing": b"PK\x05\x06" + bytes(18),
        "a list": saved([1, 2, 3]),
        "a tensor": saved(torch.zeros(4)),
        "an empty dict": saved({}),
        "another project's weights": saved({"state_dict": weights, "epoch": 3}),
        "weights alone": saved(weights),
        "keys that are numbers": saved({1: 2, None: 3}),
        "keys with wrong values": saved(
            {
                key: 7
                for key in (
                    "ae",
                    "ema_mardm",
                    "estimator",
                    "movement_encoder",
                    "contrast_model",
                    "config",
                    "mean",
                    "std",
                    "target_stats",
                    "vocabulary",
                    "format",
                )
            }
        ),
        "keys with nothing": saved(
            {
                key: None
                for key in (
                    "ae",
                    "ema_mardm",
                    "estimator",
                    "movement_encoder",
                    "contrast_model",
                    "config",
                    "mean",
                    "std",
                    "target_stats",
                    "vocabulary",
                    "format",
                )
            }
        ),
        "nested deep": saved(nested(200)),
    }
    for path, reader in READERS.items():
        for name, content in contents.items():
            yield case(
                "checkpoints, foreign", f"{short(path)}, {name}", reader, writes(path, content), 2, path
            )
        for other in READERS:
            if other != path:
                yield case(
                    "checkpoints, foreign",
                    f"{short(path)} is {short(other)}",
                    reader,
                    lambda f, p=path, o=other: writes(p, (f / o).read_bytes())(f),
                )
        yield case("checkpoints, foreign", f"{short(path)} is a folder", reader, becomes_folder(path))
    for path, reader in CONTINUE.items():
        for name, content in contents.items():
            yield case(
                "checkpoints, foreign", f"{short(path)}, {name}", reader, writes(path, content), 2, path
            )


def nested(depth):
    tree = {}
    for _ in range(depth):
        tree = {"a": tree}
    return tree


def saved(state, **options):
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


def with_code():
    """The same canary in every kind of file that is a pickle inside, in every form that a pickle has."""
    forms = {
        "a zip": saved({"ae": Canary()}),
        "a zip, deep inside": saved({"config": {"a": [1, {"b": Canary()}]}, "ae": {}}),
        "the old form": saved({"ae": Canary()}, _use_new_zipfile_serialization=False),
        "a bare pickle": pickle.dumps(Canary()),
        "protocol 0": pickle.dumps({"ae": Canary()}, protocol=0),
        "protocol 5": pickle.dumps({"ema_mardm": Canary()}, protocol=5),
        "eval by name": b'cbuiltins\neval\n(S\'__import__("os").mkdir("canary")\'\ntR.',
        "a NumPy scalar of a canary": numpy_scalar_of_a_canary(),
    }
    for path, reader in (READERS | {f"resumed {key}": value for key, value in CONTINUE.items()}).items():
        for name, content in forms.items():
            file = path.removeprefix("resumed ")
            yield case(
                "checkpoints with code", f"{short(file)}, {name}", reader, writes(file, content), 2, file
            )
    glove = f"{BASES['train_Evaluators']} --which matching --glove_dir {{home}}/glove"
    for name, content in forms.items():

        def spoil(folder, content=content):
            rows = io.BytesIO()
            np.save(rows, np.zeros((3, 300), np.float32))
            writes("glove/our_vab_data.npy", rows.getvalue())(folder)
            writes("glove/our_vab_words.pkl", content)(folder)
            writes("glove/our_vab_idx.pkl", content)(folder)

        yield case(
            "checkpoints with code",
            f"GloVe, {name}",
            ("train_Evaluators", glove),
            spoil,
            2,
            "our_vab_idx.pkl",
        )


def numpy_scalar_of_a_canary():
    """What NumPy's own unpickling would be handed: a scalar of objects."""
    inner = pickle.dumps(Canary(), protocol=2)[2:-1]
    return (
        b"\x80\x02}X\x02\x00\x00\x00epcnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R"
        + inner
        + b"tRs."
    )


def altered():
    """A sound file, of which a part is not what it should be."""
    numbers = {
        "NaN": float("nan"),
        "huge": 10**12,
        "negative": -3,
        "text": "text",
        "None": None,
        "a list": [1],
        "0": 0,
    }
    for key in ("width", "fsq_levels", "dataset", "model", "codebook_size"):
        for name, value in numbers.items():
            yield altered_case(
                AE, f"config.{key} {name}", lambda s, k=key, v=value: s["config"].__setitem__(k, v)
            )
    for key in ("text_dim", "ddpm_steps", "text_encoder", "ae_name", "model"):
        for name, value in numbers.items():
            yield altered_case(
                MARDM, f"config.{key} {name}", lambda s, k=key, v=value: s["config"].__setitem__(k, v)
            )
    for field in ("fps", "min_frames", "max_frames", "cfg", "skeleton", "name", "text_encoder", "unknown"):
        for name, value in numbers.items():
            yield altered_case(
                AE,
                f"dataset.{field} {name}",
                lambda s, k=field, v=value: s["config"]["dataset"].__setitem__(k, v),
            )
    tensors = {
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
    for name, change in tensors.items():
        for key in ("mean", "std"):
            yield altered_case(AE, f"{key} {name}", lambda s, k=key, c=change: s.__setitem__(k, c(s[k])))
        yield altered_case(AE, f"a weight {name}", lambda s, c=change: change_first(s["ae"], c))
        yield altered_case(MARDM, f"a weight {name}", lambda s, c=change: change_first(s["ema_mardm"], c))
        for path, key in (
            (f"{RUNS}/AE/model/latest.tar", "ae"),
            (f"{RUNS}/MARDM/model/latest.tar", "ema_mardm"),
        ):
            yield altered_case(path, f"a weight {name}", lambda s, c=change, k=key: change_first(s[k], c))
        bent = changes(f"{RUNS}/AE/model/latest.tar", lambda s, c=change: change_first(s["ae"], c))
        yield case(
            "checkpoints, altered", f"AE/latest.tar, a weight {name}", ("evaluation_AE", EVALUATED), bent
        )
        for key in ("mean", "std"):
            yield altered_case(
                MARDM,
                f"target {key} {name}",
                lambda s, k=key, c=change: s["target_stats"].__setitem__(k, c(s["target_stats"][k])),
            )
    for path, part in ((AE, "ae"), (MARDM, "ema_mardm")):
        yield altered_case(path, "a weight less", lambda s, p=part: drop(s[p], next(iter(s[p]))))
        yield altered_case(path, "a weight more", lambda s, p=part: s[p].__setitem__("extra", torch.zeros(2)))
        yield altered_case(
            path, "weights with keys that are numbers", lambda s, p=part: s[p].__setitem__(3, torch.zeros(2))
        )
        yield altered_case(path, "without format: MARDM's", lambda s: drop(s, "format"))
        for key in ("mean", "std", "target_stats", "config", part):
            yield altered_case(path, f"no {key}", lambda s, k=key: drop(s, k))
    for name, value in numbers.items():
        for key in ("ep", "total_it", "batch", "best", "seconds", "scheduler", "opt_ae"):
            path = f"{RUNS}/AE/model/latest.tar"
            yield case(
                "checkpoints, altered",
                f"{key} {name}",
                CONTINUE[path],
                changes(path, lambda s, k=key, v=value: s.__setitem__(k, v)),
            )
    evaluator = f"{RUNS}/text_mot_match/model/finest.tar"
    contrast = f"{RUNS}/text_mot_match_clip/model/finest.tar"
    for name, value in numbers.items():
        yield altered_case(evaluator, f"vocabulary {name}", lambda s, v=value: s.__setitem__("vocabulary", v))
        yield altered_case(evaluator, f"test {name}", lambda s, v=value: s.__setitem__("test", v))
        yield altered_case(contrast, f"vocabulary {name}", lambda s, v=value: s.__setitem__("vocabulary", v))
        yield altered_case(
            contrast, f"heads {name}", lambda s, v=value: s["config"].__setitem__("contrast_heads", v)
        )


def altered_case(path, name, change):
    return case("checkpoints, altered", f"{short(path)}, {name}", READERS[path], changes(path, change))


def drop(state, key):
    """Without a value, which `changes` would take for a new dict."""
    state.pop(key, None)


def change_first(weights, change):
    key = next(key for key, x in weights.items() if x.ndim and x.dtype.is_floating_point)
    weights[key] = change(weights[key])


def of_others():
    """Weights of another model, of other levels; the old form; NumPy scalars."""
    small = f"{RUNS}/Small/model/latest.tar"
    ae, mardm = f"{RUNS}/AE/model/latest.tar", f"{RUNS}/MARDM/model/latest.tar"

    def swap(folder):
        writes(ae, (folder / small).read_bytes())(folder)

    yield case("checkpoints of others", "other levels", ("sample", SAMPLE), swap, 2, "FSQ_AE_Small")
    no_config = changes(small, lambda s: {key: x for key, x in s.items() if key != "config"})

    def swap_unnamed(folder):
        no_config(folder)
        swap(folder)

    yield case("checkpoints of others", "other levels, unnamed", ("sample", SAMPLE), swap_unnamed, 2)
    for flags in (
        "--ae_name Small --ae_model FSQ_AE_Small",
        "--ae_name Small",
        "--ae_model AE_Model",
        "--ae_model VQ_AE_Model",
        "--model FSQ-MARDM-SiT-S",
        "--model FSQ-MARDM-DDPM-XS",
        "--model MARDM-SiT-XS",
        "--model VQ_MARDM-SiT-XS",
        "--model no-such",
        "--ae_model no-such",
        "--text_encoder clip-vit-b32",
        "--name AE",
        "--ae_name MARDM",
        "--dataset_name kit",
        "--dataset_name t2m",
        "--name ..",
        "--name a/b",
        "--checkpoints_dir {home}/source.npy",
    ):
        yield case("checkpoints of others", flags, ("sample", f"{SAMPLE} {flags}"), None, 2)
    for path in (ae, mardm):
        reader = READERS[path]
        old = changes(path, lambda s: None, _use_new_zipfile_serialization=False)
        yield case("checkpoints of others", f"{short(path)}, the old form", reader, old, 0)
        scalars = changes(
            path,
            lambda s: s | {"best": {"fid": np.float64(0.5), "n": np.int64(3)}},
            _use_new_zipfile_serialization=False,
        )
        yield case(
            "checkpoints of others", f"{short(path)}, the old form with NumPy scalars", reader, scalars, 0
        )
        new = changes(path, lambda s: s | {"best": {"fid": np.float32(0.5), "n": np.bool_(True)}})
        yield case("checkpoints of others", f"{short(path)}, NumPy scalars", reader, new, 0)
        for i in range(20):
            cut = both(old, rewrites(path, lambda b, i=i: b[: len(b) * i // 20]))
            yield case(
                "checkpoints, truncated", f"{short(path)}, the old form at {i}/20", reader, cut, 2, path
            )
        for seed in range(8):
            bent = both(old, rewrites(path, lambda b, s=seed: flip(b[:2000], 1, s) + b[2000:]))
            yield case(
                "checkpoints, bits flipped",
                f"{short(path)}, the old form, a bit of its pickle ({seed})",
                reader,
                bent,
            )


def statistics():
    """The evaluator's own statistics, and word vectors that do not fit."""
    for name, content in {
        "empty": b"",
        "a list": pickle.dumps([1]),
        "numbers": pickle.dumps({1: 2}),
        "rows beyond": pickle.dumps({"unk": 10**9}),
        "nested": pickle.dumps(nested(200)),
        "half": pickle.dumps({"unk": 0})[:9],
    }.items():

        def spoil(folder, content=content):
            rows = io.BytesIO()
            np.save(rows, np.zeros((3, 300), np.float32))
            writes("glove/our_vab_data.npy", rows.getvalue())(folder)
            writes("glove/our_vab_idx.pkl", content)(folder)

        words = f"{BASES['train_Evaluators']} --which matching --glove_dir {{home}}/glove"
        yield case("GloVe", name, ("train_Evaluators", words), spoil, 2)


def cases():
    for part in (truncated, flipped, foreign, with_code, altered, of_others, statistics):
        yield from part()
