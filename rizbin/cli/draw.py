"""Commands that draw."""

from pathlib import Path
from typing import Annotated, Any, Literal

from rizbin.cli.parsing import parse
from rizbin.core.errors import RizbinError

INTERRUPTED, MISSING = 130, 1
"""Exit codes: Ctrl-C; an object that was not found."""


def generate(words: list[str]) -> int:
    """`rizbin generate PROMPT...`."""
    import tyro

    def draw(
        prompts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPTS...")],
        /,
        model: str,
        out: str = "drawn",
        count: int = 1,
        seed: int = 0,
        steps: int = 25,
        guidance: float = 7.5,
        scheduler: str = "own",
        negative: str = "",
        cure: Literal[
            "none", "attend-and-excite", "center-distance", "iou", "kl", "total-variation", "contrastive"
        ] = "none",
        object: tuple[str, ...] = (),
        verify: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        repair: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        judge: str = "detector-mini",
        height: int = 0,
        width: int = 0,
        film: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        device: str = "cpu",
        half: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        offload: Literal["none", "model", "layers"] = "none",
        quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    ) -> dict:
        """Draws pictures from words with a Stable Diffusion.

        Args:
            prompts: What to draw, each in quotes: "a zebra and a frog".
            model: A pipeline of diffusers by name on Hugging Face or by folder, or a run of `rizbin train diffusion`,
                which draws sixteen things at 64 pixels in a second.
            out: Folder for the pictures and drawn.json, which tells how each was made.
            count: Pictures of each prompt, with the seeds that follow.
            seed: Of the first noise; on the processor the same seed gives the same picture.
            steps: More are slower and finer; 25 is enough for most schedulers, 8 for dpm++ and unipc.
            guidance: How strictly it follows the words; 1 hardly, 7.5 usual, above 12 colors burn.
            scheduler: own (the model's), ddim, ddpm, pndm, lms, euler, euler-ancestral, heun, kdpm2, kdpm2-ancestral,
                dpm++, dpm++-karras, dpm++-single, deis, unipc, lcm.
            negative: What to stay away from.
            cure: Guidance of attention for objects that are forgotten, by its loss. A guided step costs about two.
            object: A word of the prompt that shall be in the picture, once for each. Empty: what the prompt names.
            verify: Look for each object with a detector and say what is there; exit code 1 when one is missing.
            repair: As verify, and draw again what is missing until all is there: by guidance, in a free place, from
                other seeds. The best picture is kept; repaired.json tells what was tried and what it cost.
            judge: The detector, as --model of `rizbin detect`.
            height: Pixels; 0: the model's own. Rounded to what it can divide, which is said.
            width: Pixels, as height.
            film: Also write how each picture came to be: a strip of what the network saw at each step, a GIF, and a
                page film.html with what each word looked at.
            device: cpu, cuda, cuda:1.
            half: Weights in 16 bits; for GPUs.
            offload: Keep only the network at work on the GPU (model), or only its layer (layers): less memory, slower.
            quiet: No progress bar.
        """
        return {**locals()}

    given = parse(draw, words, "generate", repeat=True)
    if given["verify"] or given["repair"]:
        return _repaired(given)
    return _drawn({**given, "start": "", "strength": 0.8, "grid": False})


def edit(words: list[str]) -> int:
    """`rizbin edit PICTURE PROMPT`."""
    import tyro

    def redraw(
        picture: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")],
        prompt: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")],
        /,
        model: str,
        strength: float = 0.6,
        grid: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        out: str = "drawn",
        count: int = 1,
        seed: int = 0,
        steps: int = 25,
        guidance: float = 7.5,
        scheduler: str = "own",
        negative: str = "",
        height: int = 0,
        width: int = 0,
        film: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        device: str = "cpu",
        half: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        offload: Literal["none", "model", "layers"] = "none",
        quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    ) -> dict:
        """Redraws a picture by words.

        Args:
            picture: A file.
            prompt: What it shall become.
            strength: How much is drawn anew: 0 keeps the picture, 1 ignores it; so many of the steps are made.
            grid: Also write grid.png: strengths across, guidances down.
            model: As for generate.
            out: Folder for the pictures and drawn.json.
            count: Pictures, with the seeds that follow.
            seed: Of the noise that is put over the picture.
            steps: Of a whole drawing; strength takes its share of them.
            guidance: How strictly it follows the words.
            scheduler: As for generate.
            negative: What to stay away from.
            height: Pixels; 0, with width 0: the picture's shape at the model's size.
            width: Pixels.
            film: Also write how the picture came to be, and what is left of it under noise at each strength.
            device: cpu, cuda, cuda:1.
            half: Weights in 16 bits; for GPUs.
            offload: As for generate.
            quiet: No progress bar.
        """
        return {**locals()}

    given = parse(redraw, words, "edit")
    return _drawn({**given, "cure": "none", "object": (), "prompts": (given["prompt"],), "start": given["picture"]})


def _drawn(given: dict[str, Any]) -> int:
    """Draws and says where."""
    if not given["prompts"]:
        raise RizbinError('Say what to draw: rizbin generate "a zebra and a frog" --model runs/diffusion.')
    from rizbin import api
    from rizbin.generate.diffusion.painter import Sampling

    names = ("steps", "guidance", "scheduler", "height", "width", "seed", "strength", "negative")
    out = Path(given["out"])
    try:
        made = api.generate(
            list(given["prompts"]),
            to=out,
            sampling=Sampling(**{name: given[name] for name in names}),
            cure=given["cure"],
            objects=list(given["object"]),
            **{name: given[name] for name in ("model", "count", "start", "film", "grid", "device", "half", "offload")},
            quiet=given["quiet"],
        )
    except KeyboardInterrupt:
        print(f"Interrupted; what was drawn is in {out}.")
        return INTERRUPTED
    for one in made:
        for sentence in one.painted.notes:
            print(f"note: {sentence}")
        print(f"{one.file}: {one.prompt} (seed {one.sampling.seed}, {one.painted.seconds:.1f} s)")
    return 0


def _repaired(given: dict[str, Any]) -> int:
    """Draws, verifies and, where asked, repairs; says what is there."""
    if not given["prompts"]:
        raise RizbinError('Say what to draw: rizbin generate "a zebra and a frog" --model runs/diffusion --repair.')
    if given["film"] or given["count"] != 1:
        raise RizbinError("--verify and --repair draw one picture of each prompt; leave --film and --count.")
    from dataclasses import replace

    from rizbin import api
    from rizbin.generate.diffusion.painter import Sampling
    from rizbin.generate.diffusion.repair import Ladder

    names = ("steps", "guidance", "scheduler", "height", "width", "seed", "negative")
    ladder = Ladder() if given["repair"] else Ladder(rungs=())
    if given["cure"] != "none":
        ladder = replace(ladder, cure=given["cure"])
    made = api.repair(
        list(given["prompts"]),
        to=given["out"],
        sampling=Sampling(**{name: given[name] for name in names}),
        ladder=ladder,
        objects=list(given["object"]),
        **{name: given[name] for name in ("model", "judge", "device", "quiet")},
    )
    for number, (prompt, one) in enumerate(zip(given["prompts"], made, strict=True)):
        for sentence in one.notes:
            print(f"note: {sentence}")
        said = ", ".join(f"{name} {presence.probability:.2f}" for name, presence in one.best.found.items())
        tried = f"{len(one.attempts)} drawn, {sum(attempt.seconds for attempt in one.attempts):.1f} s"
        print(f"{Path(given['out']) / f'{number:04d}.png'}: {prompt} ({said or 'nothing to look for'}; {tried})")
    return 0 if all(one.whole for one in made) else MISSING
