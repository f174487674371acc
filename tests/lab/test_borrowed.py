"""Networks of diffusers as denoisers of the course, and the other way round, against diffusers' own sampling."""

import pytest
import torch

from survey_lib.core import corruptions, integrators, samplers
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.schedules import from_betas
from survey_lib.design import guidance
from survey_lib.lab import borrowed

diffusers = pytest.importorskip("diffusers")
SMALL = {"sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
STEPS = 10


def _unet(channels=3, **more):
    torch.manual_seed(0)
    names = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    net = diffusers.UNet2DModel(in_channels=channels, out_channels=channels, **SMALL, **names, **more)
    return _awake(net)


def _conditional():
    torch.manual_seed(0)
    names = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    net = diffusers.UNet2DConditionModel(
        in_channels=3, out_channels=3, cross_attention_dim=6, attention_head_dim=4, **SMALL, **names
    )
    return _awake(net)


def _transformer():
    torch.manual_seed(0)
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=3, out_channels=6, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=11, norm_num_groups=1,
    )  # fmt: skip
    return _awake(net)


def _awake(net):
    """Random weights everywhere, for layers that begin at zero hide what they are given."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for one in net.parameters():
            one.copy_(0.2 * torch.randn(one.shape, generator=g) / max(1, one[0].numel() if one.ndim > 1 else 1) ** 0.5)
    return net.eval().requires_grad_(False)


def _scheduler(prediction="epsilon", kind=None, **more):
    kind = kind or diffusers.DDIMScheduler
    how = {"prediction_type": prediction, "timestep_spacing": "trailing"}
    if kind is diffusers.DDIMScheduler:
        how |= {"clip_sample": False, "set_alpha_to_one": True}
    return kind(num_train_timesteps=1000, **how, **more)


def _theirs(net, scheduler, x, steps=STEPS, **cond):
    scheduler.set_timesteps(steps)
    for n in scheduler.timesteps:
        found = net(x, n, **cond)
        prediction = found.sample if hasattr(found, "sample") else found[0]
        x = scheduler.step(prediction[:, : x.shape[1]], n, x).prev_sample
    return x


def _times(scheduler):
    scheduler.set_timesteps(STEPS)
    return torch.cat([(scheduler.timesteps.double() + 1) / 1000, torch.zeros(1, dtype=torch.float64)])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ddim_with_a_borrowed_network_is_that_of_diffusers(prediction):
    net, scheduler = _unet(), _scheduler(prediction)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    mine = borrowed.denoiser(net, scheduler)
    found = integrators.multistep(mine, mine.schedule, x, _times(scheduler), order=1)
    torch.testing.assert_close(found, _theirs(net, scheduler, x), rtol=1e-4, atol=1e-4)


def test_captions_and_labels_reach_the_network():
    scheduler, x = _scheduler(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    words, labels = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(3)), torch.tensor([3, 7])
    times = _times(scheduler)
    for net, cond, named in (
        (_conditional(), words, {"encoder_hidden_states": words}),
        (_unet(num_class_embeds=11), labels, {"class_labels": labels}),
        (_transformer(), labels, {"class_labels": labels}),
    ):
        mine = borrowed.denoiser(net, scheduler)
        found = integrators.multistep(mine, mine.schedule, x, times, order=1, cond=cond)
        if isinstance(net, diffusers.DiTTransformer2DModel):
            theirs = _theirs(lambda x, n, net=net, **c: net(x, n.expand(len(x)), **c), scheduler, x, **named)
        else:
            theirs = _theirs(net, scheduler, x, **named)
        torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4)
        by_name = mine(x, 0.5, named)
        torch.testing.assert_close(by_name, mine(x, 0.5, cond))
        other = mine(x, 0.5, cond.flip(0))
        assert not torch.allclose(by_name, other), type(net).__name__


def test_every_part_of_the_course_takes_a_borrowed_network():
    net, scheduler = _unet(num_class_embeds=11), _scheduler()
    mine, x = borrowed.denoiser(net, scheduler), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    labels, g = torch.tensor([3, 7]), torch.Generator().manual_seed(4)
    guided = guidance.ClassifierFree(mine, 10, 2.0)
    x = samplers.ancestral(guided, corruptions.Gaussian(mine.schedule), x, _times(scheduler), cond=labels, generator=g)
    assert x.shape == (2, 3, 8, 8) and x.isfinite().all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("kind", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_a_denoiser_of_the_course_is_sampled_by_a_scheduler(prediction, kind):
    """On normal data, whose exact end is known: DDIM equals ours, and DPM-Solver++ comes near the data."""
    scheduler = _scheduler(prediction, getattr(diffusers, kind))
    schedule = from_betas(scheduler.betas)
    exact = GaussianLaw(torch.full((1, 2, 2), 0.3, dtype=torch.float64), 0.5).denoiser(schedule)
    x = torch.randn(200, 1, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    lent = borrowed.network(exact, schedule, scheduler)
    if kind == "DDIMScheduler":
        ours = integrators.multistep(exact, schedule, x, _times(scheduler), order=1)
        torch.testing.assert_close(_theirs(lent, scheduler, x), ours, rtol=1e-5, atol=1e-5)
    found = _theirs(lent, scheduler, x, steps=200)
    assert abs(found.mean() - 0.3) < 0.1 and abs(found.std() / 0.5**0.5 - 1) < 0.1  # by chance up to 0.05 and 0.05


def test_there_and_back_is_the_network_itself():
    net, scheduler = _unet(), _scheduler("v_prediction")
    mine, x = borrowed.denoiser(net, scheduler), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    again = borrowed.network(mine, mine.schedule, scheduler)
    for n in (0, 17, 999):
        torch.testing.assert_close(again(x, n).sample, net(x, n).sample, rtol=1e-3, atol=1e-3)


def test_what_cannot_be_borrowed_is_told_in_a_sentence():
    with pytest.raises(TypeError, match="has no alphas_cumprod"):
        borrowed.denoiser(_unet(), diffusers.EDMEulerScheduler())
    with pytest.raises(ValueError, match="ends in pure noise"):
        borrowed.denoiser(_unet(), _scheduler(rescale_betas_zero_snr=True))
    scheduler = _scheduler()
    scheduler.register_to_config(prediction_type="flow")
    with pytest.raises(ValueError, match="predicts 'flow' is not known; accepted: epsilon, v_prediction, sample"):
        borrowed.denoiser(_unet(), scheduler)
    with pytest.raises(ValueError, match="expects 'flow' is not known"):
        borrowed.network(lambda *a: a[0], from_betas(scheduler.betas), scheduler)
