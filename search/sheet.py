"""A contact sheet: query images as the student saw them, with what it takes them for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from search.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

TILE, GAP, LINE, COLUMNS = 128, 12, 17, 6  # px, px, px, tiles
MOST = 240  # images on a sheet: more is no overview
INK, RIGHT, WRONG, PAPER = "#222222", "#0072b2", "#d55e00", "#ffffff"  # told apart by all eyes


def check_sheet(file: Path) -> None:
    """Refuse a place where no sheet can be written.

    Raises:
        UserError: It is no .png file, or lies in no folder.
    """
    if file.suffix.lower() != ".png":
        raise UserError(f"The contact sheet is a PNG; found --sheet {file}. Name it FILE.png.")
    if not file.resolve().parent.is_dir():
        raise UserError(f"--sheet {file} lies in no folder. Make {file.parent} first.")


def write_sheet(
    file: Path,
    pixels: torch.Tensor,
    labels: Sequence[str],
    confidences: Sequence[float],
    truth: Sequence[str],
) -> None:
    """Draw the images in rows, least certain first, and write them as PNG.

    Args:
        file: The PNG.
        pixels: uint8 ``[M, C, size, size]``.
        labels: What the student takes each for.
        confidences: How sure it is, in [0, 1].
        truth: Their classes; empty where they have none.

    Raises:
        UserError: The file cannot be written.
    """
    order = sorted(range(len(labels)), key=lambda i: (confidences[i], i))[:MOST]
    columns = min(COLUMNS, len(order))
    lines = 3 if truth else 2
    across, down = TILE + GAP, TILE + GAP + lines * LINE
    rows = -(-len(order) // columns)
    sheet = Image.new("RGB", (columns * across + GAP, rows * down + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, i in enumerate(order):
        x, y = GAP + place % columns * across, GAP + place // columns * down
        sheet.paste(_tile(pixels[i]), (x, y))
        said = [(_short(labels[i]), INK), (f"{100 * confidences[i]:.1f} %", INK)]
        if truth:
            right = truth[i] == labels[i]
            said.append(("right", RIGHT) if right else (f"is {_short(truth[i], 14)}", WRONG))
        for line, (words, colour) in enumerate(said):
            pen.text((x, y + TILE + 2 + line * LINE), words, fill=colour, font=font)
    try:
        sheet.save(file, format="PNG")
    except OSError as error:
        raise UserError(
            f"The contact sheet cannot be written at {file}: {error.strerror}."
        ) from error


def _tile(image: torch.Tensor) -> Image.Image:
    values = image.permute(1, 2, 0).numpy()
    shown = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    return shown.convert("RGB").resize((TILE, TILE), Image.Resampling.NEAREST)


def _short(name: str, most: int = 17) -> str:
    return name if len(name) <= most else f"{name[: most - 3]}..."
