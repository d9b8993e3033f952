"""Small picture files for the tests of the sources."""

from io import BytesIO
from pathlib import Path

from PIL import Image


def encode(number: int, kind: str = "PNG", side: int = 12) -> bytes:
    """A picture of one color whose red is `number`."""
    buffer = BytesIO()
    Image.new("RGB", (side, side), (number, 50, 60)).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, number: int, caption: str | bytes | None = None, side: int = 12) -> Path:
    """The same as a file, with its caption beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(number, side=side))
    if caption is not None:
        path.with_suffix(".txt").write_bytes(caption if isinstance(caption, bytes) else caption.encode())
    return path
