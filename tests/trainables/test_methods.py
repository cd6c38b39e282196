"""What sets each method apart: first order, ANIL, BOIL, the teacher, the given checkpoint."""

import math
from itertools import groupby
from types import SimpleNamespace

import pytest
import torch

from tests.trainables.test_contract import RUN, SHAPE, TINY, data, make  # noqa: F401  the fixture
from trainables._core.adapt import adapt
from trainables._core.guidance import adapted_teacher, teacher_step
from trainables._core.heads import HEAD_B, HEAD_W
from trainables._core.rig import quick_accuracy
from trainables._learner import ConfigError, DivergedError
from trainables.lambda_adaptation import LambdaAdaptation
from trainables.meta_distillation import MetaDistillation


@pytest.mark.parametrize(("adapts", "pattern", "rows"), [("head", "001", 2), ("body", "110", 6)])
def test_anil_and_boil_keep_to_their_layers(data, adapts, pattern, rows):  # noqa: F811
    one = make("maml", data, adapts=adapts, choice="table")
    assert one.rig.pattern == pattern
    one.step()
    outcome = one.finish()
    assert len(outcome.table) == rows
    full = [r for r in outcome.table if r["pattern"] == pattern and r["step"] == 2]
    assert outcome.metrics["accuracy_full"] == full[0]["accuracy"]


def test_first_and_second_order_part_ways(data):  # noqa: F811
    ends = {}
    for order in ("first", "second"):
        one = make("maml", data, order=order, inner_rate=0.5)
        one.step()
        ends[order] = one.rig.meta["conv1.conv.weight"].detach().clone()
    assert not torch.equal(ends["first"], ends["second"])


def test_the_teacher_is_fully_adapted_before_the_student_starts(data, monkeypatch):  # noqa: F811
    seen = []

    def watched(network, *args, **kwargs):
        run = adapt(network, *args, **kwargs)
        seen.append((network.body[0].width, len(run.steps) - 1, kwargs.get("loss") is not None))
        return run

    monkeypatch.setattr("trainables._core.guidance.adapt", watched)
    monkeypatch.setattr("trainables._core.rig.adapt", watched)
    one = make("meta_distillation", data, **{"teacher.width": 6, "teacher.pretrain": 0.0})
    one.step()
    teacher, student = (6, 3, False), (4, TINY["inner_steps"], True)
    assert [call for call, _ in groupby(seen)] == [teacher, student]  # chunk by chunk


def test_the_students_gradient_never_reaches_the_teacher(data):  # noqa: F811
    one = make("meta_distillation", data, baseline="fixed_teacher")
    before = {n: p.detach().clone() for n, p in one.teacher.rig.meta.items()}
    one.ahead = 0
    one.step()
    assert all(torch.equal(p, before[n]) for n, p in one.teacher.rig.meta.items())
    assert all(p.grad is None for p in one.teacher.rig.meta.values())


def test_the_teachers_trajectory_is_plain_maml(data):  # noqa: F811
    told = make("meta_distillation", data, **{"teacher.pretrain": 0.0})
    deaf = make("meta_distillation", data, **{"teacher.pretrain": 0.0, "distillation.loss": "none"})
    for _ in range(3):
        told.step()
        deaf.step()
    for name, p in told.teacher.rig.meta.items():
        assert torch.equal(p, deaf.teacher.rig.meta[name])


def test_without_words_the_student_is_the_student_alone(data):  # noqa: F811
    silent = {"distillation.loss": "none", "distillation.outer": 0.0, "teacher.pretrain": 0.0}
    tsmd = make("meta_distillation", data, **silent)
    alone = make("meta_distillation", data, baseline="student")
    maml = make("maml", data)
    for _ in range(3):
        tsmd.step(), alone.step(), maml.step()
    for name, p in maml.rig.meta.items():
        assert torch.equal(p, alone.rig.meta[name])
        torch.testing.assert_close(p, tsmd.rig.meta[name])


def test_an_oracle_is_the_teacher_scored_as_the_student(data):  # noqa: F811
    one = make("meta_distillation", data, baseline="oracle", **{"teacher.width": 6})
    one.step()
    metrics = one.finish().metrics
    quick = one.validate()
    assert quick["accuracy"] == quick["teacher_accuracy"]
    assert metrics["accuracy_full"] == pytest.approx(full_accuracy(one))
    assert one.rig.network.body[0].width == 6


def test_an_oracle_scores_the_whole_table_where_that_is_asked_for(data):  # noqa: F811
    short = {"teacher.width": 2, "teacher.inner_steps": 1, "patterns": "suffixes", "epsilon": 1.0}
    one = make("meta_distillation", data, baseline="oracle", choice="table", **short)
    rows = one.finish().table
    assert len(rows) == 5  # any of them is good enough, so a race would end with the first
    assert {row["tasks"] for row in rows} == {RUN.validation_tasks}


def full_accuracy(learner):
    return quick_accuracy(learner.rig, RUN.validation_tasks, RUN.seed)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("loss", ["kl", "relational", "none"])
def test_every_loss_trains_in_every_order(data, loss, order):  # noqa: F811
    one = make("meta_distillation", data, **{"distillation.loss": loss, "order": order})
    assert all(math.isfinite(one.step()["gradient_norm"]) for _ in range(3))


def test_a_teacher_that_does_not_fit_is_said_before_training():
    with pytest.raises(ValueError, match=r"8x8 px are too small.* use another teacher"):
        MetaDistillation.cheap({"teacher.kind": "resnet12"}, channels=1, size=8, ways=5)


def test_a_fixed_teacher_has_something_to_say(data):  # noqa: F811
    with pytest.raises(ConfigError, match=r"distillation\.loss must be kl or relational"):
        make("meta_distillation", data, baseline="fixed_teacher", **{"distillation.loss": "none"})
    with pytest.raises(ConfigError, match=r"teacher\.pretrain must be above 0"):
        make("meta_distillation", data, baseline="fixed_teacher", **{"teacher.pretrain": 0.0})
    one = make("meta_distillation", data, baseline="fixed_teacher")
    one.step()
    assert one.teacher.outer.rate < 0.1 * one.config.outer_rate  # its cosine is over


def test_a_loss_that_is_no_number_stops_before_it_harms(data):  # noqa: F811
    one = make("maml", data)
    before = {n: p.detach().clone() for n, p in one.rig.meta.items()}
    loss = sum(p.sum() for p in one.rig.meta.values()) * torch.nan
    grads = one.outer.gradients(loss)
    with pytest.raises(DivergedError, match="loss is no finite number at meta-step 1"):
        one.outer.step(loss.item(), grads)
    assert all(torch.equal(p, before[n]) for n, p in one.rig.meta.items())


def test_the_head_start_is_the_teachers_alone(data):  # noqa: F811
    one = make("meta_distillation", data, **{"teacher.pretrain": 0.5})
    assert one.ahead == 3
    one.step()
    assert one.ahead == 0
    assert one.outer.state_dict()["done"] == 1
    assert one.teacher.outer.state_dict()["done"] == 4


def test_a_given_model_is_adapted_and_not_trained(data, tmp_path):  # noqa: F811
    trained = make("maml", data)
    trained.step()
    trained.finish().student.save(tmp_path)
    one = make("lambda_adaptation", data, checkpoint=str(tmp_path))
    one.step()
    for name, p in trained.rig.meta.items():
        assert torch.equal(p.detach(), one.rig.meta[name])
    assert one.step() == one.step()
    same = trained.finish().metrics["accuracy_full"]
    assert one.finish().metrics["accuracy_full"] == same
    cheap = LambdaAdaptation.cheap({"checkpoint": str(tmp_path)}, channels=1, size=12, ways=3)
    assert cheap["student_params"] == trained.rig.network.parameters()


def test_a_given_model_keeps_its_own_way_of_adapting(data, tmp_path):  # noqa: F811
    own = {"views": 1, "normalisation": "transductive", "inner_rate": 0.3}
    make("maml", data, **own).finish().student.save(tmp_path)
    kept = make("lambda_adaptation", data, checkpoint=str(tmp_path)).rig.setting
    assert (kept.views, kept.inductive, kept.rate) == (1, False, 0.3)
    told = make("lambda_adaptation", data, checkpoint=str(tmp_path), views=0).rig.setting
    assert (told.views, told.rate) == (0, 0.3)


def test_a_checkpoint_that_is_none_is_named(data, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match=r"model\.safetensors and pattern\.json in one folder"):
        make("lambda_adaptation", data, checkpoint=str(tmp_path))


def test_a_given_model_for_other_images_is_said_before_training(data, tmp_path):  # noqa: F811
    make("maml", data).finish().student.save(tmp_path)
    given, said = {"checkpoint": str(tmp_path)}, "reads 1-channel images of 12 px, and the data are"
    with pytest.raises(ConfigError, match=f"{said} 3-channel images of 12 px; set data.channels"):
        LambdaAdaptation.cheap(given, channels=3, size=12, ways=3)
    larger = SimpleNamespace(**{**vars(data), "size": 24})
    with pytest.raises(ConfigError, match=f"{said} 1-channel images of 24 px"):
        make("lambda_adaptation", larger, **given)


@pytest.mark.parametrize("baseline", ["tsmd", "student", "fixed_teacher", "oracle"])
def test_what_a_baseline_reports_and_goes_on_from(data, baseline):  # noqa: F811
    one = make("meta_distillation", data, baseline=baseline)
    one.step()
    taught, guided = baseline != "student", baseline in ("tsmd", "fixed_teacher")
    assert ("teacher_accuracy" in one.validate()) == taught
    metrics = one.finish().metrics
    assert (("teacher_accuracy" in metrics), ("guided_accuracy" in metrics)) == (taught, guided)
    two = make("meta_distillation", data, baseline=baseline)
    two.load_state_dict(one.state_dict())
    assert [two.step() for _ in range(2)] == [one.step() for _ in range(2)]


def test_steps_hold_the_tasks_own_classifier(data):  # noqa: F811
    one = make("maml", data)
    episodes = one.rig.sized(one.rig.episodes())
    run = adapt(
        one.rig.network,
        one.rig.meta,
        episodes.support,
        episodes.support_labels,
        one.rig.setting.rule("001"),
    )
    assert set(run.steps[-1]) == {HEAD_W, HEAD_B}
    assert run.steps[-1][HEAD_W].shape[:2] == (2, SHAPE.ways)


def test_what_the_teacher_said_while_learning_is_what_it_says_when_asked(data):  # noqa: F811
    one = make("meta_distillation", data, **{"teacher.width": 6, "distillation.outer": 1.0})
    episodes = one.rig.episodes()
    one.guide.rig.chunks.size = 1
    adviser, _ = teacher_step(one.guide, episodes)
    assert len(adviser.runs) == 2
    asked = adviser.words(episodes.query).logits
    torch.testing.assert_close(adviser.on_query(episodes), asked)
    assert adviser.query_logits is not None
    heard = adviser.support
    assert heard is not None
    assert adviser.on_support(episodes, 0) is heard
    assert not heard.logits.requires_grad
    assert not heard.features.requires_grad
    again = adviser.words(episodes.support)
    torch.testing.assert_close(heard.logits, again.logits)
    torch.testing.assert_close(heard.features, again.features)
    assert len(adviser.on_support(episodes, 1).logits[0]) == 2 * len(heard.logits[0])
    plain = make("meta_distillation", data, **{"teacher.width": 6, "normalisation": "transductive"})
    unmeasured, _ = teacher_step(plain.guide, episodes)
    assert unmeasured.support is None
    assert unmeasured.on_support(episodes, 0).logits.shape == heard.logits.shape
    fixed = adapted_teacher(one.guide, episodes)
    assert fixed.query_logits is None
    assert fixed.on_query(episodes).shape == asked.shape


def test_products_are_rounded_in_meta_training_alone(data):  # noqa: F811
    before = torch.get_float32_matmul_precision()
    ends = {}
    for precision in ("highest", "medium"):
        one = make("maml", data, precision=precision, order="first", **{"student.width": 16})
        one.step()
        assert torch.get_float32_matmul_precision() == before
        ends[precision] = one.rig.meta["conv2.conv.weight"].detach().clone()
    torch.testing.assert_close(ends["medium"], ends["highest"], rtol=0, atol=5e-3)
    if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert not torch.equal(ends["medium"], ends["highest"])
