"""Commands of the laboratory: what a model looks at, and why a method works."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from rizbin.cli.parsing import near, parse
from rizbin.core.errors import RizbinError


def visualize(words: list[str]) -> int:
    """`rizbin visualize WHAT MODEL IMAGES ...`."""
    from rizbin.visualization.pictures import DRAWINGS, does

    if not words or words[0] in ("-h", "--help"):
        print("usage: rizbin visualize WHAT MODEL IMAGES... [--to DIR] [--size PIXELS] [--limit COUNT] ...", end="\n\n")
        print(*(f"  {name:<16}{does(drawing)}" for name, drawing in DRAWINGS.items()), sep="\n")
        print("\nMODEL is a run, an exported folder, a model of the zoo, or a ViT of timm or Hugging Face by its name.")
        print("IMAGES are pictures, folders, or data as for train (scenes:single).")
        print("`rizbin visualize WHAT --help` lists what one of them can be told.")
        return 0
    what, rest = words[0], words[1:]
    if what not in DRAWINGS:
        raise RizbinError(f"There is nothing called {what!r} to draw; {near(what, list(DRAWINGS))}")
    from rizbin import api

    flags = parse(_flags(DRAWINGS[what]), rest, f"visualize {what}")
    if not flags.images:
        raise RizbinError(f"Say which pictures: rizbin visualize {what} {flags.model} FOLDER, or scenes:single.")
    names = {field.name for field in dataclasses.fields(DRAWINGS[what].Settings)}
    settings = DRAWINGS[what].Settings(**{name: getattr(flags, name) for name in names})
    around = {field.name: getattr(flags, field.name) for field in dataclasses.fields(Around)}
    page = api.visualize(what, flags.model, list(flags.images), settings=settings, **around)
    print(page)
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Around:
    """What every drawing is told besides its own settings."""

    to: str = ""
    """Folder for the pictures and their page. Empty: runs/visualize/WHAT-MODEL."""
    size: int = 0
    """Shorter side in pixels at which pictures are looked at; 0: the model's own."""
    limit: int = 0
    """Most pictures taken; 0: as many as the drawing shows."""
    masks: str = ""
    """Folder with the true masks of picture files, a PNG of each one's name: a flat color a thing, black elsewhere.
    Empty: only data that bring masks along are scored."""


def _flags(drawing: Any) -> type:
    """The flags of one drawing as a class for tyro."""
    from typing import Annotated

    import tyro

    from rizbin.core.settings import explained
    from rizbin.visualization.pictures import does

    text = explained(drawing.Settings) | explained(Around)
    positional = tyro.conf.Positional
    flags: list[Any] = [
        ("model", Annotated[str, positional, tyro.conf.arg(metavar="MODEL", help="Run, folder or name.")]),
        ("images", Annotated[tuple[str, ...], positional, tyro.conf.arg(metavar="IMAGES...", help="What to look at.")]),
    ]
    for group in (drawing.Settings, Around):
        flags += [
            (field.name, Annotated[field.type, tyro.conf.arg(help=text.get(field.name))], field)
            for field in dataclasses.fields(group)
        ]
    made = dataclasses.make_dataclass("Flags", flags, frozen=True, kw_only=True)
    made.__doc__ = does(drawing)
    return made


def study(words: list[str]) -> int:
    """`rizbin study NAME ...`."""

    from rizbin.studies import questions

    if not words or words[0] in ("-h", "--help"):
        print("usage: rizbin study NAME [--seeds 3] [--budget MINUTES] [--run DIR] ...", end="\n\n")
        print(*(f"  {name:<16}{questions.find(name).question}" for name in questions.names()), sep="\n")
        print("  grounding       How should a detector be asked, and how far is it to be believed?")
        print("  missing-objects Objects that are asked for and not drawn: what helps, and is it worth its time?")
        print("  ascent          Do pictures that climb one encoder's gradient show anything to another?")
        print("\nTrains every variant several times, then writes one page. The same command again goes on.")
        return 0
    name, rest = words[0], words[1:]
    others = {"grounding": _grounding, "missing-objects": _missing_objects, "ascent": _ascent}
    if name in others:
        return others[name](rest)
    if name not in questions.names():
        raise RizbinError(f"There is no study {name!r}; {near(name, [*questions.names(), *others])}")

    from rizbin.studies.study import study as answer

    print(answer(questions.find(name), **_asked(rest, f"study {name}", f"runs/study-{name}")))
    return 0


def compare(words: list[str]) -> int:
    """`rizbin compare METHOD METHOD ...`."""
    from rizbin import methods

    count = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    names, rest = words[:count], words[count:]
    if not names:
        if "--help" not in rest and "-h" not in rest:
            raise RizbinError("Name the methods first: rizbin compare simclr byol --seeds 3.")
        print("usage: rizbin compare METHOD METHOD ... [--preset nano] [--data D] [--seeds 3] [--budget MINUTES] ...")
        print(
            "\nTrains each with several seeds on equal data, backbone and pictures; one page shows them side by side."
        )
        print(f"methods: {', '.join(methods.names())}")
        return 0
    for name in names:
        if name not in methods.names():
            raise RizbinError(f"There is no method {name!r}; {near(name, list(methods.names()))}")
    from rizbin.studies.compare import comparison
    from rizbin.studies.study import study as answer

    given = _asked(rest, f"compare {' '.join(names)}", f"runs/compare-{'-'.join(names)}", compared=True)
    print(answer(comparison(names, preset=given.pop("preset"), data=given.pop("data")), **given))
    return 0


def _grounding(words: list[str]) -> int:
    """`rizbin study grounding`: asks one detector, trains nothing."""

    def ask(
        model: str = "detector-mini",
        data: str = "scenes:several",
        images: int = 200,
        seed: int = 0,
        to: str = "grounding.html",
    ) -> dict:
        """Asks a detector about pictures whose objects are known: thresholds, one by one or not, sizes, calibration.

        Args:
            model: As for detect; also a run.
            data: Pictures with objects, as for train; its test part.
            images: How many of them.
            seed: Which ones, of a finite source, and which absent names are asked for.
            to: The page.
        """
        return {**locals()}

    given = parse(ask, words, "study grounding")
    from rizbin import api

    print(api.study_grounding(**given))
    return 0


def _missing_objects(words: list[str]) -> int:
    """`rizbin study missing-objects`: one model draws the same prompts in every way; trains nothing."""
    from rizbin.generation.diffusion.cure import CURES, Cure
    from rizbin.generation.diffusion.repair import Ladder, Rung

    def ask(
        model: str = "diffusion-mini",
        judge: str = "detector-mini",
        second_judge: tuple[str, ...] = ("detailclip-mini", "clip-mini"),
        prompts: str = "world",
        objects: int = 2,
        data: str = "scenes:drawn,categories=16",
        cures: tuple[Cure, ...] = CURES[1:],
        scales: tuple[str, ...] = (),
        rungs: tuple[Rung, ...] = Ladder().rungs,
        others: int = Ladder().seeds,
        seeds: int = 200,
        runs: int = 3,
        seed: int = 0,
        steps: int = 15,
        guidance: float = 4.0,
        scheduler: str = "dpm++",
        threshold: float = 0.5,
        run: str = "runs/study-missing-objects",
        to: str = "",
        device: str = "cpu",
        quiet: bool = False,
    ) -> dict:
        """Draws prompts of several things plainly, with each cure, from other seeds and by the ladder, and compares.

        Args:
            model: As for generate; a model with a UNet.
            judge: A detector, which says what is there and steers the ladder.
            second_judge: Image-text encoders that are never asked while drawing and share a verdict; empty: none.
            prompts: world, geneval, tiam, colored (made of the names of --data), similar, attend-and-excite (its 276),
                or a file of prompts, one a line.
            objects: Things in a prompt that is made of names.
            data: Pictures whose things are known: their names, and scenes that tell how good judges are. Empty: none.
            cures: Which to compare.
            scales: CURE=NUMBER, of the updates of cures that need more than the papers' 20: choose them on another
                --seed. The ladder takes that of its cure.
            rungs: Of the ladder, in order.
            others: Other seeds that the ladder tries at most.
            seeds: Pairs of a prompt and a first noise in each run.
            runs: How many such groups.
            seed: Another one draws other prompts and noises.
            steps: Of every picture.
            guidance: Of every picture.
            scheduler: Of every picture.
            threshold: Probability from which a thing counts as there.
            run: Folder of the study; the same command goes on there.
            to: The page. Empty: study.html in that folder.
            device: cpu, cuda, cuda:1.
            quiet: No progress bar.
        """
        return {**locals()}

    given = parse(ask, words, "study missing-objects")
    from rizbin import api
    from rizbin.generation.diffusion.painter import Sampling
    from rizbin.studies.missing.ways import Plan

    scales = tuple((cure, number) for cure, number in map(_scale, given.pop("scales")))
    ladder = Ladder(
        rungs=given.pop("rungs"),
        seeds=given.pop("others"),
        threshold=given.pop("threshold"),
    )
    plan = Plan(
        runs=given.pop("runs"),
        seeds=given.pop("seeds"),
        seed=given.pop("seed"),
        cures=given.pop("cures"),
        sampling=Sampling(**{name: given.pop(name) for name in ("steps", "guidance", "scheduler")}),
        scales=scales,
        ladder=dataclasses.replace(ladder, scale=dict(scales).get(ladder.cure, ladder.scale)),
    )
    print(api.study_missing_objects(**given, plan=plan))
    return 0


def _scale(text: str) -> tuple[Any, float]:
    """A cure and the scale of its updates."""
    from rizbin.generation.diffusion.cure import CURES

    cure, _, number = text.partition("=")
    try:
        if cure in CURES[1:]:
            return cure, float(number)
    except ValueError:
        pass
    raise RizbinError(f"{text!r} is no scale of a cure; write one such as center-distance=60.")


def _ascent(words: list[str]) -> int:
    """`rizbin study ascent`: draws by one encoder, judges by others, trains nothing."""

    def climb(
        model: str = "tecoa-mini",
        judge: str = "clip-mini",
        detector: str = "detector-mini",
        rival: str = "detailclip-mini",
        rebuild: tuple[str, str] = ("detailclip-mini", "clip-mini"),
        autoencoder: str = "diffusion-mini",
        data: str = "scenes:easy,categories=0",
        prompts: int = 50,
        seeds: int = 3,
        few: int = 10,
        paper: int = 24,
        rebuilt: int = 8,
        run: str = "runs/study-ascent",
        to: str = "ascent.html",
    ) -> dict:
        """Draws by climbing an encoder and has the pictures judged by encoders and a detector that were in no loss.

        The same command again goes on.

        Args:
            model: The encoder that is climbed, as for ascend.
            judge: The encoder that judges; of another architecture and seed.
            detector: The detector that looks for the named things.
            rival: Another encoder, climbed in the same way; that one was taught on clean scenes alone.
            rebuild: Two encoders, asked what they keep of a picture by drawing it again from its embedding.
            autoencoder: A model that draws, whose autoencoder's latents are climbed beside the other forms.
            data: Captions and real pictures; its test part.
            prompts: How many are drawn by each form.
            seeds: Pictures of each prompt; one of the paper's settings, which are slow.
            few: Prompts of each variant of the ablation.
            paper: Prompts of the paper's settings.
            rebuilt: Pictures drawn again from their embedding.
            run: Folder of the pictures.
            to: The page.
        """
        return {**locals()}

    given = parse(climb, words, "study ascent")
    from rizbin import api

    print(api.study_ascent(**given))
    return 0


def _asked(words: list[str], command: str, folder: str, *, compared: bool = False) -> dict[str, Any]:
    """The flags that studies and comparisons share."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Study:
        """Answers a question by experiment. The same command again goes on."""

        seeds: int = 3
        """Runs of every variant."""
        budget: float = 0.0
        """Minutes for all of them together, from which one number of steps follows. 0: by --steps."""
        steps: int = 0
        """Of every variant; 0: what its preset says."""
        jobs: int = 0
        """Runs at the same time, each on its share of the cores; 0: one a core, at most 4."""
        precision: Literal["preset", "fp32", "bf16"] = "preset"
        """Of every variant. bf16 is faster where the processor multiplies it itself."""
        run: str = folder
        """Folder of the runs."""
        to: str = ""
        """The page. Empty: study.html in that folder."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Comparison(Study):
        """Compares methods by experiment. The same command again goes on."""

        preset: str = ""
        """Of all methods; empty: the first that they share."""
        data: str = ""
        """What to train on, as for train; empty: what the preset says."""

    given = dataclasses.asdict(parse(Comparison if compared else Study, words, command))
    to, run = given.pop("to"), given.pop("run")
    return {**given, "folder": Path(run), "to": Path(to) if to else None}
