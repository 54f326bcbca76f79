"""Noise schedules and respacing against published numbers and hand arithmetic."""

import pytest
import torch

from diffussm.diffusion.schedules import (
    SCHEDULES,
    NoiseSchedule,
    at,
    kept_timesteps,
    linear_betas,
    respace,
)


def schedule(name="linear", steps=1000):
    return NoiseSchedule(SCHEDULES[name](steps), torch.arange(steps))


def close(actual, expected):
    torch.testing.assert_close(
        torch.as_tensor(actual, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=1e-8,
        atol=0,
    )


def test_linear_tables_are_the_published_ones():
    linear = schedule()
    close(linear.betas[:3], [1e-4, 1.1991991991991992e-4, 1.3983983983983984e-4])
    close(linear.betas[-1], 0.02)
    expected = [0.9999, 0.0785872428817782, 4.03582976537568e-05]
    close(linear.alphas_cumprod[[0, 499, 999]], expected)
    close(linear.posterior_variance[1], 5.453187661300667e-05)
    close(linear.posterior_log_variance[:2].exp(), [5.453187661300667e-05] * 2)
    close(linear.posterior_x_0[999], 1.2835148717e-4)
    close(linear.posterior_x_t[999], 0.98994867826)


def test_cosine_betas_are_the_published_ones():
    betas = schedule("cosine").betas
    close(betas[[0, 1, 999]], [4.12842248e-05, 4.61417527e-05, 0.999])


def test_shorter_linear_schedule_keeps_the_total_noise():
    # the sum of betas decides how much of the image is left at the end
    close(linear_betas(250).sum(), linear_betas(1000).sum())


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_turns_image_into_noise(name):
    tables = schedule(name)
    assert len(tables) == 1000
    assert tables.betas.dtype == tables.posterior_log_variance.dtype == torch.float64
    assert (tables.alphas_cumprod.diff() < 0).all()
    assert tables.alphas_cumprod[0] > 0.999
    assert tables.alphas_cumprod[-1] < 1e-4
    assert tables.posterior_log_variance.isfinite().all()


def test_betas_outside_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match=r"strictly between 0 and 1, not 1; 20 steps"):
        schedule(steps=20)
    with pytest.raises(ValueError, match="not 0;"):
        NoiseSchedule(torch.zeros(2, dtype=torch.float64), torch.arange(2))


RESPACED = {  # spacing: kept first, kept last, betas {index: value}, sum of betas
    "250": (
        [0, 4, 8, 12, 16, 20],
        [991, 995, 999],
        {0: 1e-4, 125: 0.04929790363, -1: 0.07751934499},
        9.849950079,
    ),
    "ddim50": (
        [0, 20],
        [960, 980],
        {0: 1e-4, 25: 0.17995439101, -1: 0.32461444753},
        8.5702860194,
    ),
    "50": ([0, 20, 41, 61], [958, 979, 999], {0: 1e-4, -1: 0.3298090661}, 8.86157810289),
    "ddim25": ([0, 40], [960], {0: 1e-4, -1: 0.5326018231}, 7.33411047524),
    "10,15,20": (
        [0, 37, 74, 111],
        [964, 982, 999],
        {0: 1e-4, -1: 0.2887148938},
        8.88695610511,
    ),
}


@pytest.mark.parametrize("spacing", RESPACED)
def test_respacing_is_the_published_one(spacing):
    first, last, betas, total = RESPACED[spacing]
    kept = kept_timesteps(spacing, 1000)
    assert kept[: len(first)] == first
    assert kept[-len(last) :] == last
    respaced = respace(schedule(), spacing)
    assert respaced.timesteps.tolist() == kept
    for index, beta in betas.items():
        close(respaced.betas[index], beta)
    close(respaced.betas.sum(), total)


@pytest.mark.parametrize("spacing", ["1", "7", "250", "ddim50", "10,15,20", "1,1,1"])
def test_respacing_leaves_alpha_bar_where_it_was(spacing):
    full, respaced = schedule(), respace(schedule(), spacing)
    close(respaced.alphas_cumprod, full.alphas_cumprod[respaced.timesteps])
    assert respaced.posterior_log_variance.isfinite().all()


def test_respacing_twice_still_tells_original_steps():
    twice = respace(respace(schedule(), "ddim50"), "ddim25")
    once = respace(schedule(), "ddim25")
    assert twice.timesteps.tolist() == once.timesteps.tolist()
    close(twice.betas, once.betas)


def test_kept_steps_by_hand():
    assert kept_timesteps("5", 5) == [0, 1, 2, 3, 4]
    assert kept_timesteps("3", 6) == [0, 2, 5]  # 2.5 rounds half to even
    assert kept_timesteps("3", 8) == [0, 4, 7]  # and so does 3.5
    assert kept_timesteps("2,1,3", 10) == [0, 3, 4, 7, 8, 9]  # sections of 4, 3 and 3
    assert kept_timesteps("ddim4", 10) == [0, 3, 6, 9]
    assert kept_timesteps("1", 1000) == [999]


def test_any_count_gives_so_many_different_steps():
    for count in range(2, 201):
        kept = kept_timesteps(str(count), 200)
        assert len(set(kept)) == count
        assert (kept[0], kept[-1]) == (0, 199)


@pytest.mark.parametrize(
    ("spacing", "message"),
    [
        ("0", "no positive count at '0'"),
        ("-5", "no positive count at '-5'"),
        ("", "no positive count at ''"),
        ("10,,5", "no positive count at ''"),
        ("2.5", "no positive count at '2.5'"),
        ("fast", "no positive count at 'fast'"),
        ("ddim", "no positive count at ''"),
        ("ddim0", "no positive count at '0'"),
        ("1001", "asks for 1001 steps out of 1000"),
        ("10,400,10", "asks for 400 steps out of 333"),
        ("ddim300", "no integer stride gives 'ddim300'"),
        ("ddim1001", "no integer stride gives 'ddim1001'"),
    ],
)
def test_impossible_spacings_are_refused(spacing, message):
    with pytest.raises(ValueError, match=message):
        kept_timesteps(spacing, 1000)


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_tables_are_read_in_float32_or_finer(given, computed):
    x = torch.zeros(2, 3, 4, 4, dtype=given)
    values = at(schedule().betas, torch.tensor([1, 999]), x)
    assert values.shape == (2, 1, 1, 1)
    assert values.dtype == computed
    torch.testing.assert_close(
        values.flatten().double(), schedule().betas[[1, 999]], rtol=1e-6, atol=0
    )
