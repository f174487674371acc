"""Other noises and degradations (EPS-2): each is a `Corruption`, so that samplers, guides and metrics stay as they are.

* `shaped`: noise of another distribution, such as Laplace's, whose value a trajectory keeps;
* `gamma`: Gamma noise, a process with independent increments, with its exact bridge (DDGM);
* `coordinates`: another corruption in other coordinates, which the next two are;
* `prior`: a mean and a scale that depend on the condition (PriorGrad);
* `frequencies`: a schedule for every spatial frequency: heat dissipation, blurring and soft diffusion;
* `degradations`: masks, coarse pixels and other images for `core.corruptions.Cold`;
* `levels`: the noise level of an image from the image.
"""

from survey_lib.process.noise.degradations import masked, mixed_with, pixelated
from survey_lib.process.noise.frequencies import ByFrequency, Frequencies, Kept, dct, heat_blur, undct
from survey_lib.process.noise.gamma import Gamma
from survey_lib.process.noise.levels import level_posterior
from survey_lib.process.noise.prior import WithPrior
from survey_lib.process.noise.shaped import Shaped, generalised_normal, two_normals

__all__ = [
    "ByFrequency",
    "Frequencies",
    "Gamma",
    "Kept",
    "Shaped",
    "WithPrior",
    "dct",
    "generalised_normal",
    "heat_blur",
    "level_posterior",
    "masked",
    "mixed_with",
    "pixelated",
    "two_normals",
    "undct",
]
