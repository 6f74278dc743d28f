"""Text in images."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

# Okabe and Ito's colours, which colour-blind readers tell apart; later indices begin again
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442", "#999999")
MIN_PX = 15  # height of letters that can be read in a video
LONGEST = 40  # characters of a caption


def series_color(index: int) -> tuple[int, int, int]:
    """The RGB colour of the index-th of several things that are told apart by colour."""
    code = COLORS[index % len(COLORS)]
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


@cache
def font(px: int) -> FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows most scripts."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), px)


@lru_cache(maxsize=1024)
def caption(text: str, color: tuple[int, int, int], px: int = MIN_PX) -> NDArray[np.uint8]:
    """Text on a dark ground with a square of a colour beside it: uint8 (H, W, 3); letters `px` px high."""
    from PIL import Image, ImageDraw

    letters, edge = font(px), px // 2 - 1
    ground = Image.new("RGB", (math.ceil(letters.getlength(text)) + px + 3 * edge, px + 2 * edge), (24, 26, 30))
    pen = ImageDraw.Draw(ground)
    pen.rectangle((edge, edge, edge + px - 2, edge + px - 2), fill=color)
    pen.text((2 * edge + px, px // 2 + edge), text, (255, 255, 255), letters, anchor="lm")
    return np.asarray(ground)
