"""Do a set's captions cover a prompt? Similarity to the nearest caption, for known and other prompts.

    python -m experiments.known_prompts --dataset_name Demo

prints each prompt with its nearest training caption, and how many of either kind lie below the threshold of
utils/generation/known_captions.py. The prompts are for the demo set: known actions in other words, and things
that its figure never does.
"""

import torch

from utils.cli import Parser, name, run
from utils.data.clips import load_clips
from utils.datasets import find_dataset
from utils.evaluation_report import read_labels
from utils.generation.known_captions import FAR, KnownCaptions
from utils.text_embeddings import embed_prompts

KNOWN = """a person strolls ahead / somebody hops / a man waves hello with his right hand
a woman takes a seat / the person jogs forward / a figure bows down politely / he kicks using his left foot
raise both arms / she spins around to the left / a person walks ahead and then jumps / a guy walks backwards
someone turns right / a person stands up / a person jumps up high / the man walks in a circle"""
OTHER = """a person cooks spaghetti / someone plays the violin / a man swims butterfly / two people hug
a woman rides a horse / the quick brown fox jumps over the lazy dog / hello world / a person throws a ball
a person does a cartwheel / somebody plays golf / a dog barks at a cat / a man climbs a ladder
a person dances salsa / someone types on a keyboard / a person drives a car / quantum field theory
she paints a picture / a person crawls on hands and knees / a soldier salutes / a person does push-ups
a person opens a door / a man drinks a glass of water / someone sleeps on the floor / a person skates
a person shoots an arrow / a person plays tennis / a robot assembles a chair / a child rides a bicycle
a person washes the dishes / a person sweeps the floor"""


def prompts(text):
    return [prompt.strip() for line in text.splitlines() for prompt in line.split("/")]


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("--dataset_name", type=name, default="Demo", help="of the captions [%(default)s]")
    parser.add_argument("--dataset_dir", default="./datasets", help="where it lies [%(default)s]")
    args = parser.parse_args(argv)

    def encode(texts):
        return embed_prompts(texts, "minilm", torch.device("cpu"))

    spec, root = find_dataset(args.dataset_name, args.dataset_dir)
    clips = load_clips(spec, root, "train")
    known = KnownCaptions.of(clips, read_labels(root, clips), encode)
    for kind, asked in (("known", prompts(KNOWN)), ("other", prompts(OTHER))):
        nearest = known.nearest(encode(asked))
        for prompt, (caption, cosine) in sorted(zip(asked, nearest), key=lambda row: row[1][1]):
            print(f"{kind}  {cosine:.2f}  {prompt} | {caption}")
        below = sum(cosine < FAR["minilm"] for _, cosine in nearest)
        print(f"{kind}: {below} of {len(asked)} below {FAR['minilm']}\n")


if __name__ == "__main__":
    run(main)
