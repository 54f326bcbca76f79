"""The example draws its picture, and its table says that larger states remember better."""

from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_hippo_memory_draws_and_measures(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    import hippo_memory

    monkeypatch.setattr(hippo_memory, "STATES", (4, 8, 16, 32, 64))
    hippo_memory.main(tmp_path / "memory.png")
    plt.close("all")
    _, *rows = capsys.readouterr().out.splitlines()
    errors = {name: [float(error) for error in row] for name, *row in map(str.split, rows)}
    assert list(errors) == ["legs", "legt"]
    for falling in errors.values():
        assert falling == sorted(falling, reverse=True)
        assert falling[-1] < 1e-3
    with Image.open(tmp_path / "memory.png") as picture:
        assert 1000 <= picture.width <= 1400
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 100  # not an empty sheet


def test_signal_is_band_limited_noise(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import hippo_memory
    import torch

    signal = hippo_memory.band_limited(periods=5)
    power = torch.fft.rfft(signal).abs() ** 2 / len(signal) ** 2 * 2  # sums to the mean square
    assert abs(power[1:6].sum() - 1) < 1e-12
    assert power[0] + power[6:].sum() < 1e-20
