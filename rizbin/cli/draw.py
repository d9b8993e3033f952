"""Commands that draw."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from rizbin.cli.parsing import check_quotes, parse
from rizbin.core.errors import RizbinError

INTERRUPTED, MISSING = 130, 1
"""Exit codes: Ctrl-C; an object that was not found."""


def generate(words: list[str]) -> int:
    """`rizbin generate PROMPT...`."""
    import tyro

    from rizbin.cli.drawing_flags import Common, Switch
    from rizbin.generation.diffusion.cure import Cure

    def draw(
        prompts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPTS...")],
        /,
        flags: Common,
        cure: Cure = "none",
        cure_scale: float = 20.0,
        object: tuple[str, ...] = (),
        verify: Switch = False,
        repair: Switch = False,
        judge: str = "detector-mini",
    ) -> dict:
        """Draws pictures from words with a Stable Diffusion.

        Args:
            prompts: What to draw, each in quotes: "a zebra and a frog".
            flags: What both commands take.
            cure: Guidance of attention for objects that are forgotten, by its loss. A guided step costs about two.
            cure_scale: Of the guidance's updates; 20 for Stable Diffusion, more where nothing changes, less where
                pictures break.
            object: A word of the prompt that shall be in the picture, once for each. Empty: what the prompt names.
            verify: Look for each object with a detector and say what is there; exit code 1 when one is missing.
            repair: As verify, and draw again what is missing until all is there: by guidance, in a free place, from
                other seeds. The best picture is kept; repaired.json tells what was tried and what it cost. With --film
                it is filmed.
            judge: The detector, as --model of `rizbin detect`.
        """
        return {**locals()}

    given = parse(draw, words, "generate", repeat=True)
    given |= vars(given.pop("flags"))
    check_quotes(given["prompts"], "rizbin generate")
    if given["verify"] or given["repair"]:
        return _repaired(given)
    return _drawn({**given, "start": "", "strength": 0.8, "grid": False})


def edit(words: list[str]) -> int:
    """`rizbin edit PICTURE PROMPT`."""
    import tyro

    from rizbin.cli.drawing_flags import Common, Switch

    def redraw(
        picture: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")],
        prompt: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")],
        /,
        flags: Common,
        strength: float = 0.6,
        grid: Switch = False,
    ) -> dict:
        """Redraws a picture by words.

        Args:
            picture: A file.
            prompt: What it shall become, in quotes.
            flags: What both commands take.
            strength: How much is drawn anew: 0 keeps the picture, 1 ignores it; so many of the steps are made.
            grid: Also write grid.png: strengths across, guidances down.
        """
        return {**locals()}

    given = parse(redraw, words, "edit")
    given |= vars(given.pop("flags"))
    if not given["prompt"]:
        raise RizbinError('Say what it shall become: rizbin edit photo.png "a taxi".')
    if len(given["prompt"]) > 1:
        whole = " ".join(given["prompt"]).replace('"', "'")
        raise RizbinError(f'A picture is redrawn by one prompt; put all of its words in quotes: "{whole}".')
    none = {"cure": "none", "cure_scale": 20.0, "object": ()}
    return _drawn({**given, **none, "prompts": given["prompt"], "start": given["picture"]})


def _drawn(given: dict[str, Any]) -> int:
    """Draws and says where."""
    if not given["prompts"]:
        raise RizbinError('Say what to draw: rizbin generate "a zebra and a frog".')
    from rizbin import api
    from rizbin.generation.diffusion.painter import Sampling

    names = ("steps", "guidance", "scheduler", "height", "width", "seed", "strength", "negative")
    out = Path(given["out"])
    try:
        made = api.generate(
            list(given["prompts"]),
            to=out,
            sampling=Sampling(**{name: given[name] for name in names}),
            cure=given["cure"],
            scale=given["cure_scale"],
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
        raise RizbinError('Say what to draw: rizbin generate "a zebra and a frog" --repair.')
    if given["count"] != 1:
        raise RizbinError("--verify and --repair draw one picture of each prompt; leave --count.")
    if given["cure"] != "none" and not given["repair"]:
        raise RizbinError(
            f"--verify looks at a picture drawn without a cure; give --repair, which tries {given['cure']} where "
            "something is missing, or leave --verify."
        )
    from rizbin import api
    from rizbin.generation.diffusion.painter import Sampling
    from rizbin.generation.diffusion.repair import Ladder

    names = ("steps", "guidance", "scheduler", "height", "width", "seed", "negative")
    ladder = Ladder() if given["repair"] else Ladder(rungs=())
    if given["cure"] != "none":
        ladder = replace(ladder, cure=given["cure"])
    ladder = replace(ladder, scale=given["cure_scale"])
    made = api.repair(
        list(given["prompts"]),
        to=given["out"],
        sampling=Sampling(**{name: given[name] for name in names}),
        ladder=ladder,
        objects=list(given["object"]),
        **{name: given[name] for name in ("model", "judge", "film", "device", "half", "offload", "quiet")},
    )
    for prompt, one in zip(given["prompts"], made, strict=True):
        for sentence in one.notes:
            print(f"note: {sentence}")
        said = ", ".join(
            f"{name} {presence.probability:.2f}" if presence.known else f"{name} not known"
            for name, presence in one.best.found.items()
        )
        tried = f"{len(one.attempts)} drawn, {sum(attempt.seconds for attempt in one.attempts):.1f} s"
        print(f"{one.file}: {prompt} ({said or 'nothing to look for'}; {tried})")
    return 0 if all(one.whole for one in made) else MISSING
