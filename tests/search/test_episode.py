"""One episode as a picture."""

import io

import numpy as np
import torch
from PIL import Image

from search.episode import GAP, LINE, TILE, _drawn, episode_png
from search.sheet import RIGHT, WRONG
from tests import bundles
from trainables._core.episodes import TaskShape
from trainables._core.student import Student
from trainables._data import load


def opened(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def near(pixel, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(pixel - wanted).max() <= 12  # the PNG has few colours


def test_a_wrong_answer_has_another_frame_than_a_right_one():
    support, query = (torch.full((2, n, 1, 20, 20), 90, dtype=torch.uint8) for n in (1, 2))
    chances = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.3, 0.7], [0.4, 0.6]]])
    png, (width, height) = _drawn(support, query, chances)
    pixels = opened(png)
    assert pixels.shape == (height, width, 3)
    first = GAP + LINE + TILE + GAP + TILE // 2  # the first query image
    frames = [pixels[GAP + LINE - 2 + row * (TILE + LINE + GAP), first + n * (TILE + GAP) + 5]
              for row in (0, 1) for n in (0, 1)]  # fmt: skip
    assert [near(pixel, RIGHT) for pixel in frames] == [True, False, True, True]
    assert near(frames[1], WRONG)


def test_a_student_is_shown_at_work_the_same_each_time(tmp_path):
    student = Student.load(bundles.bundle(tmp_path / "bundle"))
    data = load("glyphs", root=None, size=student.spec.size)
    one, size = episode_png(student, data, TaskShape(20, 7, 50), 3)
    assert one == episode_png(student, data, TaskShape(20, 7, 50), 3)[0]
    assert one != episode_png(student, data, TaskShape(20, 7, 50), 4)[0]
    assert opened(one).shape == (size[1], size[0], 3)
    assert len(one) < 200_000
