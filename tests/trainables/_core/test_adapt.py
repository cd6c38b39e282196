"""The engine against a blackboard reference, and against the operations it may not do."""

import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from trainables._core import cost, heads, kernels, layers, networks
from trainables._core.adapt import Rule, adapt
from trainables._core.episodes import channels_last
from trainables._core.heads import HEAD_B, HEAD_W
from trainables._core.networks import conv4, teacher
from trainables._core.patterns import candidates
from trainables._core.reference import adapt_one

HEADS = ("linear", "prototype", "shared")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def tasks_of(count, images, channels, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, images, channels, size, size, generator=generator)


def doubled(params):
    return {name: p.double() for name, p in params.items()}


@settings(max_examples=80, deadline=None)
@given(
    pattern=st.sampled_from(candidates(4)),
    steps=st.integers(0, 4),
    ways=st.integers(2, 4),
    shots=st.integers(1, 2),
    tasks=st.integers(1, 3),
    head=st.sampled_from(HEADS),
    norm=st.sampled_from(["batch", "group"]),
    down=st.sampled_from(["stride", "pool"]),
    seed=st.integers(0, 10**6),
    history=st.booleans(),
)
def test_engine_equals_the_masked_reference(
    pattern, steps, ways, shots, tasks, head, norm, down, seed, history
):
    network = conv4((2, 9, 9), width=4, depth=3, norm=norm, head=head, down=down, ways=ways)
    meta = doubled(network.init(torch.Generator().manual_seed(seed)))
    support = tasks_of(tasks, ways * shots, 2, 9, seed).double()
    labels = torch.arange(ways).repeat_interleave(shots)
    rule = Rule(pattern, steps, 0.3, ways)
    run = adapt(network, meta, channels_last(support), labels, rule, history=history)
    assert len(run.steps) == (steps + 1 if history else 1)
    for task in range(tasks):
        expected = adapt_one(network, meta, channels_last(support[task]), labels, rule)
        for name, value in expected.items():
            got = run.params(-1)[name]
            got = got[task] if name in run.steps[-1] else got
            torch.testing.assert_close(got, value.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pattern", ["11111", "00011", "00001", "10010", "01110"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("by_torch", [False, True])
def test_meta_gradient_equals_the_reference(pattern, head, tasks, by_torch, monkeypatch):
    if by_torch:  # convolutions of what is differentiated once
        monkeypatch.setattr(layers, "ONCE_ROWS", 0)
        monkeypatch.setattr(layers, "ONCE_PATCHES", 0)
    network = conv4((1, 16, 16), width=3, head=head, ways=3)
    labels = torch.arange(3)
    support = tasks_of(tasks, 3, 1, 16).double()
    query = tasks_of(tasks, 4, 1, 16, seed=9).double()
    rule = Rule(pattern, 2, 0.2, 3)

    def leaves():
        start = doubled(network.init(torch.Generator().manual_seed(3)))
        return {n: p.requires_grad_() for n, p in start.items()}

    ours = leaves()
    run = adapt(network, ours, channels_last(support), labels, rule, train=True)
    run.logits(2, channels_last(query), run.statistics(2)).square().sum().backward()

    theirs = leaves()
    total = torch.zeros((), dtype=torch.double)
    for task in range(tasks):
        left = adapt_one(
            network, theirs, channels_last(support[task]), labels, rule, create_graph=True
        )
        both = torch.cat([support[task], query[task]])
        z = inductive_logits(network, left, both, 3)
        total = total + z[3:].square().sum()
    total.backward()
    for name, p in ours.items():
        torch.testing.assert_close(p.grad, theirs[name].grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("pattern", ["0001", "0111"])
def test_a_scale_that_stepped_below_zero_turns_no_prototype_around(pattern, history, tasks):
    """An outer step is as large as the scale; images once were pushed from their own prototypes."""
    network = conv4((3, 16, 16), width=8, depth=3, head="prototype", ways=3)
    meta = doubled(network.init(torch.Generator().manual_seed(1)))
    support = channels_last(tasks_of(tasks, 3, 3, 16)).double()
    rule = Rule(pattern, 3, 0.3, 3)

    def after(scale):
        run = adapt(
            network, meta | {"head.scale": scale}, support, torch.arange(3), rule, history=history
        )
        return run.steps[-1]

    scale = meta["head.scale"]
    for name, value in after(scale).items():
        torch.testing.assert_close(after(-scale)[name], value, rtol=0, atol=0)


def test_what_a_device_adapts_is_gone_with_the_next_task_and_theta_stays():
    """Steps in place must never reach what all tasks share."""
    network = conv4((1, 16, 16), width=4, ways=3)
    meta = network.init(torch.Generator().manual_seed(0))
    before = {n: p.clone() for n, p in meta.items()}
    support = channels_last(tasks_of(1, 3, 1, 16))
    for pattern in candidates(5):
        rule = Rule(pattern, 3, 0.5, 3)
        first = adapt(network, meta, support, torch.arange(3), rule, history=False)
        kept = {n: p.clone() for n, p in first.steps[-1].items()}
        adapt(network, meta, support + 1, torch.arange(3), rule, history=False)
        assert all(torch.equal(p, first.steps[-1][n]) for n, p in kept.items())
    assert all(torch.equal(p, before[n]) for n, p in meta.items())


GRAPHS = {
    "pool": conv4((2, 9, 9), width=3, depth=2, down="pool", ways=3),
    "wide": conv4((2, 9, 9), width=3, depth=2, down="pool", ways=3),
    "group": conv4((2, 9, 9), width=4, depth=2, norm="group", ways=3),
    "resnet12": teacher("resnet12", (1, 16, 16), width=2, ways=3),
    "resnet18": teacher("resnet18", (1, 8, 8), width=2, norm="group", ways=3),
}


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("end", ["11", "10"])
@pytest.mark.parametrize("tasks", [1, 2])
def test_meta_gradient_goes_through_every_kind_of_layer(kind, end, tasks, monkeypatch):
    if kind == "wide":
        monkeypatch.setattr(layers, "MANY_ROWS", 50)
        monkeypatch.setattr(layers, "MANY_PATCHES", 100)
        monkeypatch.setattr(layers, "ONCE_ROWS", 0)
        monkeypatch.setattr(layers, "ONCE_PATCHES", 0)
    network = GRAPHS[kind]
    channels, size, _ = network.into
    support = channels_last(tasks_of(tasks, 6, channels, size)).double()
    query = channels_last(tasks_of(tasks, 4, channels, size, seed=9)).double()
    labels = torch.arange(3).repeat(2)
    rule = Rule(end.rjust(len(network.layers), "0"), 2, 0.05, 3)

    def leaves():
        start = doubled(network.init(torch.Generator().manual_seed(3)))
        return {n: p.requires_grad_() for n, p in start.items()}

    ours, theirs = leaves(), leaves()
    run = adapt(network, ours, support, labels, rule, train=True)
    found = torch.autograd.grad(run.logits(-1, query, None).square().sum(), list(ours.values()))
    total = torch.zeros((), dtype=torch.double)
    for task in range(tasks):
        left = adapt_one(network, theirs, support[task], labels, rule, create_graph=True)
        features = network.features(network.run(left, query[task : task + 1]))[0]
        total = total + (features @ left[HEAD_W].T + left[HEAD_B]).square().sum()
    for ours_g, theirs_g in zip(
        found, torch.autograd.grad(total, list(theirs.values())), strict=True
    ):
        torch.testing.assert_close(ours_g, theirs_g, rtol=1e-6, atol=1e-8)


def inductive_logits(network, params, images, support):
    """Logits with each norm's statistics taken from the first ``support`` images, by hand."""
    x = images
    for layer in network.body:
        weight = params[f"{layer.name}.conv.weight"].permute(3, 2, 0, 1)
        x = torch.nn.functional.conv2d(x, weight, stride=2, padding=1)
        mean = x[:support].mean((0, 2, 3), keepdim=True)
        var = x[:support].var((0, 2, 3), unbiased=False, keepdim=True)
        gain = params[f"{layer.name}.conv.gain"].view(1, -1, 1, 1)
        bias = params[f"{layer.name}.conv.bias"].view(1, -1, 1, 1)
        x = torch.relu((x - mean) / (var + 1e-5).sqrt() * gain + bias)
    return x.permute(0, 2, 3, 1).flatten(1) @ params[HEAD_W].T + params[HEAD_B]


def test_first_order_drops_the_graph_of_the_inner_gradients():
    network = conv4((1, 8, 8), width=2, depth=2, head="linear", ways=2)
    support, labels = channels_last(tasks_of(1, 2, 1, 8)), torch.arange(2)
    grads = {}
    for second in (True, False):
        start = network.init(torch.Generator().manual_seed(0))
        meta = {n: p.requires_grad_() for n, p in start.items()}
        run = adapt(
            network, meta, support, labels, Rule("111", 2, 0.5, 2), train=True, second_order=second
        )
        torch.stack([v.square().sum() for v in run.params(2).values()]).sum().backward()
        gradient = meta["conv1.conv.weight"].grad
        assert gradient is not None
        grads[second] = gradient
        if not second:  # FOMAML: the gradient is the one at the adapted weights, passed straight on
            expected = 2 * run.params(2)["conv1.conv.weight"].detach()[0]
            torch.testing.assert_close(grads[second], expected)
    assert not torch.allclose(grads[True], grads[False])


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("pattern", ["111", "011", "001", "110"])
@pytest.mark.parametrize("head", HEADS)
def test_first_order_moves_the_start_by_constants(head, pattern, tasks):
    """FOMAML: theta' = start(theta) + what the steps added, and that hangs on nothing."""
    network = conv4((1, 8, 8), width=3, depth=2, head=head, ways=2)
    fresh = network.init(torch.Generator().manual_seed(3))
    support = channels_last(tasks_of(tasks, 4, 1, 8)).double()
    query = channels_last(tasks_of(tasks, 3, 1, 8, seed=9)).double()
    labels = torch.tensor([0, 1, 0, 1])
    found = []
    for by_hand in (False, True):
        meta = {n: p.double().requires_grad_() for n, p in fresh.items()}
        steps = 0 if by_hand else 3
        rule = Rule(pattern, steps, 0.3, 2)
        run = adapt(network, meta, support, labels, rule, train=True, second_order=by_hand)
        if by_hand:
            plain = adapt(network, meta, support, labels, Rule(pattern, 3, 0.3, 2)).steps
            start = run.steps[0]
            run.steps = [{n: p + (plain[3][n] - plain[0][n]).detach() for n, p in start.items()}]
        z = run.logits(-1, query, run.statistics(-1))
        found.append(torch.autograd.grad(z.square().sum(), list(meta.values())))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("pattern", ["11111", "01111", "00111", "00011", "10010", "11110", "00001"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("head", "norm"), [("linear", "batch"), ("prototype", "group")])
@pytest.mark.parametrize("inductive", [False, True])
def test_operations_done_are_the_operations_counted(pattern, steps, head, norm, inductive):
    """Counts convolutions and matrix products as torch runs them: 2 flops a multiply-accumulate.

    A layer that is not updated gets no weight gradient, nothing is propagated below the lowest
    updated layer and the frozen prefix runs once: any of it would show in the count.
    """
    network = conv4((1, 16, 16), width=4, head=head, norm=norm, ways=3)
    meta = network.init(torch.Generator().manual_seed(0))
    support = channels_last(tasks_of(1, 6, 1, 16))
    labels = torch.arange(3).repeat_interleave(2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run = adapt(network, meta, support, labels, Rule(pattern, steps, 0.1, 3))
        run.params(steps)
        if inductive:
            run.statistics(steps)
    counted = cost.adapt_macs(network, pattern, steps=steps, ways=3, images=6, inductive=inductive)
    squares = 3 * network.head.features if head == "prototype" else 0  # |mu_c|^2 is no product
    assert counter.get_total_flops() == 2 * (counted - squares)


@pytest.mark.parametrize(("shots", "per_step"), [(1, 3 * 3 * 3), (2, 6 * 4 * 3 * 2)])
def test_head_alone_moves_logits_not_weights(shots, per_step):
    """Through the Gram matrix of 3 images, or through 4 features where there are 6 images."""
    network = conv4((1, 16, 16), width=4, head="linear", ways=3)
    meta = network.init(torch.Generator().manual_seed(0))
    support = channels_last(tasks_of(1, 3 * shots, 1, 16))
    labels = torch.arange(3).repeat_interleave(shots)
    seen = []
    for steps in (2, 7):
        with FlopCounterMode(display=False) as counter:
            _ = adapt(network, meta, support, labels, Rule("00001", steps, 0.1, 3)).steps[-1]
        seen.append(counter.get_total_flops() // 2)
        prefix = 3 * shots * sum(layer.macs() for layer in network.body)
        head = cost.head_macs(4, steps=steps, ways=3, images=3 * shots)
        assert seen[-1] == prefix + head
    assert seen[1] - seen[0] == 5 * per_step


def test_no_graph_survives_an_adaptation():
    network = conv4((1, 8, 8), width=2, depth=2, ways=2)
    meta = {n: p.requires_grad_() for n, p in network.init(torch.Generator()).items()}
    run = adapt(
        network, meta, channels_last(tasks_of(2, 2, 1, 8)), torch.arange(2), Rule("011", 2, 0.1, 2)
    )
    assert not run.prefix.requires_grad
    assert not any(p.requires_grad for step in run.steps[1:] for p in step.values())
    assert meta["conv1.conv.weight"].grad is None


@pytest.mark.parametrize("kind", ["resnet12", "resnet18", "resnet50"])
def test_resnets_adapt_by_stage(kind):
    network = teacher(kind, (3, 28, 28), width=4, ways=3)
    meta = network.init(torch.Generator().manual_seed(0))
    pattern = "0" * (len(network.layers) - 2) + "11"
    support = channels_last(tasks_of(2, 3, 3, 28))
    run = adapt(network, meta, support, torch.arange(3), Rule(pattern, 2, 0.01, 3))
    moved = {n for n in run.steps[2] if n not in (HEAD_W, HEAD_B)}
    assert moved == set(network.body[-1].names)
    one = adapt_one(network, meta, support[1], torch.arange(3), Rule(pattern, 2, 0.01, 3))
    for name in moved:
        torch.testing.assert_close(run.steps[2][name][1], one[name].detach(), rtol=1e-3, atol=1e-5)


def test_inductive_predictions_do_not_depend_on_the_other_query_images():
    network = conv4((1, 16, 16), width=4, ways=3)
    meta = network.init(torch.Generator().manual_seed(0))
    run = adapt(
        network,
        meta,
        channels_last(tasks_of(1, 3, 1, 16)),
        torch.arange(3),
        Rule("00111", 3, 0.1, 3),
    )
    query = tasks_of(1, 6, 1, 16, seed=4)
    together = run.logits(3, channels_last(query), run.statistics(3))[0]
    alone = torch.stack(
        [
            run.logits(3, channels_last(query[:, i : i + 1]), run.statistics(3))[0, 0]
            for i in range(6)
        ]
    )
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    batch = run.logits(3, channels_last(query), None)[0]
    assert not torch.allclose(together, batch, atol=1e-3)


@pytest.mark.parametrize("pattern", ["11111", "00111", "00001"])
def test_a_task_alone_says_the_same_with_and_without_a_graph(pattern):
    """Its statistics are measured by other calls, and come in another shape."""
    network = conv4((1, 16, 16), width=4, ways=3)
    meta = doubled(network.init(torch.Generator().manual_seed(0)))
    support, query = (
        channels_last(tasks_of(1, images, 1, 16, seed=images)).double() for images in (3, 6)
    )
    run = adapt(network, meta, support, torch.arange(3), Rule(pattern, 3, 0.1, 3))
    with torch.no_grad():
        plain = run.logits(3, query, run.statistics(3))
    torch.testing.assert_close(run.logits(3, query, run.statistics(3)), plain)


def test_what_a_device_looked_up_can_be_trained_with():
    """Lists and labels are kept; whoever asks first may be in torch's inference mode."""
    kernels.forget()
    heads._labels.cache_clear()
    network = conv4((1, 16, 16), width=4, ways=2)
    meta = {
        n: p.requires_grad_() for n, p in network.init(torch.Generator().manual_seed(0)).items()
    }
    labels, rule = torch.tensor([0, 1, 0, 1]), Rule("00111", 2, 0.1, 2)
    support = channels_last(tasks_of(1, 4, 1, 16))
    with torch.no_grad():
        adapt(network, meta, support, labels, rule, history=False)
        adapt(network, meta, support, labels, replace(rule, pattern="00001"), history=False)
    run = adapt(network, meta, support, labels, rule, train=True)
    loss = run.logits(-1, support, run.statistics(-1)).square().sum()
    grads = torch.autograd.grad(loss, list(meta.values()), materialize_grads=True)
    assert sum(bool(g.abs().sum() > 0) for g in grads) > 8


def test_a_network_that_has_run_travels_and_holds_few_shapes():
    network = conv4((1, 16, 16), width=4, ways=3)
    meta = network.init(torch.Generator().manual_seed(0))
    support = channels_last(tasks_of(1, 3, 1, 16))
    with torch.no_grad():
        before = network.run(meta, support)
        for images in range(1, networks.KNOWN_LANES + 3):
            network.lanes(slice(None), images, images, support.device)
        assert len(network._known_lanes) <= networks.KNOWN_LANES
        again = pickle.loads(pickle.dumps(network))  # noqa: S301 - made here
        assert again == network
        assert torch.equal(again.run(meta, support), before)


def test_query_maps_at_the_prefix_give_the_same_predictions():
    network = conv4((1, 16, 16), width=4, ways=3)
    meta = network.init(torch.Generator().manual_seed(0))
    run = adapt(
        network,
        meta,
        channels_last(tasks_of(2, 3, 1, 16)),
        torch.arange(3),
        Rule("00011", 2, 0.1, 3),
    )
    query = channels_last(tasks_of(2, 5, 1, 16, seed=4))
    stats = run.statistics(2)
    lifted = network.run(meta, query, stats.replayed(), slice(3))
    torch.testing.assert_close(
        run.logits(2, lifted, stats, from_prefix=True), run.logits(2, query, stats)
    )


@pytest.mark.parametrize("pattern", ["", "00000", "0111", "01112"])
def test_a_pattern_that_does_not_fit_is_named(pattern):
    network = conv4((1, 16, 16), width=2, ways=2)
    with pytest.raises(ValueError, match="one for each of conv1, conv2, conv3, conv4, head"):
        adapt(network, {}, torch.zeros(1, 2, 16, 16, 1), torch.arange(2), Rule(pattern, 1, 0.1, 2))


def test_a_linear_head_refuses_another_number_of_classes():
    network = conv4((1, 16, 16), width=2, head="linear", ways=5)
    meta = network.init(torch.Generator())
    support = channels_last(tasks_of(1, 3, 1, 16))
    with pytest.raises(ValueError, match="trained for 5 classes, and the task has 3"):
        adapt(network, meta, support, torch.arange(3), Rule("00001", 1, 0.1, 3))
