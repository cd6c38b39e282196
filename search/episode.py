"""One episode as a picture: what a student was shown, and what it takes the other images for."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont

from search.sheet import INK, PAPER, RIGHT, WRONG
from trainables._core.episodes import Sampler, TaskShape

if TYPE_CHECKING:
    from trainables._core.episodes import ImageData
    from trainables._core.student import Student

TILE, GAP, LINE = 48, 8, 12  # px
WAYS, SHOTS, QUERIES = 10, 5, 8  # shown of a task at most, which has as many as is shown
COLOURS = 128  # of the PNG: photos stay far below 200 KiB


def episode_png(
    student: Student, data: ImageData, shape: TaskShape, seed: int
) -> tuple[bytes, tuple[int, int]]:
    """Draw a validation task, adapt to it, and picture it: a row for each class, support first.

    Args:
        student: Adapted with its own pattern and steps.
        data: Its validation classes are drawn from.
        shape: Of the task, as far as it is shown.
        seed: Draws the task.

    Returns:
        The PNG, and its width and height in px.
    """
    ways = shape.ways if student.spec.head == "linear" else min(shape.ways, WAYS)
    shown = TaskShape(ways, min(shape.shots, SHOTS), min(shape.queries, QUERIES))
    (numbers,) = Sampler(data.validation, data, shown, "cpu").parts(seed, 1, 1)
    pixels = torch.from_numpy(data.validation.images[numbers[0].numpy()])  # [N, K + Q, C, H, W]
    support, query = pixels[:, : shown.shots], pixels[:, shown.shots :]
    labels = torch.arange(ways).repeat_interleave(shown.shots)
    adapted = student.adapt(support.flatten(0, 1), labels, ways)
    chances = student.predict(adapted, query.flatten(0, 1))
    return _drawn(support, query, chances.unflatten(0, (ways, shown.queries)))


def _drawn(
    support: torch.Tensor, query: torch.Tensor, chances: torch.Tensor
) -> tuple[bytes, tuple[int, int]]:
    """Draw support ``[N, K, C, H, W]`` and query ``[N, Q, C, H, W]`` with chances ``[N, Q, N]``."""
    ways, shots, queries = len(support), support.shape[1], query.shape[1]
    size = (2 * GAP + LINE + (shots + queries + 1) * (TILE + GAP) - TILE // 2,
            2 * GAP + LINE + ways * (TILE + LINE + GAP))  # fmt: skip
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    first = GAP + LINE
    beside = first + shots * (TILE + GAP) + TILE // 2  # a gap between what is shown and asked
    right = (chances.argmax(-1) == torch.arange(ways)[:, None]).float().mean()
    pen.text((first, GAP - 4), "support", fill=INK, font=font)
    pen.text((beside, GAP - 4), f"query, {100 * right:.0f} % right", fill=INK, font=font)
    for row in range(ways):
        y = GAP + LINE + row * (TILE + LINE + GAP)
        pen.text((GAP - 2, y + TILE // 2 - 6), _letter(row), fill=INK, font=font)
        for n in range(shots):
            sheet.paste(_tile(support[row, n]), (first + n * (TILE + GAP), y))
        for n in range(queries):
            x, said = beside + n * (TILE + GAP), int(chances[row, n].argmax())
            colour, width = (RIGHT, 1) if said == row else (WRONG, 3)
            sheet.paste(_tile(query[row, n]), (x, y))
            pen.rectangle((x - 2, y - 2, x + TILE + 1, y + TILE + 1), outline=colour, width=width)
            told = f"{_letter(said)} {100 * float(chances[row, n, said]):.0f} %"
            pen.text((x, y + TILE + 2), told, fill=colour, font=font)
    out = io.BytesIO()
    sheet.quantize(COLOURS).save(out, format="PNG", optimize=True)
    return out.getvalue(), size


def _letter(number: int) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number] if number < 26 else str(number + 1)


def _tile(image: torch.Tensor) -> Image.Image:
    values = image.permute(1, 2, 0).numpy()
    shown = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    return shown.convert("RGB").resize((TILE, TILE), Image.Resampling.BILINEAR)
