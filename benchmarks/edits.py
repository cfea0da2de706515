#!/usr/bin/env python3
"""Make a labelled set of photographs with edits that the usual sets do not hold.

    python benchmarks/edits.py --originals DIR --out DIR [--seed 1] [--limit N]

Thresholds are chosen on one labelled set; this one tells whether they hold on edits that nobody
had in mind. Writes OUT/images and OUT/truth.csv, whose columns are ``file``, ``group_id``,
``transform`` and ``source``: files of one group are copies of each other, and each group of copies
has one ``original``.

Of every 500 photographs 200 get 14 edited copies each (``EDITS``), 80 serve only to build hard
negatives, and the others stand alone. Hard negatives (``hard_*``, 310 for 500 photographs) are
look-alikes that are no copies; each is a group of its own. The same picture in another hue is one
of them: the red and the blue variant of an article are two articles.

What an edit does to a photograph depends on the seed, on its name and on the kind alone. Needs
Pillow and numpy.
"""

import argparse
import csv
import hashlib
import io
import math
import random
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from machine import describe, own
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Picture = Image.Image
Edit = Callable[[Picture, random.Random], Picture]

_COPIES = 14
# Shares of the photographs; the rest stands alone.
_EDITED, _CROPPED, _FRAMED, _MOVED = 200 / 500, 20 / 500, 40 / 500, 20 / 500
_HUES = 30 / 500
_SYLLABLES = (
    "ba",
    "cor",
    "den",
    "el",
    "fi",
    "gan",
    "ho",
    "is",
    "ka",
    "lu",
    "mer",
    "no",
    "pal",
    "ri",
)
_WHITE, _BLACK, _INK = (255, 255, 255), (0, 0, 0), (35, 35, 40)


class Job(NamedTuple):
    """One file to write."""

    group: str
    kind: str
    source: str  # Name of the photograph, or empty where the file holds none.
    number: int = 0  # Which of its kind.


# ------------------------------------------------------------------------------- small helpers


def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=max(7.0, size))


def _words(rng: random.Random, count: int) -> str:
    made = ("".join(rng.choices(_SYLLABLES, k=rng.randint(1, 3))) for _ in range(count))
    return " ".join(made)


def _colour(rng: random.Random, low: int = 0, high: int = 255) -> tuple[int, int, int]:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), np.float32)


def _picture(pixels: np.ndarray) -> Picture:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _scaled(picture: Picture, x: float, y: float) -> Picture:
    size = (max(8, round(picture.width * x)), max(8, round(picture.height * y)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _jpeg(picture: Picture, quality: int) -> Picture:
    """Return the picture after a trip through a JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


# ------------------------------------------------------------------------------ edits: geometry


def off_crop(share: float) -> Edit:
    """Cut away a share of the area, more on one side than on the other."""

    def edit(picture: Picture, rng: random.Random) -> Picture:
        kept_x = (1 - share) ** rng.uniform(0.3, 0.7)
        kept_y = (1 - share) / kept_x
        spare = picture.width * (1 - kept_x), picture.height * (1 - kept_y)
        # The outer quarters of what is spare: near a corner, so never a centred crop.
        x, y = (s * rng.choice((rng.uniform(0, 0.25), rng.uniform(0.75, 1))) for s in spare)
        box = (x, y, x + picture.width * kept_x, y + picture.height * kept_y)
        return picture.crop(tuple(round(v) for v in box))

    return edit


def side_border(low: float, high: float) -> Edit:
    """Add a border on one side alone."""

    def edit(picture: Picture, rng: random.Random) -> Picture:
        width = max(2, round(min(picture.size) * rng.uniform(low, high)))
        sides = [0, 0, 0, 0]
        sides[rng.randrange(4)] = width
        fill = rng.choice((_BLACK, _WHITE, (90, 110, 130), (200, 190, 150)))
        return ImageOps.expand(picture, tuple(sides), fill)

    return edit


def stretched(by: float) -> Edit:
    """Change the ratio of the sides."""

    def edit(picture: Picture, rng: random.Random) -> Picture:
        x, y = rng.choice(((1 + by, 1.0), (1.0, 1 + by)))
        return _scaled(picture, x, y)

    return edit


def perspective(picture: Picture, rng: random.Random) -> Picture:
    """Show the picture as seen a little from the side; no corner stays empty."""
    width, height = picture.size
    moves = [(rng.uniform(0, 0.06) * width, rng.uniform(0, 0.06) * height) for _ in range(4)]
    corners = ((0, 0), (width, 0), (width, height), (0, height))
    rows, wanted = [], []
    for (x, y), (dx, dy) in zip(corners, moves, strict=True):
        seen_x, seen_y = (dx if x == 0 else x - dx), (dy if y == 0 else y - dy)
        rows.append([x, y, 1, 0, 0, 0, -seen_x * x, -seen_x * y])
        rows.append([0, 0, 0, x, y, 1, -seen_y * x, -seen_y * y])
        wanted += [seen_x, seen_y]
    solved = np.linalg.solve(np.array(rows, float), np.array(wanted))
    how = Image.Transform.PERSPECTIVE
    return picture.transform(picture.size, how, tuple(solved), Image.Resampling.BICUBIC)


def turn_8(picture: Picture, rng: random.Random) -> Picture:
    """Turn by 8 degrees and cut the empty corners away."""
    width, height = picture.size
    angle = math.radians(8)
    kept = 1 / (math.cos(angle) + max(width / height, height / width) * math.sin(angle))
    turned = picture.rotate(rng.choice((-8, 8)), Image.Resampling.BICUBIC)
    x, y = width * (1 - kept) / 2, height * (1 - kept) / 2
    return turned.crop((math.ceil(x), math.ceil(y), int(width - x), int(height - y)))


def mirror_resized(picture: Picture, rng: random.Random) -> Picture:
    """Mirror, make smaller and store with loss."""
    factor = rng.uniform(0.4, 0.7)
    return _jpeg(_scaled(ImageOps.mirror(picture), factor, factor), 60)


def rot90_crop(picture: Picture, rng: random.Random) -> Picture:
    """Turn by a quarter and crop."""
    turn = rng.choice((Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270))
    return off_crop(0.15)(picture.transpose(turn), rng)


def mirror_border(picture: Picture, rng: random.Random) -> Picture:
    """Mirror and frame."""
    width = round(min(picture.size) * rng.uniform(0.03, 0.06))
    return ImageOps.expand(ImageOps.mirror(picture), width, rng.choice((_BLACK, _WHITE)))


# ---------------------------------------------------------------------------------- edits: tone


def vignette(picture: Picture, rng: random.Random) -> Picture:
    """Darken towards the corners."""
    y, x = np.ogrid[-1 : 1 : picture.height * 1j, -1 : 1 : picture.width * 1j]
    return _picture(_pixels(picture) * (1 - rng.uniform(0.25, 0.38) * (x * x + y * y))[..., None])


def sepia(picture: Picture, rng: random.Random) -> Picture:
    """Tone in brown."""
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    tint = np.array([1.08, 0.90, rng.uniform(0.62, 0.74)], np.float32)
    return _picture(12 + grey * tint * 0.95)


def posterise(picture: Picture, rng: random.Random) -> Picture:
    """Keep 8 or 16 levels a channel."""
    return ImageOps.posterize(picture, rng.choice((3, 4)))


def sharpen(picture: Picture, rng: random.Random) -> Picture:
    """Sharpen visibly."""
    return picture.filter(ImageFilter.UnsharpMask(2, rng.randint(120, 220), 2))


def median_blur(picture: Picture, rng: random.Random) -> Picture:
    """Take the median of 5 by 5 pixels."""
    return picture.filter(ImageFilter.MedianFilter(5))


def motion_blur(picture: Picture, rng: random.Random) -> Picture:
    """Blur along one direction, over about 2 % of the width."""
    reach = max(2, round(picture.width * rng.uniform(0.007, 0.012)))
    step_x, step_y = rng.choice(((1, 0), (0, 1), (1, 1), (1, -1)))
    padded = np.pad(_pixels(picture), ((reach, reach), (reach, reach), (0, 0)), "edge")
    total = np.zeros((picture.height, picture.width, 3), np.float32)
    for t in range(-reach, reach + 1):
        y, x = reach + t * step_y, reach + t * step_x
        total += padded[y : y + picture.height, x : x + picture.width]
    return _picture(total / (2 * reach + 1))


def pixelate(picture: Picture, rng: random.Random) -> Picture:
    """Show every 2 by 2 pixels as one."""
    small = picture.reduce(2)
    return small.resize(picture.size, Image.Resampling.NEAREST)


# ------------------------------------------------------------- edits: something over or around it


def rounded_corners(picture: Picture, rng: random.Random) -> Picture:
    """Cut the corners round, on white or black."""
    mask = Image.new("L", picture.size)
    radius = round(min(picture.size) * rng.uniform(0.08, 0.16))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *picture.size), radius, fill=255)
    ground = Image.new("RGB", picture.size, rng.choice((_WHITE, _BLACK)))
    ground.paste(picture, (0, 0), mask)
    return ground


def caption_on(picture: Picture, rng: random.Random) -> Picture:
    """Write a line on a pale strip over the upper or lower edge."""
    out = picture.copy()
    draw, height = ImageDraw.Draw(out), max(16, round(picture.height * 0.12))
    top = rng.choice((0, picture.height - height))
    draw.rectangle((0, top, picture.width, top + height), fill=(240, 235, 220))
    draw.text((picture.width * 0.04, top + height * 0.2), _words(rng, 5), _INK, _font(height * 0.5))
    return out


def mirror_caption(picture: Picture, rng: random.Random) -> Picture:
    """Mirror, then write a line on it."""
    return caption_on(ImageOps.mirror(picture), rng)


def polaroid(picture: Picture, rng: random.Random) -> Picture:
    """Put into a pale frame with a broad lower edge and a line of writing."""
    side, bottom = round(picture.width * 0.07), round(picture.height * 0.24)
    out = ImageOps.expand(picture, (side, side, side, bottom), (246, 244, 238))
    at = (out.width / 2, out.height - bottom * 0.55)
    ImageDraw.Draw(out).text(at, _words(rng, 3), (60, 60, 90), _font(bottom * 0.3), anchor="mm")
    return out


def phone_screenshot(picture: Picture, rng: random.Random) -> Picture:
    """Show the picture in the middle of a telephone's tall screen."""
    width = max(360, picture.width)
    shown = _scaled(picture, width / picture.width, width / picture.width)
    height = max(round(width * 2.05), round(shown.height * 1.35))
    ground, ink = rng.choice(((_WHITE, _INK), ((18, 18, 20), (225, 225, 230))))
    out = Image.new("RGB", (width, height), ground)
    top = (height - shown.height) // 2
    out.paste(shown, (0, top))
    draw, unit = ImageDraw.Draw(out), width / 24
    draw.text((unit, unit * 0.5), f"{rng.randint(1, 23)}:{rng.randint(10, 59)}", ink, _font(unit))
    draw.rectangle((width - 3 * unit, unit * 0.6, width - unit, unit * 1.5), outline=ink, width=2)
    draw.ellipse((unit, top - 2.6 * unit, 3 * unit, top - 0.6 * unit), fill=_colour(rng, 60, 200))
    draw.text((3.6 * unit, top - 2.2 * unit), _words(rng, 2), ink, _font(unit * 1.1))
    for line in range(3):
        y = top + shown.height + (0.8 + 1.5 * line) * unit
        if y < height - 4 * unit:
            draw.text((unit, y), _words(rng, 5), ink, _font(unit))
    for button in range(4):
        x = width * (button + 0.5) / 4
        draw.ellipse(
            (x - unit, height - 2.6 * unit, x + unit, height - 0.6 * unit), outline=ink, width=3
        )
    return out


def in_slide(picture: Picture, rng: random.Random) -> Picture:
    """Set the picture into a slide, text beside it."""
    ground, ink = rng.choice(((_WHITE, _INK), ((24, 40, 72), (235, 235, 235))))
    out = Image.new("RGB", (1280, 720), ground)
    shown = ImageOps.contain(picture, (700, 540), Image.Resampling.LANCZOS)
    left = rng.random() < 0.5
    x = 40 if left else 1240 - shown.width
    out.paste(shown, (x, 130 + (540 - shown.height) // 2))
    draw = ImageDraw.Draw(out)
    draw.text((40, 40), _words(rng, 4).title(), ink, _font(48))
    text_x = x + shown.width + 40 if left else 50
    for line in range(rng.randint(4, 6)):
        draw.text((text_x, 170 + 80 * line), "- " + _words(rng, 3), ink, _font(27))
    return out


def sticker(picture: Picture, rng: random.Random) -> Picture:
    """Stick a round face on about 5 % of the area, near the middle."""
    out = picture.copy()
    radius = math.sqrt(picture.width * picture.height * 0.05 / math.pi)
    x, y = picture.width * rng.uniform(0.4, 0.6), picture.height * rng.uniform(0.4, 0.6)
    draw = ImageDraw.Draw(out)

    def circle(cx: float, cy: float, r: float, fill: tuple[int, int, int]) -> None:
        draw.ellipse(
            (
                x + (cx - r) * radius,
                y + (cy - r) * radius,
                x + (cx + r) * radius,
                y + (cy + r) * radius,
            ),
            fill=fill,
        )

    circle(0, 0, 1, rng.choice(((255, 210, 40), (120, 200, 90), (240, 110, 90))))
    circle(-0.35, -0.25, 0.14, _INK)
    circle(0.35, -0.25, 0.14, _INK)
    smile = (x - 0.55 * radius, y - 0.4 * radius, x + 0.55 * radius, y + 0.6 * radius)
    draw.arc(smile, 20, 160, fill=_INK, width=max(2, round(radius * 0.1)))
    return out


def date_stamp(picture: Picture, rng: random.Random) -> Picture:
    """Print the date into a corner, as a film camera did."""
    out = picture.copy()
    text = f"'{rng.randint(85, 99)} {rng.randint(1, 12)} {rng.randint(1, 28)}"
    at = (picture.width * 0.96, picture.height * 0.95)
    font = _font(picture.height * 0.06)
    ImageDraw.Draw(out).text(at, text, (255, 140, 40), font, anchor="rs")
    return out


def dark_bar(picture: Picture, rng: random.Random) -> Picture:
    """Cover a strip of a tenth of the height across the middle."""
    out = picture.copy()
    height = picture.height * 0.1
    top = picture.height * rng.uniform(0.38, 0.52)
    ImageDraw.Draw(out).rectangle((0, top, picture.width, top + height), fill=(15, 15, 18))
    return out


# --------------------------------------------------------------------------- edits: one by one


def crop_bright(picture: Picture, rng: random.Random) -> Picture:
    """Crop, make brighter or darker, store with loss."""
    cut = off_crop(0.12)(picture, rng)
    return _jpeg(ImageEnhance.Brightness(cut).enhance(rng.choice((0.75, 1.25))), 60)


def shot_half(picture: Picture, rng: random.Random) -> Picture:
    """Take a picture of the screen and show it at half the size."""
    return _scaled(phone_screenshot(picture, rng), 0.5, 0.5)


def border_caption(picture: Picture, rng: random.Random) -> Picture:
    """Frame, then write a line over an edge."""
    width = round(min(picture.size) * 0.05)
    return caption_on(ImageOps.expand(picture, width, rng.choice((_BLACK, _WHITE))), rng)


def unchanged(picture: Picture, rng: random.Random) -> Picture:
    """Leave the picture alone: the format is the edit."""
    return picture


EDITS: dict[str, Edit] = {
    **{f"off_crop_{share}": off_crop(share / 100) for share in (10, 20, 30, 40)},
    "border_side_thin": side_border(0.02, 0.05),
    "border_side_wide": side_border(0.12, 0.25),
    "rounded_corners": rounded_corners,
    "vignette": vignette,
    "sepia": sepia,
    "posterise": posterise,
    "median_blur": median_blur,
    "motion_blur": motion_blur,
    "pixelate": pixelate,
    "sharpen": sharpen,
    "mirror_resized": mirror_resized,
    "rot90_crop": rot90_crop,
    "mirror_border": mirror_border,
    "mirror_caption": mirror_caption,
    "stretch_10": stretched(0.10),
    "stretch_20": stretched(0.20),
    "perspective": perspective,
    "turn_8": turn_8,
    "polaroid": polaroid,
    "phone_screenshot": phone_screenshot,
    "in_slide": in_slide,
    "sticker": sticker,
    "date_stamp": date_stamp,
    "dark_bar": dark_bar,
    "jpeg_10": unchanged,
    "gif": unchanged,
    "png_16bit": unchanged,
    "cmyk_jpeg": unchanged,
    "crop_bright_jpeg": crop_bright,
    "screenshot_half": shot_half,
    "border_caption": border_caption,
}


# ------------------------------------------------------------------ hard negatives: photographs


def apart_crops(picture: Picture, number: int) -> Picture:
    """Return one of two crops of a photograph that share no pixel."""
    width, height = picture.size
    second = number % 2
    if width >= height:
        box = (
            (width * 0.53, height * 0.1, width, height)
            if second
            else (0, 0, width * 0.47, height * 0.9)
        )
    else:
        box = (
            (0, height * 0.53, width * 0.9, height)
            if second
            else (width * 0.1, 0, width, height * 0.47)
        )
    return picture.crop(tuple(round(v) for v in box))


def framed(picture: Picture, number: int, layout: random.Random) -> Picture:
    """Return the photograph on a calendar's leaf or in a talk's window, always the same one."""
    ground, accent = _colour(layout, 200, 245), _colour(layout, 30, 140)
    if number % 2:
        out = Image.new("RGB", (600, 800), ground)
        draw = ImageDraw.Draw(out)
        draw.text((300, 445), "SEPTEMBER", accent, _font(44), anchor="ma")
        for day in range(30):
            at = (70 + day % 7 * 78, 520 + day // 7 * 54)
            draw.text(at, str(day + 1), _INK, _font(26), anchor="ma")
        out.paste(ImageOps.fit(picture, (560, 410)), (20, 20))
        return out
    out = Image.new("RGB", (960, 540), accent)
    draw = ImageDraw.Draw(out)
    draw.rectangle((0, 460, 960, 540), fill=ground)
    draw.text((30, 478), "Open Lecture No. 7", _INK, _font(36))
    draw.ellipse((40, 60, 180, 200), fill=ground)
    draw.text((110, 130), "UNI", accent, _font(44), anchor="mm")
    draw.text((30, 250), "Room 12\nat noon", ground, _font(34))
    out.paste(ImageOps.fit(picture, (690, 420)), (240, 20))
    return out


def moved(picture: Picture, subject: Picture, number: int) -> Picture:
    """Return the scene with its subject, an ellipse of a sixth of it, left or right."""
    out = picture.copy()
    size = (round(picture.width * 0.38), round(picture.height * 0.55))
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((2, 2, size[0] - 2, size[1] - 2), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(1.5))
    x, y = ((0.05, 0.35), (0.56, 0.22))[number % 2]
    at = (round(picture.width * x), round(picture.height * y))
    out.paste(ImageOps.fit(subject, size), at, mask)
    return out


def hue_turned(picture: Picture, rng: random.Random) -> Picture:
    """Return the picture with its hue turned by 60 to 180 degrees, to either side."""
    hue, saturation, value = (np.asarray(c) for c in picture.convert("HSV").split())
    turn = round(rng.choice((-1, 1)) * rng.uniform(60, 180) * 256 / 360)
    stack = np.stack([(hue.astype(int) + turn) % 256, saturation, value], axis=-1)
    return Image.fromarray(stack.astype(np.uint8), "HSV").convert("RGB")


def colourfulness(path: Path) -> float:
    """Return how much a turned hue would show: the mean of saturation times value."""
    with Image.open(path) as picture:
        picture.draft("RGB", (64, 64))
        small = np.asarray(picture.convert("RGB").resize((48, 48)).convert("HSV"), float)
    return float((small[..., 1] * small[..., 2]).mean())


# ----------------------------------------------------------------------- hard negatives: drawn


def ticket(rng: random.Random, number: int, layout: random.Random) -> Picture:
    """Draw a railway ticket: one layout, other places, times and numbers."""
    band, paper = _colour(layout, 40, 160), _colour(layout, 225, 250)
    out = Image.new("RGB", (720, 320), paper)
    draw = ImageDraw.Draw(out)
    draw.rectangle((0, 0, 720, 54), fill=band)
    draw.text((20, 10), "DAY RETURN", paper, _font(30))
    for row, label in enumerate(("From", "To", "Date", "Seat")):
        draw.text((24, 76 + 56 * row), label, (120, 120, 120), _font(18))
        value = (
            _words(rng, 1).title() if row < 2 else f"{rng.randint(1, 28)} / {rng.randint(1, 99)}"
        )
        draw.text((120, 70 + 56 * row), value, _INK, _font(28))
    x = 480
    while x < 690:  # The bars of a code, of this ticket's own.
        width = rng.randint(2, 8)
        draw.rectangle((x, 90, x + width, 250), fill=_INK)
        x += width + rng.randint(2, 8)
    draw.text((480, 262), str(rng.randrange(10**9, 10**10)), _INK, _font(22))
    return out


def business_card(rng: random.Random, number: int, layout: random.Random) -> Picture:
    """Draw the business card of another person of one firm."""
    accent = _colour(layout, 20, 170)
    out = Image.new("RGB", (630, 360), (252, 252, 250))
    draw = ImageDraw.Draw(out)
    draw.polygon(((0, 0), (170, 0), (90, 360), (0, 360)), fill=accent)
    draw.text((200, 40), "NORDLICHT & CO", accent, _font(34))
    draw.text((200, 120), _words(rng, 2).title(), _INK, _font(32))
    draw.text((200, 165), _words(rng, 1), (110, 110, 110), _font(22))
    draw.text((200, 240), f"+{rng.randrange(10**9, 10**10)}", _INK, _font(22))
    draw.text((200, 275), f"{_words(rng, 1)}@nordlicht.example", _INK, _font(22))
    return out


def questionnaire(rng: random.Random, number: int, layout: random.Random) -> Picture:
    """Draw a printed form with other answers and other crosses."""
    out = Image.new("RGB", (620, 860), (253, 253, 248))
    draw = ImageDraw.Draw(out)
    questions = [_words(layout, 4).capitalize() + "?" for _ in range(9)]
    draw.text((40, 34), "Survey of visitors", _INK, _font(34))
    for row, question in enumerate(questions):
        y = 110 + 80 * row
        draw.text((40, y), question, (70, 70, 70), _font(20))
        if row % 3 == 2:
            draw.line((40, y + 60, 580, y + 60), fill=(150, 150, 150))
            draw.text((50, y + 30), _words(rng, 4), (20, 30, 120), _font(24))
            continue
        crossed = rng.randrange(5)
        for box in range(5):
            x = 60 + 100 * box
            draw.rectangle((x, y + 34, x + 22, y + 56), outline=_INK, width=2)
            if box == crossed:
                draw.line((x, y + 34, x + 22, y + 56), fill=(20, 30, 120), width=4)
                draw.line((x + 22, y + 34, x, y + 56), fill=(20, 30, 120), width=4)
    return out


def bar_chart(rng: random.Random, number: int, layout: random.Random) -> Picture:
    """Draw a chart of ten bars of other values on the same axes."""
    colour = _colour(layout, 30, 190)
    out = Image.new("RGB", (720, 450), _WHITE)
    draw = ImageDraw.Draw(out)
    draw.text((360, 14), "Visitors a month", _INK, _font(26), anchor="ma")
    for line in range(6):
        y = 400 - 64 * line
        draw.line((70, y, 700, y), fill=(215, 215, 215))
        draw.text((58, y), str(20 * line), _INK, _font(16), anchor="rm")
    for bar in range(10):
        x, height = 85 + 61 * bar, rng.uniform(20, 320)
        draw.rectangle((x, 400 - height, x + 42, 400), fill=colour)
        draw.text((x + 21, 408), str(bar + 1), _INK, _font(16), anchor="ma")
    return out


def deck_slide(rng: random.Random, number: int, layout: random.Random) -> Picture:
    """Draw a slide of one deck: the same master, other words."""
    ground, accent = _colour(layout, 228, 252), _colour(layout, 20, 130)
    out = Image.new("RGB", (1024, 576), ground)
    draw = ImageDraw.Draw(out)
    draw.rectangle((0, 0, 1024, 84), fill=accent)
    draw.rectangle((0, 546, 1024, 576), fill=accent)
    draw.text((40, 18), _words(rng, 3).title(), ground, _font(42))
    draw.text((984, 548), str(number + 2), ground, _font(20), anchor="ra")
    draw.text((40, 548), "Annual meeting", ground, _font(20))
    for line in range(rng.randint(4, 6)):
        draw.ellipse((50, 132 + 66 * line, 64, 146 + 66 * line), fill=accent)
        draw.text((84, 120 + 66 * line), _words(rng, rng.randint(3, 6)), _INK, _font(30))
    return out


def plain_product(rng: random.Random, number: int, layout: random.Random) -> Picture:
    """Draw an article on white; its form and its proportions go with the number."""
    out = Image.new("RGB", (640, 640), _WHITE)
    draw = ImageDraw.Draw(out)
    form, step = number % 6, number // 6
    wide, tall = 90 + 28 * (step % 5), 250 - 26 * (step % 5)
    shade = 60 + 25 * (step % 6)
    fill = (shade, (shade * 2 + 30 * form) % 200, 200 - shade // 2)
    left, right, top, bottom = 320 - wide, 320 + wide, 330 - tall, 330 + tall
    if form == 0:  # A cup.
        draw.rounded_rectangle((left, top + tall, right, bottom), 24, fill)
        draw.arc((right - 30, 350, right + 80, 350 + tall // 2), -90, 90, fill, 18)
    elif form == 1:  # A bottle.
        draw.rounded_rectangle((320 - wide // 2, 330, 320 + wide // 2, bottom), 30, fill)
        draw.rectangle((320 - wide // 6, top, 320 + wide // 6, 350), fill=fill)
    elif form == 2:  # A shirt.
        body = ((left, top), (right, top), (right + 70, top + 110), (right, top + 140))
        draw.polygon(
            (*body, (right, bottom), (left, bottom), (left, top + 140), (left - 70, top + 110)),
            fill,
        )
    elif form == 3:  # A lamp.
        draw.polygon(
            ((320 - wide // 2, top), (320 + wide // 2, top), (right, 330), (left, 330)), fill
        )
        draw.rectangle((310, 330, 330, bottom), fill=fill)
        draw.rectangle((320 - wide // 2, bottom - 20, 320 + wide // 2, bottom), fill=fill)
    elif form == 4:  # A ball.
        draw.ellipse((320 - wide, 330 - wide, 320 + wide, 330 + wide), fill)
        draw.arc((320 - wide, 330 - wide // 2, 320 + wide, 330 + wide // 2), 0, 180, _WHITE, 8)
    else:  # A box, seen from a corner.
        draw.polygon(
            ((320, bottom), (left, bottom - 90), (left, top + 130), (320, top + 200)), fill
        )
        pale = tuple(min(255, v + 40) for v in fill)
        draw.polygon(
            ((320, bottom), (right, bottom - 90), (right, top + 130), (320, top + 200)), pale
        )
    return out


def starry_night(rng: random.Random, number: int, layout: random.Random) -> Picture:
    """Draw a night sky over one ridge, the stars elsewhere each time."""
    noise = np.random.default_rng(rng.getrandbits(60))
    height, width = 480, 720
    glow = np.linspace(4, 26, height)[:, None, None] * np.array([0.5, 0.6, 1.0])
    sky = glow + noise.normal(0, 2, (height, width, 3))
    count = rng.randint(120, 320)
    ys, xs = noise.integers(1, height - 90, count), noise.integers(1, width - 1, count)
    light = (noise.pareto(1.6, count) * 40 + 40)[:, None]
    for dy, dx, share in ((0, 0, 1.0), (0, 1, 0.4), (1, 0, 0.4), (0, -1, 0.4), (-1, 0, 0.4)):
        np.maximum.at(sky, (ys + dy, xs + dx), light * share)
    ridge = 430 + 25 * np.sin(np.arange(width) / layout.uniform(60, 90))
    sky[np.arange(height)[:, None] > ridge[None, :]] = 3
    return _picture(sky)


DRAWN: dict[str, tuple[Callable[[random.Random, int, random.Random], Picture], int]] = {
    "hard_ticket": (ticket, 20),
    "hard_card": (business_card, 20),
    "hard_questionnaire": (questionnaire, 20),
    "hard_bars": (bar_chart, 30),
    "hard_slide": (deck_slide, 30),
    "hard_shape": (plain_product, 30),
    "hard_stars": (starry_night, 30),
}


# ------------------------------------------------------------------------------------ the set


def plan(names: list[str], seed: int, hues: Callable[[str], float]) -> list[Job]:
    """Return the files to write.

    Args:
        names: of the photographs.
        seed: decides which photograph gets what.
        hues: how colourful a photograph is; the most colourful lone ones get a copy in another hue.

    Returns:
        A job for each file, in a shuffled order.
    """
    rng = random.Random(f"plan {seed}")
    left = rng.sample(sorted(names), len(names))

    def take(share: float) -> list[str]:
        count = round(share * len(names))
        taken, left[:count] = left[:count], []
        return taken

    edited, cropped, framing, moving = (take(s) for s in (_EDITED, _CROPPED, _FRAMED, _MOVED))
    jobs = [Job(name, "original", name) for name in (*edited, *left)]
    jobs += _copies(edited, rng)
    for name in cropped:
        jobs += [Job(f"crop {i} {name}", "hard_crops", name, i) for i in (0, 1)]
    jobs += [Job(f"frame {n}", "hard_frame", n, i) for i, n in enumerate(framing)]
    # Scene and subject are one after the other; the job names both.
    for pair in zip(moving[::2], moving[1::2], strict=False):
        both = "|".join(pair)
        jobs += [Job(f"moved {i} {both}", "hard_moved", both, i) for i in (0, 1)]
    coloured = sorted(left, key=hues, reverse=True)[: round(_HUES * len(names))]
    jobs += [Job(f"hue {name}", "hard_hue", name) for name in coloured]
    for kind, (_, count) in DRAWN.items():
        scaled = round(count * len(names) / 500)
        jobs += [Job(f"{kind} {i}", kind, "", i) for i in range(scaled)]
    return rng.sample(jobs, len(jobs))


def _copies(edited: list[str], rng: random.Random) -> Iterator[Job]:
    """Give each photograph its edits, every kind as often as any other."""
    stock: list[str] = []
    for name in edited:
        given: list[str] = []
        while len(given) < _COPIES:
            if not any(kind not in given for kind in stock):
                stock += rng.sample(list(EDITS), len(EDITS))
            kind = next(k for k in stock if k not in given)
            stock.remove(kind)
            given.append(kind)
        yield from (Job(name, kind, name) for kind in given)


def make(job: Job, folder: Path, seed: int) -> Picture:
    """Return the picture of a job that is no mere copy of a file."""
    rng = random.Random(f"{seed} {job.group} {job.kind}")
    layout = random.Random(f"{seed} {job.kind}")
    if job.kind in DRAWN:
        return DRAWN[job.kind][0](rng, job.number, layout)
    pictures = []
    for name in job.source.split("|"):
        with Image.open(folder / name) as opened:
            pictures.append(ImageOps.exif_transpose(opened).convert("RGB"))
        # Else Pillow would write the photograph's profile into files that it does not fit.
        pictures[-1].info.clear()
    if job.kind == "hard_moved":
        return moved(pictures[0], pictures[1], job.number)
    if job.kind == "hard_crops":
        return apart_crops(pictures[0], job.number)
    if job.kind == "hard_frame":
        return framed(pictures[0], job.number, layout)
    return (hue_turned if job.kind == "hard_hue" else EDITS[job.kind])(pictures[0], rng)


def write(picture: Picture, kind: str, stem: Path, rng: random.Random) -> Path:
    """Write a picture in the format that goes with its kind; return the file's path."""
    if kind == "gif":
        path = stem.with_suffix(".gif")
        picture.quantize(rng.choice((64, 128, 256))).save(path)
    elif kind == "png_16bit":
        path = stem.with_suffix(".png")
        path.write_bytes(deep_png(np.asarray(picture)))
    elif kind in ("jpeg_10", "cmyk_jpeg"):
        path = stem.with_suffix(".jpg")
        mode, quality = ("RGB", 10) if kind == "jpeg_10" else ("CMYK", 90)
        picture.convert(mode).save(path, quality=quality)
    else:
        suffix = rng.choices((".jpg", ".png", ".webp"), (8, 1, 1))[0]
        path = stem.with_suffix(suffix)
        picture.save(path, quality=rng.randint(82, 95))
    return path


def deep_png(pixels: np.ndarray) -> bytes:
    """Return a PNG of 16 bits a channel, which Pillow does not write for colours.

    Args:
        pixels: uint8 [h, w, 3].
    """
    height, width = pixels.shape[:2]
    rows = (pixels.astype(">u2") * 257).astype(">u2").reshape(height, -1).view(np.uint8)
    # PNG, section 7.2: each row begins with the type of its filter, 0 for none.
    filtered = np.pad(rows.reshape(height, -1), ((0, 0), (1, 0)))

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def main() -> None:
    """Make the set and print what it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--originals", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=0, help="photographs to use, 0 for all")
    args = parser.parse_args()
    started = time.monotonic()
    print(describe(args.seed))
    names = sorted(
        p.name for p in args.originals.iterdir() if p.suffix.lower() in (".jpg", ".jpeg")
    )
    if args.limit:
        names = random.Random(f"limit {args.seed}").sample(names, min(args.limit, len(names)))
    images = args.out / "images"
    if images.exists():
        sys.exit(f"{images} is there already; name another folder")
    images.mkdir(parents=True)
    jobs = plan(names, args.seed, lambda name: colourfulness(args.originals / name))
    groups = {group: i for i, group in enumerate(sorted({job.group for job in jobs}))}
    rows = []
    for number, job in enumerate(jobs):
        # A name that tells nothing of the group.
        stem = images / hashlib.sha256(f"{args.seed} {number}".encode()).hexdigest()[:12]
        if job.kind == "original":
            path = stem.with_suffix(".jpg")
            shutil.copyfile(args.originals / job.source, path)
        else:
            rng = random.Random(f"{args.seed} {job.group} {job.kind} format")
            path = write(make(job, args.originals, args.seed), job.kind, stem, rng)
        rows.append((path.name, groups[job.group], job.kind, job.source))
    with open(args.out / "truth.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "group_id", "transform", "source"))
        writer.writerows(sorted(rows))
    hard = sum(job.kind.startswith("hard_") for job in jobs)
    copies = sum(job.kind in EDITS for job in jobs)
    print(
        f"{len(jobs)} files of {len(names)} photographs: {copies} edited copies in "
        f"{round(_EDITED * len(names))} groups, {hard} hard negatives; {own(started)}"
    )


if __name__ == "__main__":
    main()
