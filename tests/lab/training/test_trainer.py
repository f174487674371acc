"""The training loop: it learns what is known exactly, stops and resumes bit for bit, and says what went wrong."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import TensorDataset

from survey_lib.core import toys
from survey_lib.core.heads import Preconditioned
from survey_lib.core.losses import edm_weight, lognormal_times
from survey_lib.core.schedules import edm, vp_cosine
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.training.trainer import LAM_EDGES, Recipe, Trainer
from survey_lib.nets.autoencoder import Codebook
from survey_lib.nets.mlp import MLP
from survey_lib.nets.unet import UNet

SMALL = Recipe(steps=12, batch=16, warmup=2, average=0.9)


def seeded(make, *args, seed: int = 0, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(*args, **kwargs)


def points(n: int = 256, labels: bool = False) -> TensorDataset:
    x0 = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x0, (x0[:, 0] > 0).long()) if labels else TensorDataset(x0)


def small_model(classes: int | None = None, net: type[MLP] = MLP) -> Preconditioned:
    return Preconditioned(seeded(net, 2, width=16, layers=1, classes=classes), edm())


def image_model() -> Preconditioned:
    return Preconditioned(seeded(UNet, 1, widths=(8, 16), classes=3), edm())


def images() -> ImageSet:
    g = torch.Generator().manual_seed(0)
    return ImageSet(
        "noise", torch.randint(256, (30, 1, 8, 8), generator=g, dtype=torch.uint8), torch.arange(30) % 3, tuple("abc")
    )


def finish(trainer: Trainer, **kwargs) -> Trainer:
    for _ in trainer.run(**kwargs):
        pass
    return trainer


def assert_equal_states(first: Trainer, second: Trainer) -> None:
    assert first.step == second.step
    for a, b in ((first.model, second.model), (first.averaged, second.averaged)):
        assert all(x.equal(y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    moments = [t.optimizer.tensors() for t in (first, second)]
    assert moments[0].keys() == moments[1].keys()
    assert all(value.equal(moments[1][name]) for name, value in moments[0].items())


# ---------------------------------------------------------------------- it learns


def test_learns_a_mixture_whose_denoiser_is_known():
    """In each bin of lam the learned denoiser adds at most 5 % to the error of the exact one, which is the least.

    Six seconds of one core. The untrained network adds several times as much in every bin.
    """
    law, schedule = toys.eight_modes(scale=0.1), edm()
    generator = torch.Generator().manual_seed(0)
    model = Preconditioned(seeded(MLP, 2, width=64, layers=3), schedule, sigma_data=0.7)
    untrained = copy.deepcopy(model)
    recipe = Recipe(steps=700, batch=512, rate=4e-3, average=0.99, log_sigma_std=1.2)
    trainer = finish(Trainer(model, TensorDataset(law.sample(20_000, generator=generator)), recipe), every=350)
    exact = law.denoiser(schedule)
    for low in LAM_EDGES[:-2].tolist():
        lam = low + torch.rand(4000, generator=generator, dtype=torch.float64)
        x0, t = law.sample(4000, generator=generator), schedule.time(lam)
        noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        x_t = x0 + torch.exp(-lam)[:, None] * noise
        with torch.no_grad():
            best = exact(x_t, t)
            added, before = (
                (denoiser(x_t.float(), t) - best).square().mean() / (best - x0).square().mean()
                for denoiser in (trainer.average, untrained)
            )
        assert added < 0.05 and added < before / 3, f"lam from {low:g} to {low + 1:g}: {added:.3f}, before {before:.3f}"


def test_bins_hold_the_losses_of_their_noise_levels():
    """A network that answers 0 loses ``weight(lam) x0^2``, which grows with lam: each bin lies between its edges."""
    model = Preconditioned(seeded(MLP, 2, width=8, layers=1), edm(), "x0")
    nn.init.zeros_(model.net.leave.weight), nn.init.zeros_(model.net.leave.bias)
    recipe = replace(SMALL, rate=0.0, steps=40, batch=64, log_sigma_std=2.5)
    report = finish(Trainer(model, TensorDataset(torch.full((5, 2), 0.3)), recipe)).history[-1]
    bounds = 0.09 * edm_weight(torch.cat([torch.tensor([-math.inf]), LAM_EDGES, torch.tensor([math.inf])]))
    assert len(report.loss_by_lam) == len(LAM_EDGES) + 1
    for loss, low, high in zip(report.loss_by_lam, bounds, bounds[1:], strict=False):
        assert low * (1 - 1e-6) <= loss <= high
    assert min(report.loss_by_lam) < report.loss < max(report.loss_by_lam)


def test_bins_where_nothing_fell_are_empty():
    recipe = replace(SMALL, log_sigma_mean=-0.5, log_sigma_std=0.0)  # lam is 0.5 for all
    report = finish(Trainer(small_model(), points(), recipe)).history[-1]
    assert [math.isfinite(loss) for loss in report.loss_by_lam] == [bool(a < 0.5 < a + 1) for a in range(-4, 5)]
    assert report.loss == pytest.approx(report.loss_by_lam[4])


def test_the_average_follows_and_stays_among_the_weights_seen():
    trainer = Trainer(small_model(), points(), SMALL)
    seen, averages = [], []
    for _ in trainer.run(every=1):
        seen.append(torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()]))
        averages.append(torch.cat([p.detach().flatten().clone() for p in trainer.average.parameters()]))
    path = torch.stack(seen)
    assert averages[0].equal(seen[0])
    assert all((a != b).any() for a, b in itertools.pairwise(averages)), "the average stands still"
    assert ((averages[-1] >= path.amin(0) - 1e-6) & (averages[-1] <= path.amax(0) + 1e-6)).all()
    assert (averages[-1] - seen[-1]).norm() > 0 and not trainer.average.training


def test_an_average_without_memory_is_the_model():
    trainer = finish(Trainer(small_model(), points(), replace(SMALL, average=0.0)))
    assert all(a.equal(b) for a, b in zip(trainer.average.parameters(), trainer.model.parameters(), strict=True))


class Spy(MLP):
    """Notes what it is asked."""

    def forward(self, x, c_noise, cond=None):
        self.__dict__.setdefault("seen", []).append((x.detach(), cond))
        return super().forward(x, c_noise, cond)


def test_labels_belong_to_their_points_and_some_are_dropped():
    model = small_model(classes=2, net=Spy)
    recipe = Recipe(steps=40, batch=100, label_dropout=0.3, log_sigma_mean=-12.0, log_sigma_std=0.0)
    finish(Trainer(model, points(labels=True), recipe))
    x, cond = (torch.cat(parts) for parts in zip(*model.net.seen, strict=True))
    kept = cond < 2
    assert ((x[kept, 0] > 0) == cond[kept].bool()).all()
    assert abs(float(kept.double().mean()) - 0.7) < 4 * math.sqrt(0.3 * 0.7 / 4000)


def test_every_seed_draws_its_own_numbers():
    first = [
        Trainer(small_model(), points(), replace(SMALL, seed=seed))._draw() for seed in (0, 1, 2, 2**24, 2**32 - 1)
    ]
    noise = torch.stack([torch.rand(8, dtype=torch.float64, generator=generator) for _, _, generator in first])
    assert len(noise.flatten().unique()) == noise.numel()


@pytest.mark.parametrize("kind", [torch.float32, torch.int64], ids=["numbers", "symbols"])
def test_a_loss_of_ones_own_finds_a_mean_and_repeats_itself(kind):
    """One weight, squared distance to 100 values: it ends at their mean; there is no noise level to report."""
    values = (torch.randn(100, generator=torch.Generator().manual_seed(0)) + 3).to(kind)

    def trainer(seed: int) -> Trainer:
        model = nn.Linear(1, 1)
        nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        recipe = Recipe(steps=400, batch=50, rate=0.1, warmup=10, average=0.98, seed=seed)

        def loss(model, x0, cond, generator):
            assert x0.dtype == kind and cond is None
            return (model.bias - x0) ** 2, None

        return Trainer(model, TensorDataset(values), recipe, loss=loss)

    first = trainer(0)
    means = [one.finish().bias.item() for one in (first, trainer(0), trainer(1))]
    assert means[0] == means[1] != means[2]
    assert means[0] == pytest.approx(values.double().mean().item(), abs=0.05)
    assert first.history[-1].loss > 0 and all(map(math.isnan, first.history[-1].loss_by_lam))


def test_a_loss_of_ones_own_gets_the_labels_of_its_examples():
    """A network without classes gets them unchanged; without labels there are none."""
    seen = []

    def loss(model, x0, cond, generator):
        seen.append((x0, cond))
        return model(x0)[:, 0] ** 2, None

    recipe = replace(SMALL, label_dropout=0.5)
    finish(Trainer(nn.Linear(2, 1), points(labels=True), recipe, loss=loss))
    assert all(((x0[:, 0] > 0) == cond.bool()).all() for x0, cond in seen) and len(seen) == 12


def test_a_loss_of_ones_own_that_is_not_finite_stops_it():
    trainer = Trainer(nn.Linear(2, 1), points(), SMALL, loss=lambda model, x0, *_: (model(x0)[:, 0] * torch.nan, None))
    assert "loss or gradient is not finite at step 0 (in the loss); nothing was saved" in sentence(
        trainer.finish, FloatingPointError
    )


def test_tqdm_shows_only_when_asked(capsys):
    finish(Trainer(small_model(), points(), SMALL))
    assert capsys.readouterr().err == ""
    finish(Trainer(small_model(), points(), SMALL), progress=True)
    shown = capsys.readouterr().err
    assert "training" in shown and "12/12" in shown and "loss=" in shown


# ---------------------------------------------------------------------- stop and resume


@pytest.mark.parametrize("case", ["points", "images"])
def test_stopped_and_resumed_is_the_same_bit_for_bit(case, tmp_path):
    make, data = (small_model, points()) if case == "points" else (image_model, images())
    recipe = replace(SMALL, label_dropout=0.2)
    whole = finish(Trainer(make(), data, recipe), every=4)
    save_to = tmp_path / "deep" / "state.safetensors"
    for until in (3, 4, 9, None):  # before, at and after a report
        part = finish(Trainer(make(), data, recipe, save_to=save_to), every=4, until=until)
    assert_equal_states(whole, part)
    assert [r.step for r in part.history] == [3, 4, 8, 9, 12] and [r.step for r in whole.history] == [4, 8, 12]
    assert [r.seconds for r in part.history] == sorted(r.seconds for r in part.history)
    assert list(Trainer(make(), data, recipe, save_to=save_to).run()) == [], "a finished training is finished"


CHILD = """
import sys, torch
sys.path.insert(0, {folder!r})
import test_trainer as here
torch.set_num_threads({threads})
trainer = here.Trainer(here.small_model(), here.points(), here.replace(here.SMALL, steps=5000), save_to={save_to!r})
for report in trainer.run(every=3):
    print(report.step, flush=True)
"""


def test_killed_in_the_middle_and_resumed_is_the_same(tmp_path):
    """kill -9 strikes at any moment, a save included; what is on the disk is one whole state."""
    save_to, recipe = tmp_path / "state.safetensors", replace(SMALL, steps=5000)
    code = CHILD.format(folder=os.path.dirname(__file__), threads=torch.get_num_threads(), save_to=str(save_to))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        for _ in range(4):
            assert child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    resumed = Trainer(small_model(), points(), recipe, save_to=save_to)
    assert resumed.step >= 12 and resumed.step % 3 == 0
    until = resumed.step + 7
    assert_equal_states(
        finish(resumed, every=3, until=until), finish(Trainer(small_model(), points(), recipe), until=until)
    )


def sentence(call, kind: type[Exception] = ValueError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "state.safetensors"
    finish(Trainer(small_model(), points(), SMALL, save_to=path), every=3, until=6)
    return path


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_state_is_refused(state, share):
    whole = state.read_bytes()
    state.write_bytes(whole[: int(share * len(whole))])
    message = sentence(lambda: Trainer(small_model(), points(), SMALL, save_to=state))
    assert f"{state} does not hold a training to resume" in message and "delete it to begin again" in message


def test_other_safetensors_are_refused(state):
    save_file({"weight": torch.zeros(3)}, state)
    assert "does not hold a training to resume" in sentence(
        lambda: Trainer(small_model(), points(), SMALL, save_to=state)
    )
    save_file({"weight": torch.zeros(3)}, state, {"survey": json.dumps({"step": 3})})
    assert "does not hold a training to resume" in sentence(
        lambda: Trainer(small_model(), points(), SMALL, save_to=state)
    )


def test_another_recipe_is_refused_by_name(state):
    other = replace(SMALL, rate=1e-3, seed=4)
    message = sentence(lambda: Trainer(small_model(), points(), other, save_to=state))
    assert "another recipe (rate, seed); delete it" in message


def test_another_network_is_refused(state):
    other = Preconditioned(MLP(2, width=20, layers=1), edm())
    assert "another network; delete it" in sentence(lambda: Trainer(other, points(), SMALL, save_to=state))


OTHER_DATA = TensorDataset(points().tensors[0] + 1)


@pytest.mark.parametrize(
    ("model", "data", "loss", "words"),
    [
        (small_model(), OTHER_DATA, None, "other data; delete it"),
        (Preconditioned(small_model().net, edm(), "eps"), points(), None, "other head; delete it"),
        (Preconditioned(small_model().net, edm(), "edm", sigma_data=0.7), points(), None, "other head; delete it"),
        (Preconditioned(small_model().net, vp_cosine()), points(), None, "other schedule; delete it"),
        (small_model(), points(), lambda model, x0, *_: (x0[:, 0], None), "other loss; delete it"),
        (Preconditioned(small_model().net, edm(), "x0"), OTHER_DATA, None, "other data and head; delete it"),
    ],
    ids=["data", "head", "sigma_data", "schedule", "loss", "two of them"],
)
def test_a_training_is_only_resumed_as_what_it_was(state, model, data, loss, words):
    """A stopped and a finished training alike: neither goes on with, nor answers for, something else."""
    with pytest.raises(ValueError, match=f"was begun with {words}"):
        Trainer(model, data, SMALL, loss=loss, save_to=state)
    finish(Trainer(small_model(), points(), SMALL, save_to=state))
    with pytest.raises(ValueError, match=f"was begun with {words}"):
        Trainer(model, data, SMALL, loss=loss, save_to=state)


def test_labels_and_what_a_loss_closes_over_belong_to_the_training(tmp_path):
    def weighted(weight):
        return lambda model, x0, cond, generator: (weight * model(x0)[:, 0] ** 2, None)

    def trainer(weight=1.0, flip=0):
        x0, labels = points(labels=True).tensors
        data = TensorDataset(x0, (labels + flip) % 2)
        model = seeded(nn.Linear, 2, 1)
        return Trainer(model, data, SMALL, loss=weighted(weight), save_to=tmp_path / "state.safetensors")

    finish(trainer(), until=4)
    assert trainer().step == 4
    assert "other loss" in sentence(lambda: trainer(weight=2.0))
    assert "other data" in sentence(lambda: trainer(flip=1))


def test_tied_weights_are_saved_and_resumed_bit_for_bit(tmp_path):
    def tied() -> Preconditioned:
        model = Preconditioned(seeded(MLP, 2, width=8, layers=2), edm())
        square = [module for module in model.modules() if getattr(module, "weight", torch.empty(0)).shape == (8, 8)]
        square[1].weight = square[0].weight
        return model

    whole, save_to = finish(Trainer(tied(), points(), SMALL)), tmp_path / "state.safetensors"
    for until in (5, None):
        part = finish(Trainer(tied(), points(), SMALL, save_to=save_to), until=until)
    assert_equal_states(whole, part)


# ---------------------------------------------------------------------- what can go wrong


def test_a_bad_step_leaves_no_trace_in_buffers():
    """Running statistics change in the forward pass, and a codebook follows its latents: both are as before."""
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8)))
    model.append(Codebook(4, 8))

    def loss(model, x0, cond, generator):
        linear, norm, codes = model
        z = norm(linear(x0))
        index = codes.nearest(z)
        codes.learn(z.detach(), index, generator=generator)
        return (z - codes.vectors[index]).square().mean(1), None

    trainer = finish(Trainer(model, points(), SMALL, loss=loss), until=5)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert before["2.vectors"].count_nonzero() and before["1.running_mean"].count_nonzero()
    trainer.x0[:] = math.nan
    sentence(lambda: finish(trainer), FloatingPointError)
    assert all(value.equal(before[name]) for name, value in trainer.model.state_dict().items())


def test_a_poisoned_example_stops_it_with_step_noise_level_and_last_save(tmp_path):
    data, save_to = points(), tmp_path / "state.safetensors"
    trainer = finish(Trainer(small_model(), data, SMALL, save_to=save_to), every=4, until=8)
    trainer.x0[trainer.x0[:, 0] > 1] = math.nan
    before = [p.detach().clone() for p in trainer.model.parameters()]
    message = sentence(lambda: finish(trainer, every=4), FloatingPointError)
    assert "at step 8" in message and f"the state of step 8 is in {save_to}" in message
    x0, _, generator = trainer._draw()
    law = {"mean": SMALL.log_sigma_mean, "std": SMALL.log_sigma_std}
    lam = edm().lam(lognormal_times(len(x0), edm(), **law, generator=generator)[x0.isnan().any(1)])
    assert f"lam from {lam.min():.2f} to {lam.max():.2f}" in message
    assert all(a.equal(b) for a, b in zip(before, trainer.model.parameters(), strict=True)), "the bad step was taken"
    assert Trainer(small_model(), points(), SMALL, save_to=save_to).step == 8
    assert "other data" in sentence(lambda: Trainer(small_model(), data, SMALL, save_to=save_to)), "it is poisoned"


def test_poisoned_weights_stop_it():
    trainer = finish(Trainer(small_model(), points(), SMALL), until=2)
    nn.init.constant_(trainer.model.net.enter.weight, math.inf)
    message = sentence(lambda: finish(trainer), FloatingPointError)
    assert "at step 2 (lam from" in message and "nothing was saved" in message


def test_a_gradient_that_is_not_finite_stops_it():
    class Steep(MLP):
        def forward(self, x, c_noise, cond=None):
            return super().forward(x, c_noise, cond) + self.leave.bias.abs().sum().mul(0).sqrt()

    message = sentence(lambda: finish(Trainer(small_model(net=Steep), points(), SMALL)), FloatingPointError)
    assert "at step 0 (in a gradient of finite losses)" in message


def assert_survives_a_full_disk(path, data, step: int) -> None:
    assert [f.name for f in path.parent.iterdir()] == [path.name], "half a file was left behind"
    assert Trainer(small_model(), data, SMALL, save_to=path).step == step


def test_no_space_left_keeps_the_old_state(state, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    trainer = Trainer(small_model(), points(), SMALL, save_to=state)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "no space left" in sentence(lambda: finish(trainer), OSError)
    assert_survives_a_full_disk(state, points(), 6)
    finish(trainer)  # with space again, the same trainer can go on
    assert_equal_states(trainer, finish(Trainer(small_model(), points(), SMALL)))


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount a small disk")
def test_a_small_disk_that_is_full_keeps_the_old_state(state, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = f"size={int(1.6 * state.stat().st_size) // 4096 * 4096}"  # one state fits, a second beside it does not
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is forbidden here")
    try:
        path = disk / "state.safetensors"
        assert "no space left" in sentence(
            lambda: finish(Trainer(small_model(), points(), SMALL, save_to=path), every=3), OSError
        )
        assert_survives_a_full_disk(path, points(), 3)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("field", "value", "kind", "words"),
    [
        ("steps", 0, ValueError, "steps is 0; at least 1"),
        ("steps", -5, ValueError, "steps is -5; at least 1"),
        ("steps", 2.5, TypeError, "steps is 2.5"),
        ("batch", "128", TypeError, 'batch is "128"'),
        ("rate", math.nan, ValueError, "rate is nan; a finite number"),
        ("rate", -1e-3, ValueError, "rate is -0.001; at least 0"),
        ("label_dropout", 1.5, ValueError, "label_dropout is 1.5; at most 1"),
        ("average", None, TypeError, "average is None"),
        ("seed", -1, ValueError, "seed is -1; at least 0"),
        ("seed", True, TypeError, "seed is True"),
        ("clip", -1.0, ValueError, "clip is -1.0; at least 0"),
        ("rate_schedule", "one_cicle", ValueError, '(did you mean "one_cycle"?); accepted: linear, one_cycle'),
    ],
)
def test_recipes_refuse_by_name(field, value, kind, words):
    assert words in sentence(lambda: Recipe(**{field: value}), kind)


@pytest.mark.parametrize(
    ("classes", "data", "words"),
    [
        (None, TensorDataset(torch.zeros(0, 2)), "nothing to train on"),
        (2, points(), "needs labels: TensorDataset(x0, labels)"),
        (1, points(labels=True), "has 1 classes, numbered from 0; the labels span 0 to 1"),
    ],
)
def test_data_that_does_not_suit_is_refused(classes, data, words):
    assert words in sentence(lambda: Trainer(small_model(classes), data, SMALL))


def test_numbers_of_steps_below_the_least_are_refused():
    trainer = Trainer(small_model(), points(), SMALL)
    assert "every is 0; at least 1" in sentence(lambda: finish(trainer, every=0))
    assert "until is -1; at least 0" in sentence(lambda: finish(trainer, until=-1))
    assert finish(trainer, until=0).step == 0


# ---------------------------------------------------------------------- several processes

TEAM = """
import json, sys
sys.path.insert(0, {folder!r})
import test_trainer as here
from safetensors.torch import save_file
trainer = here.team_trainer({folder_out!r} + "/state.safetensors")
for report in trainer.run(every=50):
    pass
weights = {{**trainer.model.state_dict(), **{{"averaged." + k: v for k, v in trainer.average.state_dict().items()}}}}
save_file(weights, {folder_out!r} + f"/rank{{trainer.rank}}.safetensors", {{"loss": str(report.loss)}})
"""


def team_trainer(save_to=None) -> Trainer:
    law = toys.eight_modes(scale=0.1)
    data = TensorDataset(law.sample(2000, generator=torch.Generator().manual_seed(0)))
    model = Preconditioned(seeded(MLP, 2, width=32, layers=2), edm(), sigma_data=0.7)
    return Trainer(model, data, Recipe(steps=150, batch=128, rate=4e-3, average=0.9), save_to=save_to)


def test_two_processes_share_the_work(tmp_path):
    """torchrun, which accelerate starts for several GPUs: two processes end with one model, as good as one process's.

    (``accelerate launch --cpu --num_processes 2`` starts a single process where there is no MPI.)
    """
    script = tmp_path / "team.py"
    script.write_text(TEAM.format(folder=os.path.dirname(__file__), folder_out=str(tmp_path)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    assert all(first[key].equal(second[key]) for key in first)
    alone, resumed = finish(team_trainer(), every=50), team_trainer(tmp_path / "state.safetensors")
    assert resumed.step == 150 and all(first[k].equal(v) for k, v in resumed.model.state_dict().items())
    assert not all(first[k].equal(v) for k, v in alone.model.state_dict().items()), "only one process worked"
    law, generator = toys.eight_modes(scale=0.1), torch.Generator().manual_seed(1)
    t = edm().time(torch.linspace(-2, 2, 1000, dtype=torch.float64))
    x_t = law.sample(1000, generator=generator) + (80 * t)[:, None] * torch.randn(1000, 2, generator=generator)
    with torch.no_grad():
        errors = [
            (m(x_t.float(), t) - law.denoiser(edm())(x_t, t)).square().mean() for m in (alone.average, resumed.average)
        ]
    assert errors[1] < 1.5 * errors[0] and errors[0] < 0.02
