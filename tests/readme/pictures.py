"""Make the README's pictures from a finished run: `python -m tests.readme.pictures results/readme`."""

import argparse
import io
from pathlib import Path

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PICTURES = Path(__file__).parents[2] / ".github" / "pictures"
PHOTOS = {"scene_000001": "run.jpg"}
"""Which photos of the run, and the files that show them."""


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--to", type=Path, default=PICTURES, help="folder of the pictures")
    arguments = parser.parse_args(words)
    arguments.to.mkdir(parents=True, exist_ok=True)
    shown = EventAccumulator(str(arguments.run), size_guidance={"images": 0}).Reload()
    for name, file in PHOTOS.items():
        (event,) = shown.Images(f"images/{name}")
        picture = Image.open(io.BytesIO(event.encoded_image_string))
        picture.save(arguments.to / file, quality=80, optimize=True)


if __name__ == "__main__":
    main()
