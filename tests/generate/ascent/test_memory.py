"""Memory at the size that the paper works at: a ViT-B/32, a canvas of 336, 32 copies."""

import subprocess
import sys

LIMIT = 3 * 2**20
"""Kilobytes: 3 GB."""
CLIMB = """
import resource

import open_clip
import torch

from dataclasses import replace

from rizbin.generate.ascent.ascend import PRESETS, ascend
from rizbin.generate.ascent.encoders import Network
from rizbin.generate.ascent.targets import Text

torch.manual_seed(0)
model = open_clip.create_model("ViT-B-32", pretrained=None)
tokenizer = open_clip.get_tokenizer("ViT-B-32")
encoder = Network(
    "ViT-B-32", model.visual, size=224, image=model.encode_image, text=lambda texts: model.encode_text(tokenizer(texts))
)
made = ascend([encoder], [[Text(text="a zebra")]], settings=replace(PRESETS["paper"](), steps=2))
assert made.pictures[0].shape == (336, 336, 3) and PRESETS["paper"]().copies == 32
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_papers_size_stays_within_three_gigabytes() -> None:
    done = subprocess.run([sys.executable, "-c", CLIMB], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < LIMIT
