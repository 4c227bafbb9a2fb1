"""The BVH importer against real files, exact positions, every channel order, and files that are not sound."""

import itertools
import random
import re
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from motion.bvh import read_bvh
from tests.bodies import packed_clips

ORDERS = ["".join(order) for order in itertools.permutations("XYZ")]
CHAIN = """HIERARCHY
ROOT Hips
{{
  OFFSET 0 90 0
  CHANNELS {root}
  JOINT Upper Leg
  {{
    OFFSET 10 0 0
    CHANNELS {joint}
    JOINT Foot
    {{
      OFFSET 0 -40 5
      CHANNELS {joint}
      End Site
      {{
        OFFSET 0 0 12
      }}
    }}
  }}
}}
MOTION
Frames: {frames}
Frame Time: {time}
{rows}
"""
XYZ = "Xposition Yposition Zposition"


def rotation(order):
    return " ".join(f"{axis}rotation" for axis in order)


def chain(values, order="ZXY", root=None, joint=None, time="0.0333333"):
    return CHAIN.format(
        root=root or f"6 {XYZ} {rotation(order)}",
        joint=joint or f"3 {rotation(order)}",
        frames=len(values),
        time=time,
        rows="\n".join(" ".join(f"{x:.10g}" for x in row) for row in values),
    )


@pytest.fixture
def write(tmp_path):
    def to_file(content):
        path = tmp_path / "motion.bvh"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


@pytest.fixture(scope="module")
def samples(data_dir):
    return data_dir / "bandai_namco" / "bvh_samples"


def test_real_files_have_the_expected_positions(samples):
    with np.load(samples / "expected_joints.npz") as expected:
        names = [name for name in expected if name.startswith("dataset") and not name.endswith("end_sites")]
        assert len(names) == 3
        for name in names:
            bvh = read_bvh(samples / f"{name}.bvh")
            turns, places = bvh.forward()
            ends = np.stack(
                [places[:, j] + turns[:, j] @ offset for j, offset in bvh.end_sites.items()], axis=1
            )
            assert bvh.fps == 30 and list(bvh.names) == list(expected["joint_names"])
            assert np.abs(bvh.forward()[1] - expected[name]).max() < 1e-9
            assert np.abs(ends - expected[f"{name}__end_sites"]).max() < 1e-9


def test_unseen_files_resampled_in_rotation_space_are_the_published_joints(samples):
    """The packed joints were made from these files by another program: 20 fps, metres, rounded to 0.2 mm."""
    names = (
        "Hips UpperLeg_L UpperLeg_R Spine LowerLeg_L LowerLeg_R Spine Foot_L Foot_R Chest Toes_L Toes_R Neck "
    )
    names += "Shoulder_L Shoulder_R Head UpperArm_L UpperArm_R LowerArm_L LowerArm_R Hand_L Hand_R"
    published = packed_clips(samples.parent, world=True)
    files = sorted(samples.glob("*.bvh"))
    assert len(files) == 12
    for path in files:
        bvh = read_bvh(path).resampled(20.0)
        places = bvh.forward()[1][:, [bvh.names.index(name) for name in names.split()]] / 100
        places[:, 6] = (places[:, 3] + places[:, 9]) / 2
        assert np.abs(places - published[path.stem]).max() < 2e-4


@pytest.mark.parametrize("order", ORDERS)
def test_every_rotation_order(write, order):
    angles = np.array([[10.0, 20, 30, -40, 50, 60, 70, -80, 15]])
    bvh = read_bvh(write(chain(np.hstack([[[1.0, 2, 3]], angles]), order)))
    hips, leg, foot = (Rotation.from_euler(order, a, degrees=True) for a in angles.reshape(3, 3))
    knee = np.array([1.0, 2, 3]) + hips.apply([10, 0, 0])
    ankle = knee + (hips * leg).apply([0, -40, 5])
    turns, places = bvh.forward()
    assert bvh.names == ("Hips", "Upper Leg", "Foot") and bvh.parents == (-1, 0, 1)
    assert np.allclose(places[0], [[1, 2, 3], knee, ankle])
    assert np.allclose(turns[0, 2], (hips * leg * foot).as_matrix())


def test_one_two_or_no_rotation_channels_and_mixed_order(write):
    root = "4 Yrotation Xposition Zrotation Yposition"
    bvh = read_bvh(
        write(
            chain([[90, 5, 90, 80, 45]] * 2, root=root, joint="0").replace(
                "CHANNELS 0", "CHANNELS 1 Xrotation", 1
            )
        )
    )
    turns, places = bvh.forward()
    assert np.allclose(places[0, 0], [5, 80, 0])  # Z has no channel, so OFFSET holds
    assert np.allclose(places[0, 1], [5, 90, 0])  # Rz then Ry on (10, 0, 0)
    assert np.allclose(bvh.rotations[0, 2], [0, 0, 0, 1])


@pytest.mark.parametrize("adds", [False, True])
def test_position_channels_replace_or_add(write, adds):
    """A few joints that travel far do not mislead: the majority decides for all."""
    offsets = np.array([[10.0, 0, 0], [0, -40, 5]]) * (not adds)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(9):
        moves = offsets + rng.normal(0, 0.1, (2, 3))
        rows.append([0, 90, 0, 0, 0, 0, *moves[0], 0, 0, 0, *moves[1], 0, 0, 0])
    text = chain(rows, joint=f"6 {XYZ} {rotation('ZXY')}")
    path = write(text)
    truth = np.array([[0.0, 90, 0], [10, 90, 0], [10, 50, 5]])
    assert np.abs(read_bvh(path).forward()[1] - truth).max() < 1
    for other, name in ((adds, "add"), (not adds, "replace")):
        error = np.abs(read_bvh(path, name).forward()[1] - truth).max()
        assert (error < 1) == other


@pytest.mark.parametrize(
    "time, fps",
    [("0.0333333", 30), ("0.0333", 30), ("0.00833333", 120), ("0.041667", 24), ("0.0163", 1 / 0.0163)]
    + [("0.0333667", 30000 / 1001), ("0.0166833", 60000 / 1001), ("0.0417083", 24000 / 1001)],
)
def test_frame_times_that_were_rounded(write, time, fps):
    assert read_bvh(write(chain([[0] * 12], time=time))).fps == pytest.approx(fps, rel=1e-9)


def test_resampling_keeps_bones_and_follows_a_steady_turn(write):
    """360 degrees a second, angles written modulo 360: at the new frames the turn is where it should be."""
    times = np.arange(60) / 120
    rows = [[0, 90, 0, 0, 0, (360 * t + 180) % 360 - 180, 0, 0, 0, 0, 0, 0] for t in times]
    bvh = read_bvh(write(chain(rows, time="0.0083333"))).resampled(50.0)
    assert len(bvh) == int(59 / 120 * 50) + 1
    places = bvh.forward()[1]
    expected = Rotation.from_euler("y", 360 * np.arange(len(bvh))[:, None] / 50, degrees=True).apply(
        [10, 0, 0]
    )
    assert np.abs(places[:, 1] - places[:, 0] - expected).max() < 1e-2
    assert np.allclose(np.linalg.norm(places[:, 2] - places[:, 1], axis=1), np.hypot(40, 5), atol=1e-9)


def test_the_frames_of_a_multiple_are_the_file_s_own(write):
    rng = np.random.default_rng(0)
    bvh = read_bvh(write(chain(np.cumsum(rng.normal(0, 3, (61, 12)), axis=0), time="0.01666667")))
    assert np.allclose(bvh.resampled(20.0).forward()[1], bvh.forward()[1][::3], atol=1e-8)
    assert np.array_equal(bvh.resampled(60.0).positions, bvh.positions)


def test_lines_that_wrap_tabs_and_a_byte_order_mark(write):
    text = chain([range(12), range(12, 24)])
    head, rows = text.split("Frame Time: 0.0333333\n")
    wrapped = "\ufeff" + head + "Frame Time:\t0.0333333 \r\n\r\n" + "\r\n".join(rows.split())
    plain = read_bvh(write(text))
    assert np.array_equal(read_bvh(write(wrapped)).rotations, plain.rotations)
    assert np.array_equal(
        read_bvh(write(text.lower().replace("hierarchy", "Hierarchy"))).rotations, plain.rotations
    )


def test_the_line_ends_of_old_macs(write):
    path = write(GOOD)
    expected = read_bvh(path)
    path.write_bytes(path.read_bytes().replace(b"\r", b"").replace(b"\n", b"\r"))
    np.testing.assert_array_equal(read_bvh(path).positions, expected.positions)


GOOD = chain([[float(x) for x in range(12)]] * 3)
HEADER = GOOD.split("MOTION")[0]
MALFORMED = {
    "empty": "",
    "text": "hello, I am no BVH file",
    "binary": bytes(range(256)) * 100,
    "fbx": b"Kaydara FBX Binary  \x00\x1a\x00",
    "no root": "HIERARCHY\nMOTION\nFrames: 1\nFrame Time: 0.1\n1",
    "no MOTION": GOOD.replace("MOTION", ""),
    "nothing after MOTION": HEADER + "MOTION\n",
    "no Frame Time": GOOD.replace("Frame Time: 0.0333333\n", ""),
    "zero frames": GOOD.replace("Frames: 3", "Frames: 0"),
    "a million frames": GOOD.replace("Frames: 3", "Frames: 1000000"),
    "one frame too many": GOOD.replace("Frames: 3", "Frames: 4"),
    "one frame too few": GOOD.replace("Frames: 3", "Frames: 2"),
    "frames in words": GOOD.replace("Frames: 3", "Frames: three"),
    "frame time zero": GOOD.replace("0.0333333", "0"),
    "frame time NaN": GOOD.replace("0.0333333", "nan"),
    "frame time in milliseconds": GOOD.replace("0.0333333", "8.333"),
    "frame time tiny": GOOD.replace("0.0333333", "1e-300"),
    "truncated in the numbers": GOOD[:-20],
    "truncated in the hierarchy": GOOD[: len(HEADER) // 2],
    "NaN": GOOD.replace(" 7 ", " nan ", 1),
    "overflow": GOOD.replace(" 7 ", " 1e999 ", 1),
    "text in the numbers": GOOD.replace(" 7 ", " seven ", 1),
    "no offset": GOOD.replace("OFFSET 10 0 0", ""),
    "short offset": GOOD.replace("OFFSET 10 0 0", "OFFSET 10 0"),
    "offset NaN": GOOD.replace("OFFSET 10 0 0", "OFFSET nan 0 0"),
    "unknown channel": GOOD.replace("Xrotation", "Wrotation", 1),
    "too few channels named": GOOD.replace("CHANNELS 3", "CHANNELS 4", 1),
    "a thousand channels": GOOD.replace("CHANNELS 3", "CHANNELS 1000", 1),
    "channels twice": GOOD.replace("OFFSET 10 0 0", "OFFSET 10 0 0 CHANNELS 1 Xrotation"),
    "no channel at all": GOOD.replace("6 " + XYZ + " " + rotation("ZXY"), "0").replace(
        "3 " + rotation("ZXY"), "0"
    ),
    "a brace too few": GOOD.replace("}\nMOTION", "MOTION"),
    "a brace too many": GOOD.replace("}\nMOTION", "}\n}\nMOTION"),
    "two roots": GOOD.replace("MOTION", HEADER.replace("HIERARCHY", "") + "MOTION"),
    "joint in an end site": GOOD.replace("OFFSET 0 0 12", "JOINT x { OFFSET 0 0 0 }"),
    "ten megabytes of braces": "HIERARCHY\nROOT a\n" + "{" * 10 * 2**20,
    "a line of ten megabytes": GOOD + "1 " * 5 * 2**20,
    "nested too deep": "HIERARCHY\nROOT a {" + "JOINT a { OFFSET 0 0 0\n" * 20000 + "MOTION\n",
    "joints without channels": "HIERARCHY\nROOT a {\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n"
    + "JOINT b {\nOFFSET 0 1 0\n}\n" * 999
    + "}\nMOTION\nFrames: 4000\nFrame Time: 0.05\n"
    + "0\n" * 4000,
    "a very long name": GOOD.replace("Upper Leg", "x" * 10**6 + "\n" + "y" * 10**6),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_has_a_one_line_reason_soon_and_in_little_memory(write, name):
    path = write(MALFORMED[name])
    start = time.monotonic()
    with pytest.raises(ValueError) as caught:
        read_bvh(path)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert "\n" not in message and 10 < len(message) < 200
    tracemalloc.start()  # slows everything down, so not in the same breath
    with pytest.raises(ValueError):
        read_bvh(path)
    assert tracemalloc.get_traced_memory()[1] < 500 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "was, becomes, says",
    [
        ("0.0333333", "0,0333333", "line 23: '0,0333333' is no number: write decimal points"),
        ("OFFSET 10 0 0", "OFFSET 10,5 0,0 0,0", "'10,5 0,0 0,0': 3 finite numbers are due: write decimal p"),
        ("0.0333333", "0.05 sec", "'Frame Time: 0.05 sec' where a number alone is due"),
        ("Frames: 3", "Frames: 3 in all", "'Frames: 3 in all' where a number alone is due"),
        ("Frame Time:", "Frame Rate:", "where Frames: or Frame Time: is due"),
        ("MOTION", "", "no MOTION section: export it with its animation, or"),
    ],
)
def test_the_reason_says_what_to_write(write, was, becomes, says):
    with pytest.raises(ValueError, match=says):
        read_bvh(write(GOOD.replace(was, becomes, 1)))


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), edits=st.integers(1, 6))
def test_a_fuzzed_file_is_read_or_refused_but_never_crashes(tmp_path_factory, seed, edits):
    draw = random.Random(seed)
    content = bytearray(GOOD.encode())
    inserts = [
        b"{",
        b"}",
        b"\n",
        b"-",
        b"9" * 30,
        b"nan",
        b"JOINT",
        b"End Site",
        b"CHANNELS 2",
        b"\xff",
        b"\0",
    ]
    inserts += [b":", b"e9"]
    for _ in range(edits):
        at = draw.randrange(len(content))
        end = at + draw.choice((0, 0, 1, 3, 40))
        content[at:end] = draw.choice(inserts) if draw.random() < 0.7 else bytes(draw.sample(range(256), 4))
    path = tmp_path_factory.getbasetemp() / "fuzz.bvh"
    path.write_bytes(content)
    try:
        bvh = read_bvh(path)
    except ValueError as error:
        assert re.fullmatch(r"[^\n]{5,250}", str(error))
    else:
        assert np.isfinite(bvh.forward()[1]).all() or np.abs(bvh.offsets).max() > 1e20
