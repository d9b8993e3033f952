"""Reads image files safely: every file is read here, or refused with a sentence that names it and the reason.

The format is known by content, not by name. The header is read and judged before a pixel is decoded, so that a small
file which unpacks into gigabytes costs nothing. JPEG, PNG, WebP, BMP and the first frame of GIF are read; SVG and the
rest are not: each decoder more is a door more. A PNG's checksums are compared, as one flipped bit may spoil all pixels
after it and still unpack. Images that a program holds already, from Pillow or as arrays, come through `as_rgb`.
"""

import os
import stat
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rizbin.data.sample import Refused

MOST_BYTES = 64 * 2**20
"""Largest file that is read. No camera's JPEG comes near."""
LONGEST_SIDE = 16_384
"""Pixels."""
MOST_PIXELS = 89_478_485
"""Where Pillow too begins to suspect a decompression bomb: 256 MiB in RGB."""
MOST_RATIO = 100
"""Longer side divided by the shorter; what is beyond is no image."""

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".jfif", ".jpe", ".jif", ".pjpeg", ".apng", ".dib")
"""Endings of file names that folders and shards take for images."""
UNREAD = (
    *(".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".jpx", ".svg", ".ico", ".psd", ".tga"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""Endings of formats that are not read. Files with these names are taken too, as their content decides and a
refusal names and counts them; passed over, they would be missing without a word."""

AnyImage = str | Path | Image.Image | np.ndarray
"""An image however a program holds it; `as_rgb` brings all of them to one form."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)
_FOREIGN = (
    ((b"<svg", b"<?xml"), "an SVG drawing or other XML"),
    ((b"<!doctype", b"<html", b"<head"), "a web page, as servers send instead of a missing image"),
    ((b"II*\0", b"MM\0*"), "a TIFF"),
    ((b"%pdf", b"%!ps"), "a PDF or PostScript page"),
    ((b"version https://git-lfs",), "a Git LFS pointer, so the image itself was never fetched"),
    ((b"\0\0\0\x0cjXL ", b"\xff\x0a"), "a JPEG XL"),
    ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "a JPEG 2000"),
)
_BRANDS = {b"avif": "an AVIF", b"avis": "an AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "a HEIC, as iPhones save images"
)
"""Brands of ISO media files: from the fifth byte on they have `ftyp` and one of these."""
_GIVE = "give JPEG, PNG, WebP, BMP or GIF"
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
    """The image in a file (or in its bytes) as RGB, upright, transparent parts on white.

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


def read_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the upright image in a file, by its header. Raises `Refused` as `read_image`."""
    data, name = _read(path, "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(BytesIO(data), formats=[_format(data, name)])
    except Refused:
        raise
    except Exception as error:
        raise _broken(name, error) from error
    return (image.height, image.width) if _orientation(image) >= 5 else (image.width, image.height)


def read_rgba(source: str | Path | bytes, *, name: str = "") -> UInt8[np.ndarray, "height width 4"]:
    """The image in a file as RGB and alpha (255 where it has none), for cut-outs; else as `read_image`."""
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


def as_rgb(image: object, *, name: str = "the image") -> UInt8[np.ndarray, "height width 3"]:
    """The RGB pixels of an image, however a program holds it: the same as of its file, wherever both are the same.

    image: A file's path, which passes `read_image`; an image of Pillow, whose EXIF orientation and transparency count
        as a file's do; or an array, or what numpy can make one of. Arrays are [height, width] or [height, width,
        channels] with 1 channel (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGB and alpha, opaque: an array does not say
        whether its colors were multiplied by it). Values are whole numbers from 0 to 255, 16 bits (uint16, 0 to
        65,535), numbers from 0 to 1 with a point, or booleans, in any order of memory.
    name: What messages call it, where it is no file.

    Raises Refused, in one sentence, for all else; for numbers with a point above 1, whose range nobody knows, too.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        _check_size(image.size, name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd metadata, as of files
                return np.asarray(_on_white(_upright(image, name)))
        except Refused:
            raise
        except Exception as error:
            raise _broken(name, error) from error
    if not hasattr(image, "__array__"):
        raise Refused(
            f"{name} is of type {type(image).__name__}; give a path, an image of Pillow or an array of pixels."
        )
    try:
        pixels = np.asarray(image)
    except Exception as error:  # a tensor on another device or with a gradient, which only its library can bring here
        raise Refused(f"{name} cannot be made an array ({_reason(error)}); give RGB pixels, 0 to 255.") from error
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1] if pixels.ndim == 3 else 0
    if channels not in _CHANNELS:
        raise Refused(
            f"{name} is an array of shape {list(pixels.shape)}; give RGB pixels, 0 to 255, as [height, width, 3]."
        )
    _check_size((pixels.shape[1], pixels.shape[0]), name)
    levels, shape = _levels(pixels, name), pixels.shape[:2]
    if channels in (2, 4):
        if levels[..., -1].min() < 255:
            raise Refused(
                f"{name} has an alpha channel that is not 255 everywhere; give RGB pixels, 0 to 255, or an image of "
                "Pillow (Image.fromarray), whose transparent parts come on white."
            )
        levels, channels = levels[..., :-1], channels - 1
    return np.ascontiguousarray(levels if channels == 3 else np.broadcast_to(levels.reshape(*shape, 1), (*shape, 3)))


_CHANNELS = (1, 2, 3, 4)
"""Gray, gray and alpha, RGB, RGB and alpha."""


def _levels(pixels: np.ndarray, name: str) -> UInt8[np.ndarray, "..."]:
    """Pixels of any type as 0 to 255."""
    kind = pixels.dtype.kind
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16 and pixels.max(initial=0) > 255:  # else they may be of 8 bits in a wider type
        return (pixels >> 8).astype(np.uint8)  # the high byte, as of 16-bit files
    if kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    if kind in "iuf" and pixels.size:
        low, high = float(pixels.min()), float(pixels.max())
        if kind == "f" and low >= 0 and high <= 1:  # false of what is not a number too
            return (pixels * 255).round().astype(np.uint8)
        if kind != "f" and pixels.dtype != np.uint16 and low >= 0 and high <= 255:
            return pixels.astype(np.uint8)
        raise Refused(
            f"{name} has {pixels.dtype} values from {low:g} to {high:g}; give RGB pixels, 0 to 255, as uint8."
        )
    raise Refused(f"{name} has values of type {pixels.dtype}; give RGB pixels, 0 to 255, as uint8.")


def _read(source: str | Path | bytes, name: str) -> tuple[bytes, str]:
    """The bytes, of a decent number, and the name for messages."""
    if isinstance(source, bytes):
        name = name or "the image"
        size = len(source)
    else:
        name = name or str(source)
        try:
            facts = os.stat(source)
        except (OSError, ValueError) as error:
            raise Refused(f"{name} cannot be opened ({_reason(error)}); check the path and its permissions.") from error
        if not stat.S_ISREG(facts.st_mode):  # a pipe would block for ever
            raise Refused(f"{name} is not a regular file; give an image.")
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
    """What the first bytes say the image is."""
    for signature, recognized in _SIGNATURES:
        if data.startswith(signature):
            return recognized
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in _BRANDS:
        raise Refused(f"{name} is {_BRANDS[data[8:12]]}; {_GIVE}.")
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    what = next((what for starts, what in _FOREIGN if start.startswith(tuple(s.lower() for s in starts))), "")
    raise Refused(f"{name} is {what or 'of no known image format'}; {_GIVE}.")


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
            if kind == "PNG":
                _check_chunks(data)
            if enough:
                image.draft(image.mode, (enough, enough))
            return _upright(image, name)
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


def _check_chunks(data: bytes) -> None:
    """Raises ValueError unless the file is whole to its last chunk and every checksum holds (PNG, section 5.3).

    Pillow compares those of chunks before the pixels alone.
    """
    place, view = 8, memoryview(data)
    while True:
        if place + 12 > len(data):
            raise ValueError("it ends before its last chunk")
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            raise ValueError("a chunk is longer than the file")
        kind = data[place + 4 : place + 8]
        if zlib.crc32(view[place + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ValueError(f"the checksum of chunk {kind.decode('latin-1')!r} does not match")
        if kind == b"IEND":
            return
        place = end + 4


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Decoded, turned as the camera was held, in 8 bits a channel."""
    # First: to look for its orientation, Pillow decodes a PNG whole, and an error there must not pass for one of the
    # metadata, as a second attempt would give what had been decoded before it.
    image.load()
    for turn in _UPRIGHT.get(_orientation(image), ()):
        image = image.transpose(turn)
    return _in_eight_bits(image, name)


def _orientation(image: Image.Image) -> int:
    """The camera's orientation, 1 to 8; 1 also when the metadata is broken, which spoils no image."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) else 1


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
