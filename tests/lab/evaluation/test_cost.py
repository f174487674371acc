"""What a sample costs: the counts against hand counts, the meters against work whose size is known."""

import dataclasses
import json
import sys
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from survey_lib.lab.evaluation.cost import CountCalls, Ratio, macs, measure, ratio


def test_count_calls_counts_evaluations_and_examples_and_changes_nothing():
    count = CountCalls(lambda x_t, t, cond=None: x_t * t + cond)
    x, t = torch.ones(4, 2), torch.tensor(0.5)
    assert torch.equal(count(x, t, 2.0), torch.full((4, 2), 2.5))
    count(torch.ones(8, 2), t, cond=0.0)
    assert (count.calls, count.examples) == (2, 12)
    count.reset()
    assert (count.calls, count.examples) == (0, 0)


def test_count_calls_sees_a_doubled_batch_as_twice_the_examples():
    count = CountCalls(lambda x_t, t, cond=None: x_t)

    def guided(x_t, t):  # as classifier-free guidance does: both predictions in one call
        with_label, without = count(torch.cat([x_t, x_t]), t).chunk(2)
        return with_label + 2 * (with_label - without)

    guided(torch.ones(3, 1), torch.tensor(1.0))
    assert (count.calls, count.examples) == (1, 6)


@pytest.mark.parametrize("batches", [(3,), (1, 4)])
def test_count_calls_knows_the_macs_of_all_examples_and_of_gradients(batches):
    network = nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 2)).requires_grad_(False)
    count, forward, examples = CountCalls(network), 8 * 5 + 5 * 2, sum(batches)
    for size in batches:
        count(torch.randn(size, 8))
    assert count.macs == examples * forward
    for size in batches:  # as a classifier guides: by the gradient with respect to its input
        x = torch.randn(size, 8, requires_grad=True)
        torch.autograd.grad(count(x.view_as(x)).sum(), x)
    assert count.macs == examples * forward + examples * (2 * forward)
    assert count.examples == 2 * examples


# ---------------------------------------------------------------- macs, each counted by hand


def test_macs_of_a_linear_layer():
    assert macs(nn.Linear(8, 5), torch.randn(3, 8)) == 3 * 8 * 5


def test_macs_of_convolutions():
    x = torch.randn(2, 4, 10, 10)
    assert macs(nn.Conv2d(4, 6, 3, padding=1), x) == (2 * 10 * 10 * 6) * (4 * 3 * 3)
    assert macs(nn.Conv2d(4, 6, 3, stride=2, padding=1), x) == (2 * 5 * 5 * 6) * (4 * 3 * 3)
    assert macs(nn.Conv2d(4, 6, 3, padding=1, groups=2), x) == (2 * 10 * 10 * 6) * (2 * 3 * 3)
    assert macs(nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), x) == (2 * 10 * 10 * 4) * (6 * 4 * 4)


def test_macs_of_attention_in_any_mode():
    q, k, v = torch.randn(2, 4, 10, 16), torch.randn(2, 4, 7, 16), torch.randn(2, 4, 7, 12)
    by_hand = 2 * 4 * (10 * 7 * 16 + 10 * 7 * 12)  # products with the keys, then sums of the values
    assert macs(F.scaled_dot_product_attention, q, k, v) == by_hand
    with torch.inference_mode():
        assert macs(F.scaled_dot_product_attention, q, k, v) == by_hand


@pytest.mark.parametrize("training", [True, False])
def test_macs_of_an_attention_layer_do_not_vanish_in_inference(training):
    layer, x = nn.MultiheadAttention(16, 4, batch_first=True).train(training), torch.randn(2, 5, 16)
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.inference_mode():
        assert macs(layer, x, x, x) == 2 * (4 * 5 * 16 * 16 + 2 * 5 * 5 * 16)
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_macs_of_a_training_step_have_the_backward_pass():
    first, second, x = nn.Linear(8, 5), nn.Linear(5, 2), torch.randn(3, 8)
    forward = 3 * 8 * 5 + 3 * 5 * 2
    weights, inputs = forward, 3 * 5 * 2  # every weight needs a gradient; of the inputs only the second layer's
    assert macs(lambda: second(first(x)).sum().backward()) == forward + weights + inputs


def test_macs_do_not_depend_on_the_number_format():
    layer, x = nn.Linear(8, 5), torch.randn(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert macs(layer, x) == 3 * 8 * 5


# ---------------------------------------------------------------- measure


def test_sleep_takes_wall_time_and_no_core_time():
    with measure() as run:
        time.sleep(0.2)
    assert run.cost.wall_seconds >= 0.2
    assert run.cost.core_seconds < 0.1


def test_core_seconds_are_those_of_the_process():
    start = time.process_time()
    with measure() as run:
        while time.process_time() - start < 0.2:
            pass
    assert 0.1 < run.cost.core_seconds <= time.process_time() - start


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets a process reset its peak")
@pytest.mark.parametrize("pieces", [1, 192])
def test_the_peak_is_that_of_the_block_whatever_ran_before(pieces):
    def work(mib):
        held = [torch.ones(mib * 2**18 // pieces) for _ in range(pieces)]
        return sum(float(x[0]) for x in held)

    work(96)  # a higher peak before
    torch.ones(30 * 2**18)  # once this is freed, the C library keeps up to twice as much for the next who asks
    for mib in (48, 24, 48):
        with measure() as run:
            work(mib)
        assert run.cost.peak_mib == pytest.approx(mib, abs=6)


def test_cpu_energy_is_an_estimate_from_core_seconds():
    with measure(watts_per_core=7.0) as run:
        torch.randn(200, 200) @ torch.randn(200, 200)
    assert run.cost.energy_source == "estimate"
    assert run.cost.energy_joules == pytest.approx(7.0 * run.cost.core_seconds)


def test_a_cost_is_kept_as_json_and_read_by_people():
    with measure() as run:
        pass
    fields = json.loads(json.dumps(dataclasses.asdict(run.cost)))
    assert list(fields) == ["wall_seconds", "core_seconds", "peak_mib", "energy_joules", "energy_source"]
    unknown = dataclasses.replace(run.cost, wall_seconds=1.25, energy_joules=None, energy_source="unknown")
    assert "1.25 s wall" in repr(unknown) and "energy unknown" in repr(unknown)
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.cost.wall_seconds = 0.0


def test_a_cost_is_not_there_before_its_block_has_ended():
    with measure() as run, pytest.raises(RuntimeError, match="after its block"):
        _ = run.cost


def test_measurements_do_not_nest_and_recover():
    with measure(), pytest.raises(RuntimeError, match="do not nest"), measure():
        pass
    with pytest.raises(KeyError), measure() as run:
        raise KeyError
    assert run.cost.wall_seconds >= 0
    with measure():
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_has_its_own_memory_and_its_own_meter():
    with measure("cuda") as run:
        x = torch.ones(64 * 2**18, device="cuda")
        for _ in range(2000):
            x = x * 1.0
    assert run.cost.peak_mib == pytest.approx(128, abs=8)
    assert run.cost.energy_source in ("measured", "unknown")
    assert run.cost.energy_joules is None or 0 < run.cost.energy_joules < 2000 * run.cost.wall_seconds + 200


# ---------------------------------------------------------------- ratio, with a clock that the test turns


class Clock:
    def __init__(self):
        self.now, self.order = 0.0, []

    def __call__(self):
        return self.now

    def taking(self, name, *seconds):
        remaining = list(seconds)

        def work():
            self.order.append(name)
            self.now += remaining.pop(0)

        return work


def test_ratio_takes_turns_and_forgets_the_first_calls():
    clock = Clock()
    result = ratio(clock.taking("A", 900, 1, 2, 9), clock.taking("B", 7, 2, 2, 3), repeats=3, clock=clock)
    assert result == Ratio(median=1.0, low=0.5, high=3.0)
    assert "".join(clock.order) == "ABABABAB"
    assert str(result) == "1 (0.5 to 3)"


def test_ratio_does_not_see_a_machine_that_slows_down():
    clock = Clock()
    result = ratio(clock.taking("A", 1, 1, 5, 25), clock.taking("B", 2, 2, 10, 50), repeats=3, clock=clock)
    assert (result.low, result.median, result.high) == (0.5, 0.5, 0.5)


def test_ratio_needs_a_pair():
    with pytest.raises(ValueError, match="positive number of pairs; got 0"):
        ratio(lambda: None, lambda: None, repeats=0)


def test_conditions_in_tuples_are_counted_as_those_of_one_example():
    layer = torch.nn.Linear(6, 3)
    network = CountCalls(lambda x, t, cond: layer(torch.cat([x, cond[1], cond[2]], 1)))
    network(torch.zeros(5, 2), 0.5, (7, torch.zeros(5, 2), torch.zeros(5, 2)))
    assert network.examples == 5 and network.macs == 5 * 6 * 3
