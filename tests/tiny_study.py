"""A study so small that a member takes a fraction of a second."""

TINY = """
title = "Tiny"
base = "digits"
seeds = [0, 1]

[all]
data.hold_out = 40
model.d_model = 8
model.depth = 1
model.d_state = 4
training.images = 64
training.batch_size = 32
training.preview_every = 0
training.validate_every = 32
training.save_every = 32

[measure]
metrics = ["loss"]
draws = 2

[members.plain]

[members.coarse]
model.patch_size = 2

[[claims]]
says = "Every pixel counts"
members = ["plain", "coarse"]
"""
