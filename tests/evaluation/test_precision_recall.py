"""Precision and recall against a loop over points, and in cases one can draw."""

import numpy as np
import pytest
import torch

from diffussm.evaluation import precision_recall as module
from diffussm.evaluation.precision_recall import MEASURES, PrecisionRecall, precision_recall


def by_loops(real, drawn, k):
    """Each point by itself, by sorting differences in float64."""

    def radius(points, i):
        distances = sorted(np.linalg.norm(points - points[i], axis=1))
        return distances[k]  # the point itself is at place 0

    def within(points, others):
        radii = [radius(others, i) for i in range(len(others))]
        return np.mean(
            [
                any(np.linalg.norm(p - o) <= r for o, r in zip(others, radii, strict=True))
                for p in points
            ]
        )

    real, drawn = (x.numpy().astype(np.float64) for x in (real, drawn))
    return within(drawn, real), within(real, drawn)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("n", "m", "dim", "k"), [(40, 57, 6, 3), (61, 30, 2, 5), (23, 24, 16, 1)])
def test_loops_over_points(monkeypatch, measure, n, m, dim, k):
    monkeypatch.setattr(module, "ROWS", 2)  # several blocks of rows and of columns
    # multiples of 1/8 up to 4: their squared distances are exact in float16 too
    real = (torch.randn(n, dim) * 8).clamp(-15, 15).round() / 8
    drawn = (torch.randn(m, dim) * 9 + 4).clamp(-15, 15).round() / 8
    expected = by_loops(real, drawn, k)
    assert min(expected) > 0
    assert precision_recall(real, drawn, k, measure) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_lines_of_points(measure):
    # whole numbers 0 to 9: the third neighbour of an end is 3 away, of inner points 2
    real = torch.arange(10.0)[:, None]
    drawn = torch.tensor([[-3.5], [-3.0], [4.5], [11.0], [12.5], [100.0], [103.0], [106.0]])
    # so all within -3 and 12, these included, is real
    assert precision_recall(real, drawn, measure=measure).precision == 3 / 8


@pytest.mark.parametrize("measure", MEASURES)
def test_the_same_images_and_far_ones(measure):
    real = torch.randn(60, 8)
    assert precision_recall(real, real.flip(0), measure=measure) == (1, 1)
    assert precision_recall(real, real + 50, measure=measure) == (0, 0)


@pytest.mark.parametrize("measure", MEASURES)
def test_one_image_over_and_over_is_precise_and_recalls_nothing(measure):
    real = torch.randn(60, 8)
    assert precision_recall(real, real[:1].repeat(40, 1), measure=measure) == (1, 1 / 60)


def test_equal_images_are_at_no_distance():
    # with more equal images than k the radius is 0, and only an equal image is within it
    real = torch.cat([torch.rand(1, 200).repeat(9, 1), torch.rand(1, 200).repeat(8, 1) + 5])
    drawn = torch.cat([real[:1].repeat(6, 1), real[:1].repeat(6, 1) + 1e-4])
    assert precision_recall(real, drawn) == PrecisionRecall(0.5, 9 / 17)


@pytest.mark.parametrize("measure", MEASURES)
def test_no_order_matters(measure):
    real, drawn = torch.randn(70, 5), torch.randn(80, 5) * 1.2
    shuffled = real[torch.randperm(70)], drawn[torch.randperm(80)]
    found = precision_recall(real, drawn, measure=measure)
    assert found == pytest.approx(precision_recall(*shuffled, measure=measure))


def test_shares_change_places_with_the_sets():
    real, drawn = torch.randn(70, 5), torch.randn(80, 5) * 0.7
    there, back = precision_recall(real, drawn), precision_recall(drawn, real)
    assert there == (back.recall, back.precision)
    assert there.precision > there.recall


def test_adm_rounds_to_half():
    # float16 has steps of 1/32 at 44 and of 1 at 2000: 44.73 becomes 44.71875, and its square,
    # 1999.77, becomes 2000, while 44.73^2 itself is 2000.77
    one, zero = torch.tensor([[44.73]]), torch.tensor([[0.0]])
    assert MEASURES["adm"](one, zero).item() == 2000
    assert MEASURES["exact"](one, zero).item() == pytest.approx(44.73**2)


def test_adm_takes_float32_where_half_overflows():
    # 300^2 is above 65504, the largest number of float16
    rows, columns = torch.tensor([[0.0], [1.0]]), torch.tensor([[300.25], [2.0]])
    distances = MEASURES["adm"](rows, columns)
    assert distances[0].tolist() == pytest.approx([300.25**2, 4])
    assert distances[1].tolist() == pytest.approx([299.25**2, 1], rel=1e-6)


def test_exact_distances_of_equal_features_are_0():
    features = torch.randn(100, 300)
    equal = MEASURES["exact"](features, features[:90]).diagonal()
    assert torch.equal(equal, torch.zeros(90, dtype=torch.float64))
    near = MEASURES["exact"](features, features + 1e-5).diagonal()
    assert near.min() > 0


def test_exact_distances_keep_their_digits_far_from_0():
    rows, columns = torch.randn(20, 50) + 1000, torch.randn(30, 50) + 1000
    plain = (rows.double()[:, None] - columns.double()).square().sum(-1)
    found = MEASURES["exact"](rows, columns)
    torch.testing.assert_close(found, plain, rtol=1e-8, atol=0)


@pytest.mark.parametrize(("n", "m", "k"), [(3, 9, 3), (9, 3, 3), (9, 9, 0)])
def test_too_few_neighbours(n, m, k):
    with pytest.raises(ValueError, match=f"{n} real and {m} drawn images .* {k} neighbours"):
        precision_recall(torch.randn(n, 2), torch.randn(m, 2), k)


@pytest.mark.usefixtures("unchecked_shapes")
def test_other_mistakes():
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        precision_recall(torch.randn(9, 3), torch.randn(9, 4))
    with pytest.raises(ValueError, match="unknown measure 'admm'; did you mean 'adm'"):
        precision_recall(torch.randn(9, 3), torch.randn(9, 3), measure="admm")
