"""A procedural alphabet: the embedded data, drawn from a seed in seconds.

An alphabet owns a few pen strokes (cubic B-splines). A character puts two to four of them
together; about half of the characters are siblings of another one in their alphabet that differ
in a single stroke, so neighbours look alike. A drawing moves control points and strokes, distorts
the whole and changes the pen. Validation and test alphabets have strokes of their own.

The sizes of all variations are our default, set so that comparing raw pixels fails
more often than not (nearest centroid, 5-way 1-shot: see tests) while a trained network does well.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from trainables._data._builder import Builder
from trainables._data._source import Plan, Request, Source
from trainables._data.dataset import SPLITS, Bytes, DataError

ALPHABETS = {"train": 20, "validation": 6, "test": 10}
CHARACTERS = 10  # of an alphabet
DRAWINGS = 20  # of a character, as in Omniglot
STROKES = 6  # an alphabet owns
CONTROLS = 5  # control points of a stroke
POINTS = 20  # of the polyline that draws it
SIBLINGS = 0.5  # share of characters that differ from another one in a single stroke

# jitter of one drawing, in units of half the paper's side unless said otherwise
CONTROL_JITTER = 0.07
STROKE_JITTER = 0.06
SHIFT = 0.13
ROTATION = 0.20  # radians
LOG_SCALE = 0.13
SHEAR = 0.16
PEN = (0.07, 0.15)  # width of the line

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Placed:
    """A stroke of the alphabet where a character wants it.

    Attributes:
        part: which of the alphabet's strokes.
        points: control points [CONTROLS, 2].
    """

    part: int
    points: Reals


Character = tuple[Placed, ...]


def draw(seed: int, split: str, alphabet: int, size: int) -> list[Bytes]:
    """The characters of one alphabet, each uint8 [DRAWINGS, 1, size, size], dark on white."""
    rng = np.random.default_rng([seed, SPLITS.index(split), alphabet])
    bank = np.stack([_stroke(rng) for _ in range(STROKES)])
    characters: list[Character] = []
    for _ in range(CHARACTERS):
        if characters and rng.random() < SIBLINGS:
            model = characters[int(rng.integers(len(characters)))]
            characters.append(_sibling(model, bank, rng))
        else:
            characters.append(_fresh(bank, rng))
    return [_drawings(character, size, rng) for character in characters]


def _stroke(rng: np.random.Generator) -> Reals:
    """Control points of a smooth walk, centred, [CONTROLS, 2]."""
    turns = np.concatenate([rng.uniform(0, 2 * np.pi, 1), rng.normal(0, 0.9, CONTROLS - 2)])
    heading = np.cumsum(turns)
    steps = rng.uniform(0.3, 0.7, CONTROLS - 1)[:, None]
    walk = np.cumsum(steps * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    points = np.concatenate([np.zeros((1, 2)), walk])
    return np.asarray(points - points.mean(axis=0))


def _place(part: int, bank: Reals, rng: np.random.Generator) -> Placed:
    angle = rng.normal(0, 0.3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = bank[part] @ turn.T * rng.uniform(0.6, 1.0) + rng.uniform(-0.4, 0.4, 2)
    return Placed(part, np.clip(points, -0.85, 0.85))


def _fresh(bank: Reals, rng: np.random.Generator) -> Character:
    parts = rng.choice(len(bank), size=int(rng.integers(2, 5)), replace=False)
    return tuple(_place(int(part), bank, rng) for part in parts)


def _sibling(model: Character, bank: Reals, rng: np.random.Generator) -> Character:
    """Another character with one stroke exchanged for one it does not have."""
    used = {placed.part for placed in model}
    others = [part for part in range(len(bank)) if part not in used]
    changed = int(rng.integers(len(model)))
    new = _place(int(rng.choice(others)), bank, rng)
    return (*model[:changed], new, *model[changed + 1 :])


def _drawings(character: Character, size: int, rng: np.random.Generator) -> Bytes:
    """Uint8 [DRAWINGS, 1, size, size]."""
    n = DRAWINGS
    controls = np.stack([placed.points for placed in character])  # [strokes, CONTROLS, 2]
    jitter = rng.normal(0, CONTROL_JITTER, (n, *controls.shape))
    moved = rng.normal(0, STROKE_JITTER, (n, len(controls), 1, 2))
    lines = _BASIS @ (controls + jitter + moved)  # [n, strokes, POINTS, 2]
    lines = np.einsum("nij,nspj->nspi", _affine(n, rng), lines)
    lines = lines + rng.normal(0, SHIFT, (n, 1, 1, 2))
    pens = rng.uniform(*PEN, n)
    return np.stack([_render(lines[i], float(pens[i]), size) for i in range(n)])[:, None]


def _affine(n: int, rng: np.random.Generator) -> Reals:
    """Rotation, shear and unequal scales, [n, 2, 2]."""
    angle = rng.normal(0, ROTATION, n)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.exp(rng.normal(0, LOG_SCALE, (n, 2)))
    shear = rng.normal(0, SHEAR, n)
    bend = np.array([[scale[:, 0], shear], [np.zeros(n), scale[:, 1]]])
    return np.asarray(np.einsum("ijn,jkn->nik", turn, bend))


def _render(lines: Reals, pen: float, size: int) -> Bytes:
    """Polylines [strokes, POINTS, 2] in [-1, 1] as dark ink on white, uint8 [size, size]."""
    fine = 4 if size <= 40 else 2  # drawn larger, then averaged: smooth edges
    side = size * fine
    image = Image.new("L", (side, side), 255)
    pencil = ImageDraw.Draw(image)
    width = max(1, round(pen * side / 2))
    radius = width / 2
    for line in (lines + 1) * (side / 2):
        pencil.line(line.ravel().tolist(), fill=0, width=width)
        for x, y in (line[0], line[-1]):
            pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    return np.asarray(image.reduce(fine))


def _spline_basis() -> Reals:
    """Clamped uniform cubic B-spline, [POINTS, CONTROLS], by the Cox-de Boor recursion."""
    inner = np.linspace(0, 1, CONTROLS - 2)
    knots = np.concatenate([np.zeros(3), inner, np.ones(3)])
    t = np.linspace(0, 1, POINTS)
    t[-1] -= 1e-12  # the last piece is half open
    basis = ((knots[:-1] <= t[:, None]) & (t[:, None] < knots[1:])).astype(np.float64)
    for degree in range(1, 4):
        width = knots[degree:] - knots[:-degree]
        safe = np.where(width > 0, width, 1.0)
        rise = (t[:, None] - knots[:-degree]) / safe * (width > 0)
        basis = rise[:, :-1] * basis[:, :-1] + ((1 - rise) * (width > 0))[:, 1:] * basis[:, 1:]
    return basis


_BASIS = _spline_basis()


def _plan(request: Request) -> Plan:
    if request.split is not None:
        raise DataError(
            f"The source {SOURCE.name} splits by alphabet itself; leave {request.split} out."
        )

    def build(builder: Builder) -> None:
        builder.split_from = "split by alphabet"
        builder.channels = request.channels or 1
        for split in SPLITS:
            group = 0
            for alphabet in range(ALPHABETS[split]):
                for c, images in enumerate(draw(request.seed, split, alphabet, request.size)):
                    name = f"{split}{alphabet + 1:02d}/character{c + 1:02d}"
                    colours = np.repeat(images, builder.channels, axis=1)
                    builder.add(split, name, group, colours)
                    builder.tally.decoded += len(images)
                    group += 1

    return Plan("drawn", f"seed {request.seed}", build)


def _fetch(root: Path) -> None:
    """Nothing to fetch: it is drawn."""
    del root


SOURCE = Source(
    name="glyphs",
    about="embedded: a procedural alphabet, 360 characters x 20 drawings, drawn from the seed",
    expects=(),
    address="",
    size=28,
    channels=1,
    seeded=True,
    plan=_plan,
    fetch=_fetch,
)
