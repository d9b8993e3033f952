"""The study of gradient ascent as a job: opens the models that it asks, by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rizbin.core import outputs
from rizbin.core.commands import HIDDEN, Argument, Place, job, part
from rizbin.core.devices import BEST, choose
from rizbin.data.open import open_source
from rizbin.studies.ascent import StudySize, write_study
from rizbin.workflows.load import load_detector, load_encoder, load_text_to_image
from rizbin.workflows.report import readable, writable
from rizbin.workflows.verifier import judging


@dataclass(frozen=True, kw_only=True)
class StudyAscent(StudySize):
    """Draw by gradient ascent on an encoder and have the images judged by encoders and a detector that were in no loss.

    The same command again goes on.
    """

    model: Annotated[Place, Argument(check="model")] = "tecoa-mini"
    """The encoder whose gradient is followed, as for ascend."""
    judge: Annotated[Place, Argument(check="model")] = "clip-mini"
    """The encoder that judges; of another architecture and seed."""
    detector: Annotated[Place, Argument(check="model")] = "detector-mini"
    """The detector that looks for the named objects."""
    rival: Annotated[Place, Argument(check="model")] = "detailclip-mini"
    """Another encoder, treated in the same way; the default was trained on clean scenes alone."""
    rebuild: tuple[str, str] = ("detailclip-mini", "clip-mini")
    """Two encoders, asked what they keep of an image by drawing it again from its embedding."""
    autoencoder: Annotated[Place, Argument(check="model")] = "diffusion-mini"
    """A text-to-image model, whose autoencoder's latents are followed beside the other parametrizations."""
    data: Annotated[str, Argument(check="data")] = "scenes:easy,categories=0"
    """Captions and real images; its test part."""
    run: Place = "runs/study-ascent"
    """Folder of the images; what is there is not drawn again."""
    output: Annotated[Place | None, Argument(short=("-o",))] = None
    """The page. None: study.html in that folder."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""
    small: Annotated[str, HIDDEN] = ""
    """A sentence for the page that says how this is smaller than the whole study."""


@job(StudyAscent)
def study_ascent(settings: StudyAscent) -> Path:
    """Draws by the gradient of one encoder and has others judge what comes out, on one page."""
    page = Path(settings.output) if settings.output else Path(settings.run) / "study.html"
    readable(settings.data)
    writable(page)
    if settings.output:
        outputs.refuse_taken(page)
    device = str(choose(settings.device))
    encoder, looks = load_encoder(settings.model, device=device), load_detector(settings.detector, device=device)
    return write_study(
        encoder,
        load_encoder(settings.judge, device=device),
        judging(looks),
        open_source(settings.data, split="test", size=encoder.image_size),
        page,
        rival=load_encoder(settings.rival, device=device),
        rebuild=[load_encoder(name, device=device) for name in settings.rebuild],
        autoencoder=load_text_to_image(settings.autoencoder, device=device).pipeline.vae,
        blind=load_encoder("dino-mini", device=device),
        run=Path(settings.run),
        size=part(settings, StudySize),
        quiet=settings.quiet,
        small=settings.small,
    )
