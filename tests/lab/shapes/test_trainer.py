import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from predictor.lab.shapes.checkpoint import Tensors
from predictor.lab.shapes.trainer import Budget, Trainer, rate_factor

RATE = 0.02
STEPS = 40


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))


def new_trainer(model: nn.Module, steps: int = STEPS) -> Trainer:
    return Trainer(dict(model.named_parameters()), RATE, Budget(None, steps))


def advance(trainer: Trainer, model: nn.Module, steps: int) -> list[float]:
    """Fit a sum of four inputs; the batch follows from the step, as in the real stages."""
    losses = []
    for _ in range(steps):
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(trainer.steps))

        def loss(batch: torch.Tensor) -> torch.Tensor:
            error: torch.Tensor = model(batch) - batch.sum(1, keepdim=True)
            return error.square().mean()

        losses.append(float(trainer.update(loss, inputs)))
    return losses


def copied(parts: dict[str, Tensors]) -> dict[str, Tensors]:
    return {part: {name: t.detach().clone() for name, t in tensors.items()} for part, tensors in parts.items()}


def test_it_learns() -> None:
    model = network()
    losses = advance(new_trainer(model), model, STEPS)
    assert losses[-1] < losses[0] / 4


def test_a_resumed_run_goes_on_as_an_unbroken_one() -> None:
    model = network()
    unbroken = new_trainer(model)
    advance(unbroken, model, STEPS // 2)
    facts, parts = unbroken.state()
    parts = copied(parts)
    first = network()
    resumed = new_trainer(first)
    resumed.restore(facts, parts)
    assert resumed.steps == STEPS // 2
    assert resumed.seconds == facts["seconds"]
    expected, losses = (advance(t, m, STEPS // 2) for t, m in ((unbroken, model), (resumed, first)))
    # All the difference is the rounding of Adam's moments to bfloat16, 8 bits.
    assert losses == pytest.approx(expected, rel=2e-2)
    for name, tensor in unbroken.parameters.items():
        torch.testing.assert_close(resumed.parameters[name], tensor, atol=RATE / 10, rtol=0)
        torch.testing.assert_close(resumed.average[name], unbroken.average[name], atol=RATE / 10, rtol=0)
    # Without the moments, the same run would be elsewhere.
    other = network()
    forgetful = new_trainer(other)
    forgetful.restore(facts, {**parts, "moments": {}})
    assert advance(forgetful, other, STEPS // 2) != pytest.approx(expected, rel=2e-2)


def test_moments_are_kept_in_half_the_bytes() -> None:
    model = network()
    trainer = new_trainer(model)
    advance(trainer, model, 3)
    _, parts = trainer.state()
    assert {tensor.dtype for tensor in parts["moments"].values()} == {torch.bfloat16}
    assert len(parts["moments"]) == 2 * len(parts["weights"])


def test_the_schedule_ends_at_its_budget() -> None:
    model = network()
    trainer = new_trainer(model, steps=10)
    advance(trainer, model, 9)
    assert not trainer.done
    advance(trainer, model, 1)
    assert trainer.done


@given(st.floats(0, 1))
def test_rates_stay_between_nothing_and_all(share: float) -> None:
    assert 0 < rate_factor(share) <= 1


def test_rates_rise_then_fall_to_two_percent() -> None:
    shares = [n / 1000 for n in range(1001)]
    rates = [rate_factor(share) for share in shares]
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(1, abs=0.02)
    assert shares[top] == pytest.approx(0.03, abs=0.002)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0.02)


@given(st.floats(0, 1e6), st.integers(0, 10**6))
def test_a_budget_is_spent_by_its_own_measure(seconds: float, steps: int) -> None:
    assert Budget(None, 1000).share(seconds, steps) == min(1.0, steps / 1000)
    assert Budget(1000.0, None).share(seconds, steps) == min(1.0, seconds / 1000)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="seconds or steps"):
        Budget(None, None).share(0, 0)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_do_not_poison_the_weights(poison: float) -> None:
    model = network()
    trainer = new_trainer(model)
    advance(trainer, model, 10)
    trainer.update(lambda batch: model(batch).sum() * poison, torch.ones(8, 4))
    assert all(tensor.isfinite().all() for tensor in trainer.parameters.values())
    assert all(tensor.isfinite().all() for tensor in trainer.average.values())
    losses = advance(trainer, model, 20)
    assert losses[-1] < losses[0]


def test_the_average_lags_behind_the_weights() -> None:
    model = network()
    trainer = new_trainer(model)
    first = {name: tensor.detach().clone() for name, tensor in trainer.parameters.items()}
    advance(trainer, model, 20)
    moved = sum(float((trainer.parameters[name] - tensor).detach().square().sum()) for name, tensor in first.items())
    lagged = sum(float((trainer.average[name] - tensor).square().sum()) for name, tensor in first.items())
    assert 0 < lagged < moved
