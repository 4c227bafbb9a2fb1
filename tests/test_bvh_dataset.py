"""BVH folders -> data sets: real files, rigs by name, words and their mirror image, splits, broken files."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_bvh import GOOD, MALFORMED

import prepare_dataset
from motion.bvh import read_bvh, rigs
from motion.skeletons import SMPL22, mirror_joints
from tests.bodies import packed_clips
from tests.conftest import ROOT
from utils.data import bandai_namco
from utils.data import caption_text as words
from utils.data.bvh_dataset import (
    Reading,
    assign_splits,
    clip_name,
    convert,
    described_files,
    drop_short,
    find_bvh,
)
from utils.data.caption_text import Described
from utils.data.clips import SPLITS, Skipped, load_clips
from utils.datasets import find_dataset
from utils.errors import BadInput, system_error
from utils.motion_process import joints_in_root_frame, joints_to_features, place


@pytest.fixture(scope="module")
def samples(data_dir):
    return data_dir / "bandai_namco" / "bvh_samples"


def prepare(tmp_path, folder, *flags):
    argv = ["bvh", "--input", str(folder), "--name", "Own", "--dataset_dir", str(tmp_path / "sets")]
    prepare_dataset.main([*argv, "--num_workers", "1", *flags])
    return find_dataset("Own", tmp_path / "sets")


def test_a_folder_of_real_files_becomes_a_set_with_twins(tmp_path, samples, data_dir, capsys):
    spec, root = prepare(tmp_path, samples, "--preset", "bandai_namco")
    sets = {split: {clip.name: clip for clip in load_clips(spec, root, split)} for split in SPLITS}
    clips = {name: clip for members in sets.values() for name, clip in members.items()}
    assert len(clips) == 34 and all(sets.values())
    for members in sets.values():
        originals = {name for name in members if name[0] != "M"}
        assert members.keys() == originals | {f"M{name}" for name in originals}
    text = capsys.readouterr().out
    assert "skipped 2, shorter than 24 feature rows" in text and "cut 4 clips" in text
    assert "do they lie" not in text
    assert [path.name for path in root.parent.iterdir()] == ["Own"]
    assert json.loads((root / "spec.json").read_text())["licence"] == "CC BY-NC 4.0"

    name = "dataset-2_walk-turn-left_exhausted_010"
    joints = packed_clips(data_dir / "bandai_namco")[name]  # the same clip, by another program
    assert np.abs(joints_to_features(joints, SMPL22, "one_sign")[:, :67] - clips[name].motion).max() < 2e-3
    twin = joints_to_features(mirror_joints(place(joints, SMPL22), SMPL22), SMPL22, "one_sign")
    assert np.abs(twin[:, :67] - clips[f"M{name}"].motion).max() < 2e-3
    said, mirrored = (clips[m + name].captions[0].text for m in ("", "M"))
    assert "turns left" in said and "turns right" in mirrored
    labels = (root / "labels.csv").read_text()
    assert f"\n{name},walk-turn-left,exhausted,\nM{name},walk-turn-right,exhausted,{name}\n" in labels


def test_bone_lengths_by_flag(tmp_path, samples):
    flags = "--preset bandai_namco --skeleton humanml3d --no_mirror"
    spec, root = prepare(tmp_path, samples, *flags.split())
    clips = [clip for split in SPLITS for clip in load_clips(spec, root, split)]
    assert len(clips) == 17
    for clip in clips:
        local = joints_in_root_frame(clip.motion, SMPL22)
        assert np.allclose(rigs.bone_lengths(local, SMPL22), rigs.HUMANML3D_BONES, atol=1e-4)


def test_other_bone_lengths_keep_directions_and_undo_themselves(samples):
    joints = rigs.to_joints22(read_bvh(samples / "dataset-2_run_youthful_020.bvh"))
    own = rigs.bone_lengths(joints, SMPL22)
    taller = rigs.with_bone_lengths(joints, own * 1.2, SMPL22)
    assert np.allclose(taller, joints * 1.2, atol=1e-3)
    assert np.abs(rigs.with_bone_lengths(taller, own, SMPL22) - joints).max() < 1e-3


def test_a_run_goes_on_where_it_stopped_and_notices_a_change(tmp_path, samples, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        shutil.copy(samples / "dataset-2_run_youthful_020.bvh", folder / f"{name}.bvh")
    files = {name: folder / f"{name}.bvh" for name in ("a", "b")}
    first = convert(files, Reading(), tmp_path / "work", 1, None)
    times = {name: file.stat().st_mtime_ns for name, file in first.items()}
    assert convert(files, Reading(), tmp_path / "work", 1, None) == first
    assert {name: file.stat().st_mtime_ns for name, file in first.items()} == times
    faster = convert(files, Reading(fps=30.0), tmp_path / "work", 1, None)
    assert set(faster.values()).isdisjoint(first.values())
    files["a"].write_text(files["a"].read_text() + "\n")
    again = convert(files, Reading(), tmp_path / "work", 1, None)
    assert again["a"] != first["a"] and again["b"] == first["b"]


def test_a_run_whose_files_another_has_tidied_away_says_so(tmp_path):
    with pytest.raises(BadInput, match="another run has finished the same set"):
        drop_short({"a": tmp_path / "gone.npy"}, 24, Skipped())
    prepare_dataset.remove(tmp_path / "gone")


def test_broken_files_are_counted_and_named_and_the_rest_is_used(tmp_path, samples, capsys):
    folder = tmp_path / "in" / "deep er"
    folder.mkdir(parents=True)
    rows = []
    for index, sample in enumerate(sorted(samples.glob("dataset-2_*.bvh"))[:4]):
        shutil.copy(sample, folder / f"good {index}.bvh")
        rows.append({"file": f"deep er/good {index}.bvh", "captions": ["a person moves the left arm"]})
    for index, content in enumerate(MALFORMED.values()):
        (folder / f"bad{index}.BVH").write_bytes(content if isinstance(content, bytes) else content.encode())
        rows.append({"name": f"deep er/bad{index}", "captions": ["a person does nothing"]})
    (folder / "rig.bvh").write_text(GOOD)
    rows += [{"name": "deep er/rig", "caption": "a chain"}, {"name": "absent", "caption": "who?"}]
    (folder / "unsaid.bvh").write_text(GOOD)
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec, root = prepare(tmp_path, tmp_path / "in", "--captions", str(tmp_path / "captions.jsonl"))
    names = [clip.name for split in SPLITS for clip in load_clips(spec, root, split)]
    assert sorted(names) == sorted(f"{m}deep_er_good_{i}" for i in range(4) for m in ("", "M"))
    text = capsys.readouterr().out
    assert "no captions: deep er/unsaid" in text and "captions, but no BVH file: absent" in text
    assert "unknown rig: pass --joint_map" in text and "truncated: 2 of 3 frames" in text
    assert "a person moves the right arm#a/DET" in (root / "texts/Mdeep_er_good_0.txt").read_text()


class Costly(Reading):
    def joints(self, path):
        if path.stem == "large":
            raise MemoryError
        if path.stem == "killed":
            os._exit(9)
        return np.zeros((30, 22, 3))


def test_a_file_too_large_for_the_memory_is_skipped_and_a_killed_process_has_a_remedy(tmp_path):
    files = {name: tmp_path / f"{name}.bvh" for name in ("large", "small", "killed")}
    for file in files.values():
        file.touch()
    killed, skipped = files.pop("killed"), Skipped()
    assert list(convert(files, Costly(), tmp_path / "work", 1, skipped)) == ["small"]
    assert [reason.split(":")[0] for reason in skipped.names] == ["out of memory"]
    with pytest.raises(BrokenProcessPool) as caught:
        convert(files | {"killed": killed}, Costly(), tmp_path / "work", 1, skipped)
    assert "pass fewer --num_workers" in system_error(caught.value)


WAITS = """
import multiprocessing, os, sys, time
from pathlib import Path
from utils.data.bvh_dataset import Reading, convert
multiprocessing.set_start_method("fork")
Reading.joints = lambda self, path: (print(os.getpid(), flush=True), time.sleep(600))
convert({"a": Path(sys.argv[1])}, Reading(), Path(sys.argv[1]).with_name("work"), 1, None)
"""


def test_the_processes_of_a_killed_run_end_with_it(tmp_path):
    (tmp_path / "a.bvh").touch()
    command = [sys.executable, "-c", WAITS, str(tmp_path / "a.bvh")]
    main = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    worker = int(main.stdout.readline())
    main.kill()
    try:
        main.communicate(timeout=30)  # until no process holds the pipe
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def both_sides(pattern, joints, sides=("Left", "Right")):
    return [pattern.format(side, joint) for side in sides for joint in joints.split()]


MAYA = "UpLeg Leg Foot ToeBase Shoulder Arm ForeArm Hand"
MIXAMO = ["Hips", "Spine", "Spine1", "Spine2", "Neck", "Head", *both_sides("{}{}", MAYA)]
UNREAL = both_sides("{1}_{0}", "thigh calf foot ball clavicle upperarm lowerarm hand", "lr")
RIG_NAMES = {
    "mixamo": [f"mixamorig:{name}" for name in MIXAMO],
    "cmu": ["Hips", "LHipJoint", "RHipJoint", "LowerBack", "Spine", "Spine1", "Neck", "Neck1", "Head"]
    + both_sides("{}{}", MAYA),
    "biped": ["Bip01", *(f"Bip01 {name}" for name in ("Pelvis", "Spine", "Spine1", "Neck", "Head"))]
    + both_sides("Bip01 {} {}", "Thigh Calf Foot Toe0 Clavicle UpperArm Forearm Hand", "LR"),
    "xsens": ["Hips", "Chest", "Chest2", "Chest3", "Chest4", "Neck", "Head"]
    + both_sides("{}{}", "Hip Knee Ankle Toe Collar Shoulder Elbow Wrist"),
    "rokoko": ["Hips", "Spine1", "Spine2", "Spine3", "Spine4", "Neck", "Head"]
    + both_sides("{}{}", "Thigh Shin Foot Toe Shoulder Arm ForeArm Hand"),
    "smpl": list(SMPL22.joints),
    "character creator": [  # the prefix holds an underscore
        *both_sides("CC_Base_{}{}", "Hip Pelvis Waist Spine01 Spine02 NeckTwist01 NeckTwist02 Head", [""]),
        *both_sides("CC_Base_{}_{}", "Thigh Calf Foot ToeBase Clavicle Upperarm Forearm Hand", "LR"),
    ],
    "noitom": [*MIXAMO, "Neck1"],
    "beat": [*MIXAMO, "Spine3", "Neck1"],
    "maya": [*MIXAMO, "Spine3", "Spine4"],
    "unreal 4": ["pelvis", "spine_01", "spine_02", "spine_03", "neck_01", "head", *UNREAL],
    "unreal 5": ["pelvis", *(f"spine_0{k}" for k in range(1, 6)), "neck_01", "neck_02", "head", *UNREAL],
}
SPINES = {  # of each rig; spine3 is the joint from which the collars come
    "mixamo": "Hips Spine Spine1 Spine2 Neck Head",
    "cmu": "Hips Hips+Spine Spine Spine1 Neck1 Head",
    "biped": "Pelvis Spine Spine+Spine1 Spine1 Neck Head",
    "xsens": "Hips Chest Chest2+Chest3 Chest4 Neck Head",
    "rokoko": "Hips Spine1 Spine2+Spine3 Spine4 Neck Head",
    "smpl": "pelvis spine1 spine2 spine3 neck head",
    "character creator": "Hip Waist Spine01 Spine02 NeckTwist01 Head",
    "noitom": "Hips Spine Spine1 Spine2 Neck Head",
    "beat": "Hips Spine Spine1+Spine2 Spine3 Neck Head",
    "maya": "Hips Spine Spine1+Spine2 Spine4 Neck Head",
    "unreal 4": "pelvis spine_01 spine_02 spine_03 neck_01 head",
    "unreal 5": "pelvis spine_01 spine_02+spine_03 spine_05 neck_01 head",
}


@pytest.mark.parametrize("rig", RIG_NAMES)
def test_rigs_are_recognised_by_name_left_stays_left(rig):
    names = RIG_NAMES[rig]
    sources = dict(zip(SMPL22.joints, rigs.map_joints(names)))
    for left, right in SMPL22.mirror:
        lefts = [names[i] for i in sources[SMPL22.joints[left]]]
        rights = [names[i] for i in sources[SMPL22.joints[right]]]
        swapped = (name.replace("Left", "Right").replace("left", "right") for name in lefts)
        swapped = [re.sub(r"([ _])L([ _])", r"\1R\2", name) for name in swapped]
        assert [re.sub("_l$", "_r", name) for name in swapped] == rights and lefts != rights
    spine = ["+".join(names[i] for i in sources[joint]) for joint in rigs.SPINE]
    assert re.sub("mixamorig:|Bip01 |CC_Base_", "", " ".join(spine)) == SPINES[rig]
    assert len({tuple(source) for source in sources.values()}) == 22  # no joint stands for two
    for joint, part in (("left_elbow", "arm|elbow"), ("left_knee", "leg|calf|knee|shin"), ("head", "head")):
        (source,) = sources[joint]
        assert any(word in names[source].lower() for word in part.split("|"))


def test_what_is_not_recognised_is_listed_and_a_map_helps():
    names = [name.replace("LeftForeArm", "Mystery") for name in RIG_NAMES["mixamo"]]
    with pytest.raises(ValueError, match="left_collar, left_shoulder, left_elbow, left_wrist;.*Mystery"):
        rigs.map_joints(names)
    part = {"left_collar": "LeftShoulder", "left_shoulder": ["LeftArm"], "left_elbow": "Mystery"}
    part["left_wrist"] = "LeftHand"
    sources = rigs.map_joints(names, joint_map=part)
    assert names[sources[SMPL22.joints.index("left_elbow")][0]] == "mixamorig:Mystery"
    for wrong, line in (
        ({"left_elbow": "Nobody"}, "'left_elbow': Nobody not found"),
        ({"tail": "Mystery"}, "'tail': not one of the 22 joints"),
        ({"left_elbow": []}, "'left_elbow': no joint of the file is named"),
        ({"left_elbow": "..."}, "'left_elbow': ... not found"),
    ):
        with pytest.raises(ValueError, match=f"joint map: {line}$"):
            rigs.map_joints(names, joint_map=wrong)


@pytest.mark.parametrize("words", ["腰 背骨 首 左ひじ", "Таз Грудь Шея Локоть", "골반 척추 목 팔꿈치"])
def test_a_map_may_name_joints_in_any_script(words):
    joints = ("pelvis", "spine2", "neck", "left_elbow")
    for prefix in ("", "Rig:"):  # a map leaves out the program's prefix
        names = [*(prefix + word for word in words.split()), *RIG_NAMES["mixamo"]]
        sources = dict(zip(SMPL22.joints, rigs.map_joints(names, joint_map=dict(zip(joints, words.split())))))
        assert [sources[joint] for joint in joints] == [[0], [1], [2], [3]]


def test_an_exact_name_in_a_map_wins_and_a_plain_one_must_be_the_only_one():
    names = [*RIG_NAMES["mixamo"], "hips", "Extra", "Extra"]
    for source, index in (("hips", names.index("hips")), ("mixamorig:Hips", 0)):
        assert rigs.map_joints(names, joint_map={"pelvis": source})[0] == [index]
    for source, theirs in (("HIPS", "mixamorig:Hips, hips"), ("Extra", "Extra, Extra")):
        with pytest.raises(ValueError, match=f"joint map: 'pelvis': {source} may be {theirs}: write one"):
            rigs.map_joints(names, joint_map={"pelvis": source})


def test_a_prefix_of_every_name_is_none_of_the_name():
    plain, names = rigs.map_joints(MIXAMO), [f"My_Skel_{name}" for name in MIXAMO]
    assert rigs.map_joints(names) == plain
    for source in ("Spine1", "my_skel_spine1", "My_Skel_Spine1"):
        assert rigs.map_joints(names, joint_map={"spine2": source}) == plain


def test_an_end_site_stands_in_for_a_toe_that_is_missing():
    names = [name for name in RIG_NAMES["mixamo"] if "Toe" not in name]
    feet = [names.index(f"mixamorig:{side}Foot") for side in ("Left", "Right")]
    sources = rigs.map_joints(names, feet)
    assert sources[SMPL22.joints.index("left_foot")] == [len(names)]
    assert sources[SMPL22.joints.index("right_foot")] == [len(names) + 1]


@pytest.mark.parametrize("unit", rigs.UNITS)
@pytest.mark.parametrize("size", [0.75, 1.0, 1.25])
def test_the_unit_is_told_from_the_height(real_walk, unit, size):
    assert rigs.guess_unit(real_walk[:5] * size / rigs.UNITS[unit]) == unit


def test_a_body_of_no_size_is_refused():
    with pytest.raises(ValueError, match="makes a person: pass --unit, e.g. --unit cm"):
        rigs.guess_unit(np.zeros((3, 22, 3)))


@pytest.mark.parametrize(
    "text, mirrored",
    [
        ("walks left, then Right", "walks right, then Left"),
        ("the LEFT foot; left-handed", "the RIGHT foot; right-handed"),
        ("turns counter-clockwise", "turns clockwise"),
        ("Counter clockwise, then ANTI-CLOCKWISE", "Clockwise, then CLOCKWISE"),
        ("spins clockwise", "spins counterclockwise"),
        ("spins clock wise and back", "spins counterclockwise and back"),
        ("Counter clock-wise, then anti-clock-wise", "Clockwise, then clockwise"),
        ("stands upright and leaves right away", "stands upright and leaves right away"),
        ("all right, raises his right hand", "all right, raises his left hand"),
        ("steps to the leftmost", "steps to the rightmost"),
        ("turns right after a jump", "turns left after a jump"),
        ("kicks with her right as she hops", "kicks with her left as she hops"),
        ("leans right as if to fall", "leans left as if to fall"),
        ("moves left then right before stepping back", "moves right then left before stepping back"),
        ("brings his right up to his head", "brings his left up to his head"),
        ("points to the right here, then right there", "points to the left here, then left there"),
        ("steps right away from the wall", "steps left away from the wall"),
        ("sits down right now", "sits down right now"),
        ("stops right before the left wall", "stops right before the right wall"),
        ("Right after landing he gets right back up", "Right after landing he gets right back up"),
        ("standing right in front of the right door", "standing right in front of the left door"),
    ],
)
def test_captions_of_the_mirror_image(text, mirrored):
    assert words.swap_sides(text) == mirrored


@given(
    st.lists(
        st.sampled_from(
            ["left", "right", "clockwise", "counterclockwise", "leg", "a", "Left", "RIGHT", ",", "."]
        ),
        max_size=12,
    )
)
def test_swapping_sides_twice_changes_nothing(parts):
    text = " ".join(parts)
    assert words.swap_sides(words.swap_sides(text)) == text


@pytest.mark.parametrize(
    "tokens, mirrored",
    [
        ("turn/VERB left/ADV right/ADV away/ADV", "turn/VERB right/ADV right/ADV away/ADV"),
        ("spin/VERB counter/NOUN clockwise/ADV left/ADJ", "spin/VERB clockwise/ADV right/ADJ"),
        ("spin/VERB anticlockwise/ADV", "spin/VERB clockwise/ADV"),
        ("spin/VERB clock/NOUN wise/ADJ", "spin/VERB counterclockwise/ADJ"),
        ("left-handed/ADJ counter-clockwise/ADV turn/NOUN", "right-handed/ADJ clockwise/ADV turn/NOUN"),
        ("stop/VERB right/ADV after/ADP the/DET right/ADJ", "stop/VERB right/ADV after/ADP the/DET left/ADJ"),
    ],
)
def test_tokens_are_mirrored_word_by_word(tokens, mirrored):
    assert " ".join(words.swap_token_sides(tokens.split())) == mirrored


def test_words_without_spacy_agree_with_careful_tokens_nearly_always(data_dir, monkeypatch):
    monkeypatch.setattr(words, "_spacy", lambda: None)
    assert words.tag("A man runs in circles, then sits DOWN quickly") == (
        *("a/DET", "man/NOUN", "run/VERB", "in/ADP", "circle/NOUN"),
        *("then/ADV", "sit/VERB", "down/ADP", "quickly/ADV"),
    )
    same = total = 0
    for line in (data_dir / "bandai_namco/captions.jsonl").read_text().splitlines()[::20]:
        row = json.loads(line)
        for caption, tokens in zip(row["captions"], row["tokens"]):
            ours = words.tag(caption)
            assert len(ours) == len(tokens)
            same += sum(a == b for a, b in zip(ours, tokens))
            total += len(tokens)
    assert same / total > 0.93


def test_caption_files_in_both_forms(tmp_path):
    rows = "file,caption,tokens,split,content\na/b.bvh,one walks,,train,walk\n"
    rows += "a/b.bvh,two # walk,two/NUM go/VERB,train,\n"
    (tmp_path / "c.csv").write_text(rows)
    row = {"name": "a/b", "captions": ["one walks", "two walk"], "split": "train", "content": "walk"}
    row["tokens"] = [["one/NUM", "walk/VERB"], ["two/NUM", "go/VERB"]]
    (tmp_path / "c.jsonl").write_text(f"\n{json.dumps(row)}\n")
    tables = [words.read_captions(tmp_path / name) for name in ("c.csv", "c.jsonl")]
    assert tables[0] == tables[1]
    assert tables[0]["a/b"].captions == ("one walks", "two walk")
    assert tables[0]["a/b"].tokens[0] == ("one/NUM", "walk/VERB")


@pytest.mark.parametrize("key, values", [("split", ["train", "test"]), ("content", ["walk", "run"])])
def test_lines_of_one_name_do_not_contradict_each_other(tmp_path, key, values):
    rows = [{"name": "a", "captions": ["walks"], key: value} for value in ["", *values]]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows[:2])))
    assert getattr(words.read_captions(tmp_path / "c.jsonl")["a"], key) == values[0]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BadInput, match=f"c.jsonl:3: a has {key} '{values[1]}' here, '{values[0]}' before"):
        words.read_captions(tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    "rows, message",
    [
        ("a,walks, then sits", "c.csv:2: more than 2 cells: put a text with a comma in double quotes"),
        ('a,"walks\nb,sits', "c.csv:3: .* with matching quotes"),
    ],
)
def test_a_table_whose_quotes_are_missing_loses_no_words(tmp_path, rows, message):
    (tmp_path / "c.csv").write_text(f"name,caption\n{rows}\n")
    with pytest.raises(BadInput, match=message):
        words.read_captions(tmp_path / "c.csv")
    (tmp_path / "c.csv").write_text('name,caption\na,"walks, then 5\'11"" sits",,\n')  # empty cells: harmless
    assert words.read_captions(tmp_path / "c.csv")["a"].captions == ("walks, then 5'11\" sits",)


def test_a_line_of_json_may_contain_other_line_separators(tmp_path):
    text = '{"name": "a", "captions": ["one\u2028two\x85three"]}\r\n\r\n{"name": "b", "captions": ["four"]}'
    (tmp_path / "c.jsonl").write_bytes(text.encode())
    described = words.read_captions(tmp_path / "c.jsonl")
    assert [one.captions for one in described.values()] == [("one two three",), ("four",)]


@pytest.mark.parametrize(
    "header, found",
    [
        ("name;caption", "no column name or file, but 'name;caption': write commas between the cells"),
        ("name\tcaption", "write commas between the cells"),
        ("name,text", "no column caption or captions, but 'name', 'text': name it in the first line"),
    ],
)
def test_a_table_with_other_columns_is_refused_with_those_it_has(tmp_path, header, found):
    (tmp_path / "c.csv").write_text(f"{header}\na;walks, then sits\n")
    with pytest.raises(BadInput, match=found):
        words.read_captions(tmp_path / "c.csv")


def read_one(tmp_path, **fields):
    (tmp_path / "c.jsonl").write_text(json.dumps({"name": "a", "captions": ["walks"]} | fields))
    return words.read_captions(tmp_path / "c.jsonl")["a"]


def test_a_line_of_humanml3d_s_texts_is_read_as_one(tmp_path):
    line = "a man  walks #1#a/DET man/NOUN walk/VERB#{}#{}"
    said = read_one(tmp_path, captions=[line.replace(" #1", "").format("0.0", "nan"), "sits #1"])
    assert said.captions == ("a man walks", "sits 1")
    assert said.tokens == (("a/DET", "man/NOUN", "walk/VERB"), ("sit/VERB", "1/NUM"))
    with pytest.raises(BadInput, match="c.jsonl:1: a caption of seconds 1 to 2.5: cut the motion there"):
        read_one(tmp_path, captions=[line.replace(" #1", "").format("1.0", "2.5")])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"tokens": 5}, "a list of words for each"),
        ({"tokens": ["walk/VERB"]}, "a list of words for each"),
        ({"tokens": [[5]]}, "a list of words for each"),
        ({"captions": ["walks \ud83d"]}, "half a character"),
        ({"content": "\ud83d"}, "half a character"),
    ],
)
def test_what_cannot_be_written_is_refused_with_its_line(tmp_path, fields, message):
    with pytest.raises(BadInput, match=f"c.jsonl:1: .*{message}"):
        read_one(tmp_path, **fields)


def test_accents_match_however_a_system_spells_them(tmp_path, samples):
    """A folder from a Mac, captions written elsewhere; what differs in nothing else is refused."""
    file = next(iter(sorted(samples.glob("*.bvh"))))
    captions = copies(tmp_path / "in", file, "cafe\u0301")
    captions.write_text('{"name": "caf\u00e9", "captions": ["a person walks"]}', encoding="utf-8")
    _, root = prepare(tmp_path, tmp_path / "in", "--captions", str(captions), "--split", "1", "0", "0")
    assert (root / "new_joint_vecs" / "caf\u00e9.npy").is_file()
    shutil.copy(file, tmp_path / "in" / "caf\u00e9.bvh")
    if len(list((tmp_path / "in").glob("*.bvh"))) == 2:  # where the two are two files
        with pytest.raises(BadInput, match="have one name"):
            find_bvh(tmp_path / "in")


def test_a_split_at_random_is_one_of_the_shares_and_the_seed():
    described = {f"n{i}": Described(("x",), ((),)) for i in range(200)}
    splits = assign_splits(described, described, (80, 5, 15), 1)
    counts = [list(splits.values()).count(split) for split in SPLITS]
    assert counts == [160, 10, 30]
    assert splits == assign_splits(described, list(described)[::-1], (80, 5, 15), 1)
    assert splits != assign_splits(described, described, (80, 5, 15), 2)
    few = assign_splits(described, ["n1", "n2", "n3"], (80, 5, 15), 1)
    assert sorted(few.values()) == ["test", "train", "val"]


def test_a_given_split_is_kept_or_refused_whole():
    described = {"a": Described(("x",), ((),), "test"), "b": Described(("x",), ((),), "train")}
    assert assign_splits(described, ["a", "b"], (1, 1, 1), 0) == {"a": "test", "b": "train"}
    with pytest.raises(BadInput, match="1 of 2"):
        assign_splits(described | {"b": Described(("x",), ((),))}, ["a", "b"], (1, 1, 1), 0)
    with pytest.raises(BadInput, match="dev"):
        assign_splits({"a": Described(("x",), ((),), "dev")}, ["a"], (1, 1, 1), 0)
    with pytest.raises(BadInput, match="no file the split train"):
        assign_splits({"a": Described(("x",), ((),), "val")}, ["a"], (1, 1, 1), 0)


@pytest.mark.parametrize(
    "split, flags, message",
    [
        ("", "--split 0 0 0", "--split 0 0 0: nothing is left for training"),
        ("", "--split 0 50 50", "--split 0 50 50: nothing is left for training"),
        ("trian", "", "split 'trian' in the captions is none of train, val, test"),
    ],
)
def test_a_wrong_split_is_refused_before_the_work(tmp_path, samples, monkeypatch, split, flags, message):
    monkeypatch.setattr("utils.data.bvh_dataset.convert", None)
    captions = copies(tmp_path / "in", samples / "dataset-2_run_youthful_020.bvh", "a", "b")
    captions.write_text(captions.read_text().replace("{", f'{{"split": "{split}", '))
    with pytest.raises(BadInput, match=message):
        prepare(tmp_path, tmp_path / "in", "--captions", str(captions), *flags.split())


def test_bodies_of_a_wrong_unit_become_no_set(tmp_path, samples, capsys):
    captions = copies(tmp_path / "in", samples / "dataset-2_run_youthful_020.bvh", "a", "b", "c")
    with pytest.raises(BadInput, match="no file can be used"):
        prepare(tmp_path, tmp_path / "in", "--captions", str(captions), "--unit", "mm")
    assert "measure about 0.4 m, a person's 4.4: pass another --unit, or none: a" in capsys.readouterr().out
    assert not (tmp_path / "sets/Own").exists()


def test_files_read_with_the_wrong_axis_up_are_said_to_lie(tmp_path, samples, capsys):
    captions = copies(tmp_path / "in", samples / "dataset-2_run_youthful_020.bvh", "a", "b", "c")
    prepare(tmp_path, tmp_path / "in", "--captions", str(captions), "--up", "z")
    assert "do they lie? BVH files with Z up need --up z, others no --up" in capsys.readouterr().out


def test_names_that_would_meet_are_refused(tmp_path):
    assert clip_name("walks/Fast one") == "walks_Fast_one"
    described = dict.fromkeys(["a/b", "a_b"], Described(("x",), ((),)))
    with pytest.raises(BadInput, match="a_b"):
        described_files({name: tmp_path for name in described}, described, None)


def copies(folder, sample, *names):
    """One BVH file under several names, with a caption each; the caption file."""
    folder.mkdir()
    for name in names:
        shutil.copy(sample, folder / f"{name}.bvh")
    rows = [{"name": name, "captions": [f"a person waves the left hand, {name}"]} for name in names]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "captions.jsonl"


def test_no_clip_takes_the_name_of_a_twin(tmp_path, samples):
    """arch.bvh's twin would be called March, as March.bvh is."""
    folder, sample = tmp_path / "in", samples / "dataset-2_run_youthful_020.bvh"
    captions = copies(folder, sample, "arch", "March", "x")
    with pytest.raises(BadInput, match="March.bvh and the mirrored twin of arch.bvh would both be"):
        prepare(tmp_path, folder, "--captions", str(captions))
    _, root = prepare(tmp_path, folder, "--captions", str(captions), "--no_mirror")
    assert "left hand, March" in (root / "texts/March.txt").read_text()
    prepare_dataset.main(["check", "--dataset_name", "Own", "--dataset_dir", str(root.parent)])  # no twins


def test_no_part_of_a_long_clip_takes_another_clips_name(tmp_path, samples):
    long = next(
        path for path in samples.glob("*.bvh") if len(read_bvh(path).resampled(20).forward()[1]) > 201
    )
    captions = copies(tmp_path / "other", samples / "dataset-2_run_youthful_020.bvh", "a_p1", "b", "c")
    shutil.copy(long, tmp_path / "other/a.bvh")
    with open(captions, "a") as file:
        file.write('\n{"name": "a", "captions": ["a person dances"]}')
    with pytest.raises(BadInput, match="two clips would be called a_p1 "):
        prepare(tmp_path, tmp_path / "other", "--captions", str(captions))
    assert not (tmp_path / "sets/Own").exists()


def test_the_message_about_an_unknown_rig_begins_with_the_remedy(tmp_path, samples, capsys):
    captions = copies(tmp_path / "in", samples / "dataset-2_run_youthful_020.bvh", "a", "b", "c", "d")
    text = (tmp_path / "in/d.bvh").read_text()
    for joint in re.findall(r"JOINT (\S+)", text):
        text = text.replace(f"JOINT {joint}", f"JOINT a_rather_long_name_{joint[::-1]}")
    (tmp_path / "in/d.bvh").write_text(text)
    prepare(tmp_path, tmp_path / "in", "--captions", str(captions))
    assert "skipped 1, unknown rig: pass --joint_map map.json" in capsys.readouterr().out


def test_the_preset_splits_in_blocks_and_knows_the_relabelled():
    names = [f"data/dataset-2_walk-turn-left_masculine_{i:03}" for i in range(1, 41)] + ["data/readme"]
    described = bandai_namco.describe(names)
    assert len(described) == 40
    assert described[names[5]].content == "walk-turn-right" and "right" in described[names[5]].captions[0]
    splits = [described[name].split for name in names[:40] if described[name].content == "walk-turn-left"]
    assert splits == sorted(splits, key=["train", "val", "test"].index) and len(set(splits)) == 3
    assert len(set(described[names[0]].captions)) == 4


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--input nowhere --preset bandai_namco", "no folder"),
        ("--input empty --preset bandai_namco", "no .bvh"),
        ("--input other --preset bandai_namco", "no caption belongs"),
        ("--input other --captions none.jsonl", "--captions none.jsonl does not exist"),
        ("--input other --preset bandai_namco --joint_map none.json", "none.json does not exist"),
        ("--input other --preset bandai_namco --joint_map map.json", "map.json: tail is none of the 22"),
        (
            "--input other --preset bandai_namco --joint_map other/x.bvh",
            '--joint_map other/x.bvh:1 is no JSON of joints: {"pelvis": "Hips", ...} is due',
        ),
        ("--input other --preset bandai_namco --dataset_dir map.json", "--dataset_dir: map.json is no fol"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/x.bvh").write_text(GOOD)
    (tmp_path / "map.json").write_text('{"tail": "Tail"}')
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        prepare_dataset.main(["bvh", "--name", "Own", *flags.split()])
    assert "\n" not in str(caught.value) and not (tmp_path / "datasets").exists()
