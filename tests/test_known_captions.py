"""Released weights know what they were trained on, and say so."""

import pytest
import torch

import sample
from tests.conftest import ROOT
from tests.tiny import call
from utils.data.clips import Caption, Clip
from utils.errors import BadInput
from utils.flags import RELEASED
from utils.generation.known_captions import MOST, KnownCaptions
from utils.safe_load import State


def clips(n):
    return [Clip(str(k), None, (Caption(f"{k:05d}", ()),)) for k in range(n)]


def unit_rows(texts):
    return torch.eye(8)[[int(text) % 8 for text in texts]] * 3


def test_the_nearest_caption_is_the_one_at_the_smallest_angle():
    known = KnownCaptions.of(clips(6), None, unit_rows)
    asked = torch.stack([torch.tensor([0, 9.0, 1, 0, 0, 0, 0, 0]), torch.ones(8)])
    (first, cosine), (_, far) = known.nearest(asked)
    assert first == "00001" and cosine == pytest.approx(9 / 82**0.5)
    assert known.nearest(torch.stack([asked, asked], dim=1))[0] == (
        first,
        cosine,
    )  # with words
    (line,) = known.warnings(["walk", "golf"], asked, "minilm")
    assert far == pytest.approx(8**-0.5) and "'golf'" in line and "0.35" in line
    assert list(known.warnings(["walk", "golf"], asked, "clip-vit-b32")) == []


def test_at_most_a_megabyte_travels_and_comes_back():
    many = clips(10 * MOST + 3)
    known = KnownCaptions.of(many, [("walk", "slow")] * len(many), unit_rows)
    assert known.texts == [f"{k:05d}" for k in range(MOST)]
    again = KnownCaptions.from_state(State({"captions": known.as_dict()}, "file").part("captions"), 8)
    assert (again.texts, again.actions) == (known.texts, known.actions)
    torch.testing.assert_close(again.rows, known.rows)


@pytest.mark.parametrize(
    "change",
    [
        {"texts": ["1"]},
        {"texts": [1, 2]},
        {"rows": None},
        {"rows": torch.ones(2, 7)},
        {"rows": torch.full((2, 8), torch.nan)},
        {"actions": []},
        {"actions": {"a": 3}},
    ],
)
def test_a_damaged_list_is_refused(change):
    fields = KnownCaptions.of(clips(2), None, unit_rows).as_dict() | change
    with pytest.raises(BadInput, match="do not match"):
        KnownCaptions.from_state(State(fields, "file"), 8)


def test_released_weights_carry_their_captions_and_list_their_actions(pipeline, demo_weights, capsys):
    assert pipeline.captions.texts and pipeline.captions.actions
    text = pipeline.embed(pipeline.captions.texts[:1])
    assert list(pipeline.warnings(pipeline.captions.texts[:1], text)) == []
    capsys.readouterr()
    assert call(sample.main, ["--demo", "--checkpoints_dir", str(demo_weights), "--list_actions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(pipeline.captions.actions) <= {line.split()[0] for line in lines if line}
    assert sample.list_of_actions(pipeline).splitlines()[0] in lines


def test_of_many_labels_the_single_actions_are_listed():
    labels = [(f"jump+{k}" if k else "jump", "") for k in range(300)]
    assert KnownCaptions.of(clips(300), labels, unit_rows).actions == {"jump": "00000"}


@pytest.mark.parametrize("weights", RELEASED)
def test_the_weights_of_the_checkout_say_what_they_know(weights, capsys):
    place = ["--weights", weights, "--checkpoints_dir", str(ROOT / "checkpoints"), "--device", "cpu"]
    assert call(sample.main, [*place, "--list_actions"]) == 0
    assert sum("walk" in line for line in capsys.readouterr().out.splitlines()) > 1
