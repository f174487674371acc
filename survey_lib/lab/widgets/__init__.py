"""Sliders, text boxes and explorers, with a static figure for readers without a kernel."""

from survey_lib.lab.widgets.explorers import SamplerExplorer
from survey_lib.lab.widgets.sliders import WIDGET, Slider, TextBox, image_slider, text_box, time_slider

__all__ = ["WIDGET", "SamplerExplorer", "Slider", "TextBox", "image_slider", "text_box", "time_slider"]
