"""What the adapted teacher tells the student, as losses of logits and features.

    KD(zS, zT) = tau^2 KL(softmax(zT / tau) || softmax(zS / tau))             (methods, section 2)

Relational distillation (Park et al. 2019) compares distances and angles between the images of a
task, so it needs no equal number of features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LOSSES = ("kl", "none", "relational")
ANGLE_WEIGHT = 2.0  # Park et al. 2019 weigh angles twice as much as distances


def kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """``[B, M, N]`` logits of both; mean over a task's images, summed over tasks."""
    target = F.log_softmax(teacher / temperature, -1)
    guess = F.log_softmax(student / temperature, -1)
    total = F.kl_div(guess, target, reduction="sum", log_target=True)
    return temperature**2 * total / student.shape[1]


def _distances(f: torch.Tensor) -> torch.Tensor:
    square = (f.unsqueeze(2) - f.unsqueeze(1)).square().sum(-1)
    d = (square + 1e-12).sqrt()
    off = ~torch.eye(f.shape[1], dtype=torch.bool, device=f.device)
    mean = d[:, off].mean(-1).clamp_min(1e-8)
    return d / mean[:, None, None]


def _angles(f: torch.Tensor) -> torch.Tensor:
    d = f.unsqueeze(2) - f.unsqueeze(1)
    e = d * torch.rsqrt(d.square().sum(-1, keepdim=True) + 1e-12)  # twice differentiable at 0
    return torch.einsum("bijd,bkjd->bjik", e, e)


def relational(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """``[B, M, F]`` features of both, F may differ; summed over tasks."""
    tasks = student.shape[0]
    distance = F.smooth_l1_loss(_distances(student), _distances(teacher))
    angle = F.smooth_l1_loss(_angles(student), _angles(teacher))
    return tasks * (distance + ANGLE_WEIGHT * angle)
