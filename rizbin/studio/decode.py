"""Decodes one uploaded image in a process of its own, with limits of memory and time: `python -m rizbin.studio.decode`.

Bytes from outside are read by nothing else. What comes out is written anew as a PNG, so that the rest of the studio and
the browser see pixels that Rizbin wrote.
"""

import json
import resource
import sys
from io import BytesIO
from pathlib import Path

MEMORY = 3 << 30
"""Bytes of address space: the largest image that is taken (`image_io.MOST_PIXELS`) is 256 MiB, held a few times."""
SECONDS = 30
"""Most seconds of processor time."""


def main(source: str, target: str) -> int:
    """Reads the file, writes the PNG and prints its width and height as JSON, or the sentence of a refusal."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from PIL import Image

    from rizbin.data.image_io import read_image
    from rizbin.data.sample import Refused

    try:
        pixels = read_image(source, name="the image")
        written = BytesIO()
        Image.fromarray(pixels).save(written, "PNG", compress_level=3)
    except Refused as refusal:
        print(json.dumps({"error": str(refusal)}))
        return 0
    except MemoryError:
        print(json.dumps({"error": "The picture needs more memory than is given to one; make it smaller."}))
        return 0
    with Path(target).open("xb") as file:
        file.write(written.getvalue())
    print(json.dumps({"width": pixels.shape[1], "height": pixels.shape[0]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
