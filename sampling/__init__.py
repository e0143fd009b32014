"""Sampling from a trained model: `command` asks `model`, which asks the rooms beside it.

request    what may be asked, and how a model is opened
checks     what it comes to with a certain model, and all that cannot be; no weights
windows    the segments of a long video, and their prompts
media      images, videos and masks that are given
modes      what they mean to the denoising loop
networks   weights, loaded and placed by the memory mode
model      the Python API: open once, sample many times
files      what is written
"""
