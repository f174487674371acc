"""Sliders and explorers, with a static figure for readers without a kernel."""

from survey_lib.lab.widgets.explorers import SamplerExplorer
from survey_lib.lab.widgets.sliders import WIDGET, Slider, image_slider, time_slider

__all__ = ["WIDGET", "SamplerExplorer", "Slider", "image_slider", "time_slider"]
