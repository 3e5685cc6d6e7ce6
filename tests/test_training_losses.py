"""Laws of what a training minimises and how weights follow: losses, learning rates, optimisers, averages."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from slidebatch.errors import ConfigError
from slidebatch.training.losses import loss_of
from slidebatch.training.optimise import average, optimiser, rate
from slidebatch.training.spec import LossSpec, OptimiserSpec, ScheduleSpec

# Losses


def answers(seed: int = 0, classes: int = 3):
    """Random logits (2, K, 5, 6), classes and weights, some of these 0."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (2, classes, 5, 6)).astype(np.float32)
    return logits, rng.integers(0, classes, (2, 5, 6)), rng.choice([0.0, 1.0, 4.0], (2, 5, 6)).astype(np.float32)


def loss(parts, spec: LossSpec) -> float:
    return float(loss_of(*(torch.from_numpy(p) for p in parts), spec))


def slow_loss(parts, spec: LossSpec) -> float:
    """The loss pixel by pixel, as LossSpec says it."""
    logits, classes, weights = parts
    entropy, shared, sums = 0.0, [0.0] * logits.shape[1], [0.0] * logits.shape[1]
    for n, y, x in np.ndindex(classes.shape):
        chance = np.exp(logits[n, :, y, x].astype(float))
        chance /= chance.sum()
        own, weight = int(classes[n, y, x]), float(weights[n, y, x])
        entropy -= weight * spec.class_weights[own] * math.log(chance[own])
        for k in range(logits.shape[1]):
            shared[k] += chance[k] * (own == k) * (weight > 0)
            sums[k] += (chance[k] + (own == k)) * (weight > 0)
    dice = np.mean([(2 * s + 1) / (t + 1) for s, t in zip(shared[1:], sums[1:], strict=True)])
    return spec.entropy * entropy / classes.size + spec.dice * (1 - dice)


@pytest.mark.parametrize("classes", [3, 4])
@pytest.mark.parametrize(("entropy", "dice"), [(1, 0), (0, 1), (0.3, 2)])
def test_the_loss_is_what_its_settings_say(entropy, dice, classes):
    """Weighted cross-entropy, Dice and their sum are those of a loop over pixels."""
    spec = LossSpec(entropy=entropy, dice=dice, class_weights=(0.5, 1.0, 2.0, 3.0)[:classes])
    for seed in range(5):
        parts = answers(seed, classes)
        assert loss(parts, spec) == pytest.approx(slow_loss(parts, spec), rel=1e-4)


@pytest.mark.parametrize(("entropy", "dice"), [(1, 0), (0, 1)])
def test_pixels_that_do_not_count_change_nothing(entropy, dice):
    """What a network answers, and what is asked, where weights are 0 matters neither to the loss nor to its slope."""
    spec = LossSpec(entropy=entropy, dice=dice)
    logits, classes, weights = answers()
    ignored = weights == 0
    others = np.where(ignored[:, None], np.float32(5) - logits, logits), np.where(ignored, 2 - classes, classes)
    assert loss((*others, weights), spec) == pytest.approx(loss((logits, classes, weights), spec), rel=1e-6)
    followed = torch.from_numpy(logits).requires_grad_()
    loss_of(followed, torch.from_numpy(classes), torch.from_numpy(weights), spec).backward()
    assert followed.grad is not None
    steepness = followed.grad.abs().sum(1).numpy()
    assert (steepness[ignored] == 0).all()
    assert (steepness[~ignored] > 0).any()


def test_a_perfect_answer_costs_nothing():
    """Certain and right everywhere, the loss is nearly 0; certain and wrong, it is large."""
    _, classes, weights = answers()
    logits = 30 * np.eye(3, dtype=np.float32)[classes].transpose(0, 3, 1, 2)
    assert loss((logits, classes, weights), LossSpec()) < 1e-5
    assert loss((-logits, classes, weights), LossSpec()) > 5


def test_class_weights_must_be_as_many_as_classes():
    """Another number of class weights than classes is refused, with both numbers."""
    with pytest.raises(ConfigError, match=r"loss\.class_weights has 3 weights and the network 4 classes"):
        loss(answers(classes=4), LossSpec())


def test_a_loss_of_nothing_is_refused():
    """Settings in which neither part counts are no loss."""
    with pytest.raises(ValueError, match="one must count"):
        LossSpec(entropy=0, dice=0)


# Learning rates

SCHEDULES = st.builds(
    ScheduleSpec,
    name=st.sampled_from(["cosine", "constant", "steps", "plateau"]),
    warmup=st.floats(0, 0.9),
    milestones=st.lists(st.floats(0, 1), max_size=3).map(tuple),
    factor=st.floats(0.05, 0.9),
)


@hypothesis_settings(max_examples=200, deadline=None)
@given(SCHEDULES, st.integers(1, 400))
def test_rates_rise_to_the_peak_and_never_again(spec, total):
    """In the warm-up the rate rises evenly to at most its peak, and from then on it never rises; it is never 0."""
    rates = np.array([rate(k, total, spec) for k in range(total)])
    warm = math.ceil(spec.warmup * total)
    assert (rates > 0).all()
    assert (rates <= 1).all()
    assert (np.diff(rates[:warm]) > 0).all()
    assert (np.diff(rates[warm:]) <= 0).all()
    np.testing.assert_allclose(np.diff(rates[: max(warm - 1, 0)]), 1 / (spec.warmup * total) if warm > 2 else 0)


@pytest.mark.parametrize("total", [10, 100, 1000])
def test_schedules_end_where_they_should(total):
    """cosine: the peak, half of it half-way, nearly nothing at the end; the others by their factors."""
    half = total // 2
    cosine, constant = (ScheduleSpec(name=n, warmup=0) for n in ("cosine", "constant"))
    assert rate(0, total, cosine) == 1
    assert rate(half, total, cosine) == pytest.approx(0.5)
    assert rate(total - 1, total, cosine) < (3 / total) ** 2
    assert {rate(k, total, constant) for k in range(total)} == {1.0}
    steps = ScheduleSpec(name="steps", warmup=0, milestones=(0.5, 0.8), factor=0.2)
    parts = [steps_at for steps_at in (rate(k, total, steps) for k in range(total))]
    assert parts == pytest.approx([1.0] * half + [0.2] * (total * 3 // 10) + [0.04] * (total // 5))
    plateau = ScheduleSpec(name="plateau", warmup=0, factor=0.5)
    assert [rate(half, total, plateau, falls) for falls in range(3)] == [1, 0.5, 0.25]


def test_the_warm_up_ends_at_the_peak():
    """With a tenth of warm-up of 100 steps the tenth step has the peak for the first time."""
    spec = ScheduleSpec(warmup=0.1)
    rates = [rate(k, 100, spec) for k in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert max(rates) == rates[10] == 1


# Optimisers and averages

OPTIMISERS = {
    "adam": lambda p, s: torch.optim.Adam(p, lr=0.1, weight_decay=s.weight_decay),
    "adamw": lambda p, s: torch.optim.AdamW(p, lr=0.1, weight_decay=s.weight_decay),
    "sgd": lambda p, s: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True, weight_decay=s.weight_decay),
    "sgd without momentum": lambda p, s: torch.optim.SGD(p, lr=0.1, weight_decay=s.weight_decay),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_are_the_ones_named(name):
    """Each optimiser takes the steps of torch's own with the same settings."""
    momentum = 0.8 if name == "sgd" else 0.0
    spec = OptimiserSpec(name=name.split()[0], learning_rate=0.1, momentum=momentum, weight_decay=0.05)
    one = nn.Linear(3, 2)
    other = copy.deepcopy(one)
    inputs = torch.randn(4, 3)
    for network, steps in ((one, optimiser(one, spec)), (other, OPTIMISERS[name](other.parameters(), spec))):
        for _ in range(4):
            steps.zero_grad()
            network(inputs).square().sum().backward()
            steps.step()
    assert torch.equal(one.weight, other.weight)


def test_averages_follow_the_weights():
    """Averaged weights are those of the recurrence, quick at first; running sums follow, counters are copied."""
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    mean = copy.deepcopy(network)
    expected = {k: v.double().numpy().copy() for k, v in mean.state_dict().items()}
    for step in range(30):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.add_(torch.ones_like(tensor) if tensor.dtype == torch.int64 else torch.randn_like(tensor))
        average(mean, network, step, 0.6)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            new = tensor.double().numpy()
            counter = not tensor.is_floating_point()
            expected[name] = new.copy() if counter else decay * expected[name] + (1 - decay) * new
        for name, tensor in mean.state_dict().items():
            np.testing.assert_allclose(tensor.double().numpy(), expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_without_decay_the_average_is_the_network():
    """With `ema: 0` the last weights are kept."""
    network, mean = nn.Linear(3, 2), nn.Linear(3, 2)
    average(mean, network, 1000, 0.0)
    torch.testing.assert_close(mean.weight, network.weight)
