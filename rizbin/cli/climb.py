"""The command that draws by climbing."""

from typing import Annotated, Literal

from rizbin.cli.parsing import check_quotes, parse

INTERRUPTED = 130
"""Exit code of Ctrl-C."""


def ascend(words: list[str]) -> int:
    """`rizbin ascend PROMPT...`."""
    import tyro

    from rizbin.cli.drawing_flags import Switch

    def draw(
        prompts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPTS...")],
        /,
        model: tuple[str, ...] = (),
        out: str = "ascended",
        preset: Literal["default", "paper", "adversarial"] = "default",
        steps: int = 0,
        copies: int = 0,
        also: tuple[str, ...] = (),
        negative: tuple[str, ...] = (),
        image: str = "",
        style: str = "",
        content: str = "",
        layer: str = "",
        start: str = "",
        mask: str = "",
        change: float = 1.0,
        size: int = 0,
        count: int = 1,
        seed: int = 0,
        parametrization: Literal["preset", "resolutions", "fourier", "pixels", "latent", "strokes"] = "preset",
        resolutions: str = "preset",
        autoencoder: str = "",
        optimizer: Literal["preset", "sgd", "adam", "sign"] = "preset",
        learning_rate: float = 0.0,
        smooth: float = -1.0,
        noise: float = -1.0,
        chunk: int = 4,
        device: str = "cpu",
        quiet: Switch = False,
    ) -> dict:
        """Draws pictures by climbing the gradient of an image-text model: no generator, nothing trained to draw.

        The same command goes on where it was stopped.

        Args:
            prompts: What to draw, each in quotes: "a red strawberry left of a zebra".
            model: The encoder, once for each of several: tecoa-mini (when none is given), a run, a folder,
                open_clip:NAME/WEIGHTS, timm:NAME, or a CLIP or SigLIP on Hugging Face.
            out: Folder for the pictures as they grow, strips, GIFs, and ascended.json, which tells how each was made.
            preset: default is quick; paper is Direct Ascent Synthesis as published; adversarial is plain pixels, which
                fool the encoder and show nothing.
            steps: Moves of the picture; 0: the preset's.
            copies: Shifted copies (of paper also noisy) that are looked at in each step; 0: the preset's.
            also: A further text, once for each, with a weight or 0.3: "oil painting=0.5".
            negative: A text to stay away from, once for each, with a weight or 0.3.
            image: A picture to draw again from nothing but what the encoder keeps of it.
            style: A picture whose style is followed.
            content: A picture whose features are followed place by place; with style, its picture in that style.
            layer: Of the encoder, for style and content; empty: half way through.
            start: A picture to begin with; empty: gray.
            mask: A picture of the start's size, white where may be drawn.
            change: How far a pixel may go from the start, 0 to 1.
            size: Side of the canvas in pixels, also beyond the encoder's input; 0: the encoder's with room to shift, or
                the start's own.
            count: Pictures of each prompt, with the seeds that follow.
            seed: Of all draws; on the processor the same seed gives the same picture.
            parametrization: What the picture is made of.
            resolutions: Sides of its components: powers, all, or a list such as 1,4,16,64.
            autoencoder: For latents: a run of `rizbin train diffusion` or a pipeline of diffusers.
            optimizer: Adam, plain descent, or its sign.
            learning_rate: Of the optimizer; 0: the preset's.
            smooth: How much grain counts against the score (default 6, paper 0); below 0: the preset's.
            noise: Of up to so much on each copy, 0 to 1: with more of it things grow larger and grain goes, but an
                encoder that never saw any is blinded by it; below 0: the preset's.
            chunk: Copies in memory at a time; changes memory, not the picture.
            device: cpu, cuda, cuda:1.
            quiet: No progress bar.
        """
        return {**locals()}

    given = parse(draw, words, "ascend", repeat=True)
    check_quotes(given["prompts"], "rizbin ascend")
    from rizbin import api
    from rizbin.workflows.ascend import settings_from

    names = ("also", "negative", "image", "style", "content", "layer", "start", "mask", "autoencoder", "count")
    try:
        made = api.ascend(
            list(given["prompts"]),
            model=list(given["model"]) or "tecoa-mini",
            to=given["out"],
            settings=settings_from(given),
            **{name: given[name] for name in (*names, "device", "quiet")},
        )
    except KeyboardInterrupt:
        print(f"Interrupted; what was drawn is in {given['out']}, and the same command goes on.")
        return INTERRUPTED
    for one in made:
        print(f"{one.file}: {one.prompt or 'by its pictures'} (seed {one.seed}, climbed to {one.score:.2f})")
    return 0
