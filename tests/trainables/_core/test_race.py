"""The race against the complete table it imitates: closed forms, agreement, reuse."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainables._core import evaluate
from trainables._core.ending import CHUNK, allowed, at_size, macs, scored_tasks
from trainables._core.episodes import Sampler, TaskShape
from trainables._core.evaluate import Setting
from trainables._core.networks import conv4
from trainables._core.patterns import Score, choose
from trainables._core.race import LEAST, Scored, Terms, complete, race, verdict

N, M = 300, 75  # tasks, query images of each
FULL = ("11", 3)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


class Played(Scored):
    """Accuracies that are known beforehand, and a note of every one that was asked for."""

    def __init__(self, accuracies, chunk=25):
        self.asked: list[tuple[int, tuple[str, int]]] = []
        total = len(next(iter(accuracies.values())))
        sizes = [len(part) for part in torch.arange(total).split(chunk)]

        def score(number, wanted):
            keys = [(p, t) for p, steps in wanted.items() for t in steps]
            self.asked += [(number, key) for key in keys]
            return {key: accuracies[key].split(chunk)[number] for key in keys}

        super().__init__(score, sizes, accuracies)


def flat(accuracy, spread=0.02, total=N, seed=0):
    """Accuracies around ``accuracy``; the same seed gives the same ups and downs."""
    noise = torch.randn(total, generator=torch.Generator().manual_seed(seed))
    return accuracy + spread * (noise - noise.mean())


def in_order(accuracies):
    """Costs that rise along the table."""
    return {key: float(i) for i, key in enumerate(accuracies)}


def of_the_table(accuracies, costs, epsilon, reference=FULL):
    rows = [
        Score(p, t, *evaluate.interval(values), 0.0, 0.0, int(costs[p, t]), 0.0, len(values))
        for (p, t), values in accuracies.items()
    ]
    rows = [row for row in rows if row.pattern != reference[0] or row.step <= reference[1]]
    chosen, _ = choose(rows, epsilon, reference=reference[0])
    return chosen.pattern, chosen.step


def test_a_clear_winner_is_known_after_one_chunk():
    accuracies = {("01", 3): flat(0.9), ("10", 3): flat(0.9, seed=1), FULL: flat(0.9)}
    scored = Played(accuracies)
    terms = Terms(FULL, 0.05, M)
    assert race(scored, in_order(accuracies), terms, confirm=False) == ("01", 3)
    assert [scored.tasks(key) for key in accuracies] == [25, 0, 25]
    assert race(scored, in_order(accuracies), terms) == ("01", 3)
    assert [scored.tasks(key) for key in accuracies] == [N, 0, N]


def test_no_look_comes_before_there_are_tasks_enough():
    accuracies = {("01", 3): flat(0.2), FULL: flat(0.9)}
    scored = Played(accuracies, chunk=4)
    assert race(scored, in_order(accuracies), Terms(FULL, 0.01, M), confirm=False) == FULL
    assert scored.tasks(("01", 3)) == LEAST


def test_clear_losers_cost_one_chunk_each_and_the_reference_wins():
    accuracies = {(p, t): flat(0.7, seed=t) for p in ("01", "10") for t in (1, 2, 3)}
    accuracies[FULL] = flat(0.9)
    scored = Played(accuracies)
    assert race(scored, in_order(accuracies), Terms(FULL, 0.01, M)) == FULL
    assert [scored.tasks(key) for key in accuracies] == [25] * 6 + [N]


def test_nothing_dearer_than_the_reference_is_run():
    accuracies = {("01", 3): flat(0.7), FULL: flat(0.9), ("01", 4): flat(0.99), ("10", 1): flat(1)}
    scored = Played(accuracies)
    assert race(scored, in_order(accuracies), Terms(FULL, 0.01, M)) == FULL
    assert [scored.tasks(key) for key in accuracies] == [25, N, 0, 0]


@pytest.mark.parametrize("epsilon", [0.0, 0.01])
def test_where_all_are_equal_the_cheapest_wins(epsilon):
    accuracies = {(p, t): flat(0.9) for p in ("01", "10") for t in (1, 2)} | {FULL: flat(0.9)}
    scored = Played(accuracies)
    assert race(scored, in_order(accuracies), Terms(FULL, epsilon, M)) == ("01", 1)
    assert scored.tasks(("10", 1)) == 0


def test_at_all_tasks_the_last_image_decides():
    full = flat(0.9, spread=0.0)
    swing = torch.tensor([0.02, 0.0]).repeat(N // 2)
    short = swing.clone()
    short[-1] += 2e-4
    for drop, expected in ((swing, ("01", 3)), (short, FULL)):
        accuracies = {("01", 3): full - drop, FULL: full}
        scored = Played(accuracies)
        assert race(scored, in_order(accuracies), Terms(FULL, 0.01, M), confirm=False) == expected
        assert scored.tasks(("01", 3)) == N


def test_what_was_taken_in_too_early_is_caught():
    late = flat(0.9)
    late[50:] -= 0.1
    accuracies = {("01", 3): late, ("10", 3): flat(0.9), FULL: flat(0.9)}
    terms = Terms(FULL, 0.02, M)
    costs = in_order(accuracies)
    assert race(Played(accuracies), costs, terms, confirm=False) == ("01", 3)
    assert (
        race(Played(accuracies), costs, terms) == ("10", 3) == of_the_table(accuracies, costs, 0.02)
    )


def test_at_equal_cost_accuracy_then_fewer_steps():
    accuracies = {
        ("01", 1): flat(0.90),
        ("10", 2): flat(0.91),
        ("10", 1): flat(0.91),
        ("00", 1): flat(0.60),
        FULL: flat(0.9),
    }
    costs = dict.fromkeys(accuracies, 1.0) | {FULL: 2.0}
    scored = Played(accuracies)
    assert race(scored, costs, Terms(FULL, 0.05, M), confirm=False) == ("10", 1)
    assert of_the_table(accuracies, costs, 0.05) == ("10", 1)
    assert scored.tasks(("00", 1)) == 25
    level = dict.fromkeys(accuracies, 1.0)
    assert race(Played(accuracies), level, Terms(FULL, 0.05, M)) == ("10", 1)


def test_the_order_is_the_costs():
    accuracies = {("01", 3): flat(0.9), ("10", 3): flat(0.9), FULL: flat(0.9)}
    milliseconds = {("01", 3): 2.0, ("10", 3): 1.0, FULL: 9.0}
    assert race(Played(accuracies), milliseconds, Terms(FULL, 0.01, M)) == ("10", 3)


def test_what_is_left_of_the_tasks_bounds_what_they_can_change():
    swing = torch.tensor([0.0, 0.1]).repeat(500)
    for total, expected in ((225, True), (1000, None)):
        full = torch.full((total,), 0.9)
        scored = Played({("01", 3): full - swing[:total], FULL: full})
        scored.extend(scored.keys, 7)
        assert verdict(scored, ("01", 3), Terms(FULL, 0.055, M)) is expected


def test_few_tasks_that_agree_by_chance_are_no_certainty():
    accuracies = {("01", 3): flat(0.9, 0.0), FULL: flat(0.9, 0.0)}
    scored = Played(accuracies)
    scored.extend(accuracies, 1)
    assert verdict(scored, ("01", 3), Terms(FULL, 0.002, M)) is None
    assert verdict(scored, ("01", 3), Terms(FULL, 0.05, M)) is True


def binomial(generator, drops, total=N):
    """Paired predictions: an entry repeats the reference's image by image, or makes its own."""
    easy = torch.rand(total, 1, generator=generator) * 0.25 + 0.72
    luck = torch.rand(total, M, generator=generator)
    found = {}
    for key, drop in drops.items():
        own = torch.rand(total, M, generator=generator)
        copied = torch.rand(total, M, generator=generator) < 0.7
        wobble = drop * (1 + 0.5 * torch.randn(total, 1, generator=generator))
        found[key] = (torch.where(copied, luck, own) < easy - wobble).float().mean(1)
    return found | {FULL: (luck < easy).float().mean(1)}


@pytest.mark.parametrize("epsilon", [0.0, 0.005, 0.01, 0.02])
@pytest.mark.parametrize("near", [True, False])
def test_the_race_agrees_with_the_table(epsilon, near):
    generator = torch.Generator().manual_seed(7)
    keys = [(p, t) for p in ("01", "10") for t in (1, 2, 3)]
    agreed, scores, problems = 0, 0, 40
    for _ in range(problems):
        if near:
            drops = epsilon + 0.003 * torch.randn(len(keys), generator=generator)
        else:
            drops = 0.06 * torch.rand(len(keys), generator=generator)
        accuracies = binomial(generator, dict(zip(keys, drops.tolist(), strict=True)))
        costs, scored = in_order(accuracies), Played(accuracies)
        found = race(scored, costs, Terms(FULL, epsilon, M))
        expected = of_the_table(accuracies, costs, epsilon)
        agreed += found == expected
        scores += sum(scored.tasks(key) for key in keys)
        assert verdict(scored, found, Terms(FULL, epsilon, M))  # never beyond epsilon on all tasks
        assert costs[found] >= costs[expected]
    assert agreed >= 0.95 * problems
    assert near or scores < 0.5 * problems * len(keys) * N


@pytest.fixture(scope="module")
def tiny():
    """A network, its tasks and the whole table, scored without a race."""
    rng = np.random.default_rng(0)
    means = rng.integers(60, 195, (8, 1, 1, 12, 12))
    images = (means + rng.integers(-60, 61, (8, 8, 1, 12, 12))).astype(np.uint8)
    split = SimpleNamespace(
        images=images.reshape(-1, 1, 12, 12), starts=np.arange(9) * 8, groups=np.arange(8)
    )
    data = SimpleNamespace(mean=(0.5,), std=(0.25,), channels=1, size=12)
    sampler = Sampler(split, data, TaskShape(4, 1, 3), "cpu")
    network = conv4((1, 12, 12), width=4, depth=3, head="shared", ways=4)
    meta = network.init(torch.Generator().manual_seed(1))
    return sampler, network, meta


def table_of(tiny, setting, tasks):
    sampler, network, meta = tiny
    wanted = {p: list(range(1, setting.steps + 1)) for p in allowed("1111", "all")}
    chunks = at_size(sampler.fixed(5, tasks, CHUNK), 12)
    return evaluate.score(network, meta, chunks, setting, wanted)


@pytest.mark.parametrize(
    ("inductive", "room"),
    [(True, 0), (True, 10_000), (True, evaluate.ROOM), (False, evaluate.ROOM)],
)
def test_the_table_completed_after_a_race_is_the_table(tiny, inductive, room, monkeypatch):
    sampler, network, meta = tiny
    setting = Setting(3, 0.3, 4, views=0, inductive=inductive)
    monkeypatch.setattr(evaluate.Batches.__init__, "__defaults__", (room,))
    scored = scored_tasks(
        network, meta, sampler, setting, seed=5, tasks=60, patterns=allowed("1111", "all")
    )
    costs = macs(network, setting, sampler.shape, scored.keys)
    race(scored, costs, Terms(("1111", 3), 0.02, 12))
    raced = scored.accuracies()
    assert 0 < sum(map(len, raced.values())) < 60 * len(scored.keys)
    direct = table_of(tiny, setting, 60)
    for key, values in raced.items():
        assert torch.equal(values, direct[key][: len(values)])
    whole = complete(scored)
    assert list(whole) == list(direct)
    assert all(torch.equal(whole[key], direct[key]) for key in direct)


def test_nothing_is_scored_twice():
    accuracies = binomial(
        torch.Generator().manual_seed(3), {(p, t): 0.02 for p in ("01", "10") for t in (1, 2, 3)}
    )
    scored, costs = Played(accuracies), in_order(accuracies)
    for epsilon in (0.02, 0.01, 0.0):
        found = race(scored, costs, Terms(FULL, epsilon, M))
        assert verdict(scored, found, Terms(FULL, epsilon, M))
    whole = complete(scored)
    assert all(torch.equal(whole[key], accuracies[key]) for key in accuracies)
    assert len(scored.asked) == len(set(scored.asked)) == len(scored.ends) * len(accuracies)


def test_the_same_tasks_give_the_same_race():
    accuracies = binomial(torch.Generator().manual_seed(5), {("01", t): 0.01 for t in (1, 2, 3)})
    runs = [Played(accuracies) for _ in range(2)]
    found = [race(one, in_order(accuracies), Terms(FULL, 0.01, M)) for one in runs]
    assert found[0] == found[1]
    assert runs[0].asked == runs[1].asked


def test_patterns_that_start_at_one_layer_share_the_pass_below_it(tiny, monkeypatch):
    sampler, network, meta = tiny
    setting = Setting(2, 0.3, 4, views=0, inductive=True)
    lifts = []
    lift = evaluate._lift

    def watched(run, *more):
        lifts.append(run.start)
        return lift(run, *more)

    monkeypatch.setattr(evaluate, "_lift", watched)
    scored = scored_tasks(
        network, meta, sampler, setting, seed=5, tasks=10, patterns=allowed("1111", "all")
    )
    for pattern in ("0001", "0010", "0011", "0010", "0111", "0101"):
        scored.extend([(pattern, 1)], 1)
    assert lifts == [3, 2, 1]
