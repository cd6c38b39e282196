"""What is lost in the hardest tasks, by hand-made accuracies."""

import pytest
import torch

from trainables._core.drops import drop_in_hardest, right_answers


def test_only_the_hardest_fifth_counts():
    full = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9, 0.6])
    chosen = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.2, 0.9, 0.9, 0.7, 0.9, 0.5])
    assert drop_in_hardest(full, chosen) == pytest.approx((0.2 + 0.1) / 2)
    assert drop_in_hardest(chosen, full) == pytest.approx(-(0.2 + 0.1) / 2)


def test_the_group_is_rounded_up_and_ties_go_by_the_order_of_the_tasks():
    assert drop_in_hardest(torch.tensor([0.5, 1.0]), torch.tensor([0.25, 1.0])) == 0.25
    full, chosen = torch.full((6,), 0.5), torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert drop_in_hardest(full, chosen) == 0.0
    swapped = drop_in_hardest(torch.tensor([0.75, 0.25, 1.0, 1.0, 1.0]),
                              torch.tensor([0.25, 0.75, 1.0, 1.0, 1.0]))  # fmt: skip
    assert swapped == 0.5  # both tasks sum to 1: the first of them


def test_luck_alone_is_no_drop():
    """Two equally good patterns lose nothing to each other, also where tasks were chosen."""
    generator = torch.Generator().manual_seed(0)
    skill = 0.5 + 0.4 * torch.rand(4000, generator=generator)
    one, other = (
        torch.binomial(torch.full((4000,), 10.0), skill, generator=generator) / 10
        for _ in range(2)
    )  # fmt: skip
    assert abs(drop_in_hardest(one, other)) < 0.01
    by_one = torch.argsort(one)[:800]
    assert float((one - other)[by_one].mean()) < -0.03  # what choosing by one alone would say


def test_accuracies_of_different_tasks_are_refused():
    with pytest.raises(ValueError, match="found 3 tasks of the one and 2 of the other"):
        drop_in_hardest(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="found 0 tasks"):
        drop_in_hardest(torch.ones(0), torch.ones(0))


def test_right_answers_are_counts_of_images():
    found = {("01", 1): torch.tensor([1 / 3, 1.0]), ("11", 2): torch.tensor([2 / 3, 0.0])}
    answers = right_answers(found, ("01", 1), ("11", 2), images=15, seed=7)
    assert answers == {"seed": 7, "images": 15, "right": [5, 15], "right_full": [10, 0]}
