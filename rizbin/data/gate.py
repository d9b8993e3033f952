"""The image gate: every picture file comes in here, or is refused with a sentence that names it and the reason.

The format is known by content, not by name. The header is read and judged before a pixel is decoded, so that a small
file which unpacks into gigabytes costs nothing. JPEG, PNG, WebP, BMP and the first frame of GIF are read; SVG and the
rest are not: each decoder more is a door more.
"""

import os
import stat
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rizbin.data.sample import Refused

MOST_BYTES = 64 * 2**20
"""Of a file. No camera's JPEG comes near."""
LONGEST_SIDE = 16_384
"""Pixels."""
MOST_PIXELS = 89_478_485
"""Where Pillow too begins to suspect a decompression bomb: 256 MiB in RGB."""
MOST_RATIO = 100
"""Longer side divided by the shorter; what is beyond is no picture."""

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
"""Of file names that folders and shards take for pictures."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)
_FOREIGN = (
    ((b"<svg", b"<?xml"), "an SVG drawing or other XML"),
    ((b"<!doctype", b"<html", b"<head"), "a web page, as servers send instead of a missing picture"),
    ((b"II*\0", b"MM\0*"), "a TIFF"),
    ((b"%pdf", b"%!ps"), "a PDF or PostScript page"),
    ((b"version https://git-lfs",), "a Git LFS pointer, so the picture itself was never fetched"),
)
_UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_270,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_90,),
}
"""What undoes each orientation of the EXIF standard (CIPA DC-008, tag 274)."""
_ORIENTATION = 274


def read_image(source: str | Path | bytes, *, name: str = "", enough: int = 0) -> UInt8[np.ndarray, "height width 3"]:
    """The picture in a file (or in its bytes) as RGB, upright, transparent parts on white.

    `name` is what messages call it; without one, the path. With `enough` over 0 a JPEG may be decoded at a half, a
    quarter or an eighth of its size as long as both sides keep that many pixels, up to five times as fast.
    Raises `Refused` when the file cannot be used, whatever is in it.
    """
    data, name = _read(source, name)
    image = _decode(data, name, enough)
    try:
        return np.asarray(_on_white(image))
    except Exception as error:
        raise _broken(name, error) from error


def read_rgba(source: str | Path | bytes, *, name: str = "") -> UInt8[np.ndarray, "height width 4"]:
    """The picture in a file as RGB and alpha (255 where it has none), for cut-outs; else as `read_image`."""
    data, name = _read(source, name)
    image = _decode(data, name, 0)
    try:
        return np.asarray(image.convert("RGBA"))
    except Exception as error:
        raise _broken(name, error) from error


def read_indices(source: str | Path | bytes, *, name: str = "") -> UInt8[np.ndarray, "height width"]:
    """The numbers in an 8-bit gray or palette PNG, as masks are stored: one number an object; else as `read_image`.

    Of a palette the positions, not the colors. Raises `Refused` also when the file is of another kind, as numbers that
    have been compressed with loss are no longer those that were written.
    """
    data, name = _read(source, name)
    if _format(data, name) != "PNG":
        raise Refused(f"{name} is no PNG; masks are read from 8-bit gray or palette PNGs.")
    image = _decode(data, name, 0)
    if image.mode not in ("L", "P"):
        raise Refused(f"{name} has pixels of mode {image.mode}; masks are read from 8-bit gray or palette PNGs.")
    return np.asarray(image)


def _read(source: str | Path | bytes, name: str) -> tuple[bytes, str]:
    """The bytes, of a decent number, and the name for messages."""
    if isinstance(source, bytes):
        name = name or "the picture"
        size = len(source)
    else:
        name = name or str(source)
        try:
            facts = os.stat(source)
        except (OSError, ValueError) as error:
            raise Refused(f"{name} cannot be opened ({_reason(error)}); check the path and its permissions.") from error
        if not stat.S_ISREG(facts.st_mode):  # a pipe would block for ever
            raise Refused(f"{name} is not a regular file; give a picture.")
        size = facts.st_size
    if size == 0:
        raise Refused(f"{name} is empty (0 bytes); fetch it again or remove it.")
    if size > MOST_BYTES:
        raise Refused(f"{name} has {size / 2**20:.0f} MiB, more than {MOST_BYTES // 2**20}; make it smaller.")
    if isinstance(source, bytes):
        return source, name
    try:
        return Path(source).read_bytes(), name
    except OSError as error:
        raise Refused(f"{name} cannot be read ({_reason(error)}); check its permissions.") from error


def _format(data: bytes, name: str) -> str:
    """What the first bytes say the picture is."""
    for signature, found in _SIGNATURES:
        if data.startswith(signature):
            return found
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    what = next((what for starts, what in _FOREIGN if start.startswith(tuple(s.lower() for s in starts))), "")
    raise Refused(f"{name} is {what or 'of no known picture format'}; give JPEG, PNG, WebP, BMP or GIF.")


def _decode(data: bytes, name: str, enough: int) -> Image.Image:
    """The first frame, decoded, upright, in 8 bits a channel and any mode."""
    kind = _format(data, name)
    with warnings.catch_warnings():
        # Pillow warns about odd metadata, which does not matter here; but of a bomb it must not only warn.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(BytesIO(data), formats=[kind])
            _check_size(image.size, name)
            if enough:
                image.draft(image.mode, (enough, enough))
            orientation = _orientation(image)
            image.load()
            for turn in _UPRIGHT.get(orientation, ()):
                image = image.transpose(turn)
            return _in_eight_bits(image, name)
        except Refused:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise Refused(f"{name} unpacks into more than {MOST_PIXELS} pixels; make it smaller.") from error
        except Exception as error:  # decoders raise anything on bytes that were made to confuse them
            raise _broken(name, error) from error


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(width, height) < 1 or max(width, height) > LONGEST_SIDE or width * height > MOST_PIXELS:
        raise Refused(
            f"{name} says that it is {width} x {height} pixels; sides go to {LONGEST_SIDE} and all pixels to "
            f"{MOST_PIXELS}, so make it smaller."
        )
    if max(width, height) > MOST_RATIO * min(width, height):
        raise Refused(f"{name} is {width} x {height} pixels, too long a strip; cut it to 1:{MOST_RATIO} at most.")


def _orientation(image: Image.Image) -> int:
    """The camera's orientation, 1 to 8; 1 also when the metadata is broken, which spoils no picture."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return found if isinstance(found, int) else 1


def _in_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """16-bit gray brought to 8 bits by its high byte; Pillow would cut it off at 255."""
    if image.mode == "F":
        raise Refused(f"{name} has floating-point pixels without a known range; save it with 8 bits a channel.")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65_535) >> 8).astype(np.uint8))
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """RGB, what is transparent being white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _broken(name: str, error: Exception) -> Refused:
    return Refused(f"{name} is damaged or cut short ({_reason(error)}); fetch it again or remove it.")


def _reason(error: Exception) -> str:
    """The error's own words on one line, without a path, which the message has named already."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:120] or type(error).__name__
