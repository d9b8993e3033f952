"""What DetailCLIP gains over CLIP and A-CLIP on the embedded world, at equal pictures and at equal time, over seeds.

    python benchmarks/gain.py [--steps 900] [--minutes 4] [--seeds 3] [--methods clip aclip detailclip]

Every method has the same towers, views, batch, optimizer and data (its preset `small`). Each cell is a run folder:
stopped and started again, finished cells are kept. Measured on 1,000 test scenes of the easy preset, as
`rizbin evaluate` does.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from rizbin import api
from rizbin.recipes.presets import preset
from rizbin.recipes.training import train

NUMBERS = (
    "zero_shot/top1",
    "segmentation/zero_shot/miou",
    "segmentation/zero_shot/foreground",
    "segmentation/dense_head/miou",
    "segmentation/linear/miou",
    "sizes/small/named",
    "sizes/small/found",
    "sizes/medium/found",
)


def cell(folder: Path, method: str, seed: int, steps: int, minutes: float | None) -> dict[str, float]:
    """Trains and measures one cell, or reads what it gave before."""
    kept = folder / "numbers.json"
    if not kept.exists():
        training = replace(preset(method, "small"), seed=seed, steps=steps)
        train(training, folder, minutes=minutes)
        report = api.measure(folder, quiet=True)
        numbers = {name: report[name].value for name in NUMBERS if name in report}
        numbers["steps"] = float(json.loads((folder / "finished.json").read_text())["steps"])
        kept.write_text(json.dumps(numbers))
    return json.loads(kept.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=900, help="of each cell at equal pictures; 0 leaves them out")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each cell at equal time; 0 leaves them out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["clip", "aclip", "detailclip"])
    parser.add_argument("--folder", type=Path, default=Path("runs/gain"))
    options = parser.parse_args()
    for title, steps, minutes in (("steps", options.steps, None), ("minutes", 2000, options.minutes)):
        if not (steps if minutes is None else minutes):
            continue
        what, budget = ("pictures", steps) if minutes is None else ("time", minutes)
        print(f"\nEqual {what}: {budget:g} {title}\n")
        print("| measurement | " + " | ".join(options.methods) + " |\n|---|" + "---:|" * len(options.methods))
        cells = {
            method: [
                cell(options.folder / f"{title}-{method}-{seed}", method, seed, steps, minutes)
                for seed in range(options.seeds)
            ]
            for method in options.methods
        }
        for name in ("steps", *NUMBERS):
            row = []
            for method in options.methods:
                values = [numbers[name] for numbers in cells[method] if name in numbers]
                spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
                row.append(f"{mean(values):.1f}{spread}" if values else "-")
            print(f"| {name} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
