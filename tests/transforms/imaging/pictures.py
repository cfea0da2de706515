"""Small synthetic pictures for the tests of the imaging features."""

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def photograph(seed: int, height: int = 180, width: int = 240) -> Picture:
    """Return a random picture with the spectrum of a photograph, in colour: uint8 [h, w, 3]."""
    rng = np.random.default_rng(seed)
    out = np.zeros((height, width, 3))
    for octave in range(7):
        cells = 3 * 2**octave
        grain = rng.normal(0.0, 1.0, (cells, cells, 3)).astype(np.float32)
        grain[..., 1:] = 0.5 * grain[..., 1:] + 0.5 * grain[..., :1]
        out += cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC) / 1.6**octave
    # A few hard edges, as things before a ground have them.
    for _ in range(6):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(8, width // 4)), int(rng.integers(8, height // 4)))
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, centre, axes, float(rng.integers(180)), 0, 360, 1, -1)
        out[mask > 0] += rng.normal(0.0, 1.2, 3)
    out = (out - out.mean()) / out.std()
    return np.clip(120.0 + 50.0 * out, 0, 255).astype(np.uint8)


def jpeg(picture: Picture, quality: int) -> Picture:
    """Return a picture after a JPEG round trip."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def resized(picture: Picture, width: int, height: int) -> Picture:
    """Return a picture at another size."""
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def gained(picture: Picture, gains: tuple[float, float, float]) -> Picture:
    """Return a picture with a gain per channel."""
    return np.clip(picture.astype(np.float64) * np.array(gains), 0, 255).astype(np.uint8)


def grey(picture: Picture) -> Picture:
    """Return a picture without its colour, still of three channels."""
    flat = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(flat, cv2.COLOR_GRAY2RGB))


def hue_turned(picture: Picture, degrees: int) -> Picture:
    """Return a picture with its hues turned and made richer."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV).astype(np.int32)
    hsv[..., 0] = (hsv[..., 0] + degrees // 2) % 180
    hsv[..., 1] = np.minimum(255, hsv[..., 1] * 115 // 100 + 12)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB))


def captioned(picture: Picture, text: str = "a caption of some words") -> Picture:
    """Return a picture with a dark bar and light text over its lowest 14 %."""
    out = picture.copy()
    height, width = out.shape[:2]
    top = round(height * 0.86)
    out[top:] = 20
    at = (round(width * 0.03), round(height * 0.96))
    cv2.putText(out, text, at, cv2.FONT_HERSHEY_SIMPLEX, height / 400, (240, 240, 240), 1)
    return out


def form(seed: int) -> Picture:
    """Return one printed form with figures of its own filled in: uint8 [268, 384, 3]."""
    rng = np.random.default_rng(seed)
    out = np.full((268, 384, 3), (250, 250, 245), np.uint8)
    cv2.rectangle(out, (6, 6), (378, 38), (40, 70, 140), -1)
    cv2.putText(out, "INVOICE", (18, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    for row, label in enumerate(("Number", "Date", "Customer", "Article", "Price", "Total")):
        y = 50 + row * 35
        cv2.rectangle(out, (18, y), (366, y + 26), (120, 120, 120), 1)
        cv2.putText(out, label, (26, y + 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (90, 90, 90), 1)
        figure = str(rng.integers(10**6, 10**7))
        cv2.putText(out, figure, (150, y + 19), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1)
    return out


def page(seed: int) -> Picture:
    """Return one page layout with letters of its own: uint8 [384, 272, 3]."""
    rng = np.random.default_rng(seed)
    out = np.full((384, 272, 3), 255, np.uint8)
    for line in range(38):
        y = 30 + line * 9
        text = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz   "), 40))
        cv2.putText(out, text, (26, y), cv2.FONT_HERSHEY_SIMPLEX, 0.28, (20, 20, 20), 1)
    return out


def on_ground(seed: int, colour: tuple[int, int, int], noise: float) -> Picture:
    """Return a photograph the upper two thirds of which are one noisy ground: uint8 [270, 360, 3].

    Args:
        seed: of what is below, and of the noise.
        colour: of the ground.
        noise: its standard deviation in levels.
    """
    out = photograph(seed, 270, 360)
    out[:180] = colour
    grain = np.random.default_rng(seed).normal(0.0, noise, out.shape)
    return np.clip(out + grain, 0, 255).astype(np.uint8)


def lettered(picture: Picture, text: str = "SOME WORDS") -> Picture:
    """Return a picture with large outlined letters near its upper and lower border."""
    out = picture.copy()
    height, width = out.shape[:2]
    for share in (0.13, 0.95):
        at = (width // 8, round(height * share))
        for colour, thickness in (((0, 0, 0), 7), ((255, 255, 255), 2)):
            cv2.putText(out, text, at, cv2.FONT_HERSHEY_SIMPLEX, height / 250, colour, thickness)
    return out


def card(seed: int, portrait: int) -> Picture:
    """Return a form with a photograph on it: uint8 [268, 384, 3]."""
    out = form(seed)
    out[60:206, 262:372] = photograph(portrait, 146, 110)
    return out
