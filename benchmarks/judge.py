"""How well the judge "conse" names photographs: cut-outs of tuxpaint among all their names, beside a bundled CLIP.

    pip install 'rizbin[judges]'
    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb package
    python benchmarks/judge.py --stamps package/usr/share/tuxpaint/stamps [--model conse --model detailclip-mini]

Each photograph stands on white, as large as its square allows, and every model chooses among the names of all by the
greatest cosine; a name is one prompt, the name itself. The stamps are under the GPL: they are read where the package
lies, and none is shipped. How the photographs among them are chosen and named is benchmarks/photographs.py's.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from photographs import INSTALLED, prepare

from rizbin.data.image_io import read_rgba
from rizbin.workflows.load import load_encoder


def on_white(path: Path) -> np.ndarray:
    """The cut-out on a white square."""
    pixels = read_rgba(path, name=path.name)
    alpha = pixels[..., 3:].astype(np.float32) / 255
    shown = (pixels[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    side = max(shown.shape[:2])
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - shown.shape[0]) // 2, (side - shown.shape[1]) // 2
    square[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return square


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the judge on photographs.")
    parser.add_argument("--stamps", type=Path, default=INSTALLED)
    parser.add_argument("--model", action="append", default=[])
    given = parser.parse_args()
    if not given.stamps.is_dir():
        print(f"{given.stamps} is not there, so nothing is measured; the first lines of this script say how to get it.")
        return
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(given.stamps, Path(folder) / "cutouts")
        files = sorted((Path(folder) / "cutouts").glob("*.png"))
        images = [on_white(path) for path in files]
        labels = torch.tensor([prepared.names.index(path.with_suffix(".txt").read_text().strip()) for path in files])
    print(f"{len(images)} photographs, {len(prepared.names)} names; chance {100 / len(prepared.names):.1f} percent")
    print("| model | named rightly | among the first five |")
    print("|---|---:|---:|")
    for name in given.model or ["conse", "detailclip-mini"]:
        encoder = load_encoder(name)
        best = encoder.similarity(images, list(prepared.names)).topk(5, dim=1).indices.cpu()
        right = best == labels[:, None]
        first, five = right[:, 0].double().mean().item(), right.any(dim=1).double().mean().item()
        print(f"| {name} | {100 * first:.1f} | {100 * five:.1f} |", flush=True)


if __name__ == "__main__":
    main()
