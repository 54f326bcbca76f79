"""The tab Inside says the numbers of the model that is loaded."""

import re

import pytest
from test_chart import drawn
from tiny import tiny_generator

from diffussm.analysis.inside import kernels, memory_length
from diffussm.demo.inside import LENGTH, show_gates, show_kernels, show_memory
from diffussm.ssm.reconstruction import MEMORIES


def test_kernels_are_those_of_the_block_and_direction():
    model = tiny_generator(dt_min=0.05, dt_max=0.5)
    shown = {(b, d): show_kernels(model, b, d) for b in (1, 2) for d in ("forward", "backward")}
    assert len(set(shown.values())) == 4
    kernel = kernels(model.model, 1, "backward")
    remembered = memory_length(kernel, 0.9)
    text = shown[2, "backward"]
    assert f"within {int(remembered.median())} of the 64 positions" in text
    assert f"memory needs {int(remembered.max())}." in text
    learned, memory = drawn(text)[:3], drawn(text)[3:]
    assert [len(curve) for curve in learned] == [64] * 3
    assert [len(curve) for curve in memory] == [8] * 3
    for curve in memory:
        heights = [-y for _, y in curve]
        assert heights == sorted(heights)


def test_gates_of_a_model_that_does_nothing():
    model = tiny_generator()
    for block in model.model.blocks:
        block.modulation.linear.weight.zero_()
        block.modulation.linear.bias.zero_()
    text = show_gates(model, 10)
    assert "its gate is 0 on average" in text
    assert len(drawn(text)) == 2


def test_gates_name_the_block_that_acts_most():
    model = tiny_generator()
    linear = model.model.blocks[1].modulation.linear
    linear.weight.zero_()
    linear.bias.fill_(9)
    text = show_gates(model, 999)
    assert "At step 999 block 2 changes the image most (its gate is 9 on average)" in text
    assert show_gates(model, 0) != text


def test_a_gate_of_a_model_without_classes():
    assert "At step 0 block" in show_gates(tiny_generator(num_classes=0), 0)


def error_of(text):
    return float(re.search(r"error of ([\d.]+)%", text)[1])


@pytest.mark.parametrize("memory", MEMORIES)
def test_more_numbers_recall_better(memory):
    few, many = (show_memory(memory, state, 6, 200) for state in (4, 64))
    assert error_of(many) < 12 < error_of(few) / 2
    signal, recalled = drawn(many)
    assert len(signal) == LENGTH
    assert len(recalled) == (LENGTH if memory == "legs" else 200)
    assert recalled[-1][0] == signal[-1][0]


@pytest.mark.parametrize(
    ("show", "said"),
    [
        (lambda model: show_kernels(model, 1.5, "forward"), "block must be .* 1 to 2, not '1.5'"),
        (lambda model: show_kernels(model, 1, "sideways"), "unknown direction 'sideways'"),
        (lambda model: show_gates(model, None), "time step must be .* 0 to 999, not nothing"),
        (lambda model: show_memory("legs", 1e30, 4, 100), "state must be"),
        (lambda model: show_memory("lags", 4, 4, 100), "unknown memory 'lags'"),
    ],
)
def test_a_mistake_is_a_sentence(show, said):
    with pytest.raises(ValueError, match=said):
        show(tiny_generator())


def test_a_number_beyond_its_slider_is_the_sliders_end():
    model = tiny_generator()
    assert show_kernels(model, 99, "forward") == show_kernels(model, 2, "forward")
    assert show_gates(model, -5) == show_gates(model, 0)
    assert show_gates(model, 1000) == show_gates(model, 999)
    assert show_memory("legt", 9999, -1, 1) == show_memory("legt", 64, 1, 2)
    assert show_memory("legt", 0, 99, 9999) == show_memory("legt", 2, 40, 400)


def test_a_model_without_state_space_layers_is_a_sentence(shelf, paths):
    with pytest.raises(ValueError, match="no state space layers"):
        show_kernels(shelf.take(paths["dit"]), 1, "forward")
    with pytest.raises(ValueError, match="no state space layers"):
        show_gates(shelf.take(paths["dit"]), 1)


def test_mamba_has_no_kernel_but_gates():
    model = tiny_generator(ssm="mamba")
    with pytest.raises(ValueError, match="no fixed kernel"):
        show_kernels(model, 1, "forward")
    assert "changes the image most" in show_gates(model, 3)
