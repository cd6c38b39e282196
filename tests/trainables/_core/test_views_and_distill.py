"""Closed forms of the distillation losses, and what a view may and may not change."""

import math

import pytest
import torch

from trainables._core import distill
from trainables._core.views import MOST, with_views


def test_kl_of_two_classes_by_hand():
    student = torch.tensor([[[0.0, 0.0]]])
    teacher = torch.tensor([[[2.0, 0.0]]])
    p = 1 / (1 + math.exp(-1.0))  # tau 2
    expected = 4 * (p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5))
    assert distill.kl(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_kl_gradient_is_tau_times_the_difference_of_probabilities():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 4, 5, generator=generator, requires_grad=True)
    t = torch.randn(3, 4, 5, generator=generator)
    distill.kl(z, t, 3.0).backward()
    expected = 3.0 * (torch.softmax(z / 3, -1) - torch.softmax(t / 3, -1)) / 4
    torch.testing.assert_close(z.grad, expected.detach())


def test_kl_is_the_mean_over_images_and_the_sum_over_tasks():
    z, t = torch.randn(1, 4, 5), torch.randn(1, 4, 5)
    one = distill.kl(z, t, 2.0)
    torch.testing.assert_close(distill.kl(z.repeat(3, 1, 1), t.repeat(3, 1, 1), 2.0), 3 * one)
    torch.testing.assert_close(distill.kl(z.repeat(1, 2, 1), t.repeat(1, 2, 1), 2.0), one)


def test_relations_ignore_scale_rotation_shift_and_the_number_of_features():
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(2, 5, 4, generator=generator)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator))[0]
    moved = torch.cat([3 * f @ turn + 1, torch.zeros(2, 5, 3)], -1)
    assert distill.relational(moved, f).item() == pytest.approx(0, abs=1e-5)
    assert distill.relational(torch.randn(2, 5, 4, generator=generator), f).item() > 0.05


def test_relational_loss_has_a_finite_gradient():
    f = torch.randn(2, 5, 4).requires_grad_()
    distill.relational(f, torch.randn(2, 5, 7)).backward()
    assert f.grad is not None
    assert torch.isfinite(f.grad).all()


@pytest.mark.parametrize("features", [1, 4])
def test_relational_loss_can_be_differentiated_twice(features):
    f = torch.randn(2, 5, features, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = distill.relational(f, torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1)))
    (gradient,) = torch.autograd.grad(loss, f, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), f)
    assert torch.isfinite(second).all()


def test_views_come_behind_the_images_and_are_the_same_every_time():
    x = torch.randn(2, 3, 12, 12, 3, generator=torch.Generator().manual_seed(0))
    views = with_views(x, 2)
    assert views.shape == (2, 9, 12, 12, 3)
    assert torch.equal(views[:, :3], x)
    assert torch.equal(views, with_views(x, 2))
    assert with_views(x, 0) is x
    alone = with_views(x[1:], 2)  # a task's views do not depend on its neighbour
    torch.testing.assert_close(views[1:], alone)


def test_a_view_moves_ink_but_keeps_the_background():
    x = torch.full((1, 1, 20, 20, 1), -0.7)
    assert torch.allclose(with_views(x, MOST), torch.tensor(-0.7))
    x[:, :, 6:14, 6:14] = 1.0
    for view in with_views(x, MOST)[0, 1:]:
        assert not torch.allclose(view, x[0, 0], atol=0.1)
        assert float((view > 0).sum()) == pytest.approx(64, rel=0.35)


def test_more_views_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="0 to 3 views"):
        with_views(torch.zeros(1, 1, 4, 4, 1), 4)
