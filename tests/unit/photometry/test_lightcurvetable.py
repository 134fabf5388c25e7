"""lib.photometry.lightcurvetable: bins of frames, and what rows say."""

from dataclasses import replace

import numpy as np
import pytest

from lib.night.positions import Position
from lib.photometry.frameforced import FrameFluxes
from lib.photometry.lightcurve import FrameQuality, MeasuredFrame
from lib.photometry.lightcurvetable import BinRule, light_curve_table

SIGMA = 10.0
HERE = Position("here", np.array([150.0]), np.array([20.0]))


def made_frame(k, flux, error=SIGMA, flags=0, gap=0.0, **changes):
    one = (np.array([value]) for value in (flux, error, error, flags, 99.0, 49.0))
    values = {
        "name": f"2022f{k:04d}", "filter": "r", "stack": 0, "mjd": 59607.0 + k / 480 + gap,
        "date_obs": f"t{k:04d}", "exptime": 1.0, "airmass": 1.2, "sky": 100.0,
        "quality": FrameQuality(seeing=1.5, transparency=1.0, used=True), "radius": 2.2,
        "reason": "", "fluxes": FrameFluxes(*one, 1.0, np.full((1, 2), np.nan)),
        "zeropoint": 0.0, "zeropoint_error": 0.002,
        "offset": 25.0, "offset_error": 0.01, "n_comparison": 20,
    }  # fmt: skip
    return MeasuredFrame(**(values | changes))


def curve(frames, snr=10.0, gap=0.25):
    return light_curve_table(frames, 0, HERE, BinRule(snr, gap), site=[31.0, -115.0, 2800.0])


def kind(table, name):
    return table[table["KIND"] == name]


def test_bins_have_the_signal_to_noise_ratio_asked():
    """S/N 3 in a frame, 10 in about 11: halves that may be expected to have it are halved on."""
    rng = np.random.default_rng(43)
    table = curve([made_frame(k, 30 + SIGMA * rng.normal()) for k in range(64)])
    bins = kind(table, "bin")
    assert bins["NFRAMES"].sum() == 64
    assert np.all((bins["NFRAMES"] >= 7) & (bins["NFRAMES"] <= 33))
    assert np.median(bins["SNR"]) == pytest.approx(3 * np.sqrt(16), rel=0.25)
    assert bins["EXPTIME"].sum() == 64


def greedy_bins(flux, snr):
    """Return bins to which frames are added until they have a signal-to-noise ratio."""
    found, some = [], []
    for one in flux:
        some.append(one)
        if np.sum(some) > snr * SIGMA * np.sqrt(len(some)):
            found.append(np.mean(some))
            some = []
    return found


@pytest.mark.parametrize("level", [10.0, 30.0])
def test_bins_are_hardly_brighter_than_the_frames(level):
    """Frames added until a bin is seen stop where noise made one bright; halves do not."""
    rng = np.random.default_rng(47)
    found, greedy = [], []
    for _ in range(60):
        flux = level + SIGMA * rng.normal(size=32)
        bins = kind(curve([made_frame(k, one) for k, one in enumerate(flux)], 5.0), "bin")
        found.append(np.mean(bins["FLUX"]))
        greedy += greedy_bins(flux, 5.0)
    excess = np.mean(found) / level - 1
    assert abs(excess) < 0.06
    assert np.mean(greedy) / level - 1 > 1.5 * excess


def test_noise_gives_one_bin_that_is_not_seen():
    rng = np.random.default_rng(53)
    tables = [curve([made_frame(k, SIGMA * rng.normal()) for k in range(32)]) for _ in range(40)]
    bins = [kind(table, "bin") for table in tables]
    assert all(len(one) == 1 for one in bins)
    assert sum(one["DETECTED"][0] for one in bins) <= 1
    assert abs(np.mean([one["FLUX"][0] for one in bins])) < 4 * SIGMA / np.sqrt(32 * 40)


def test_bins_do_not_cross_nights_and_leave_out_what_is_saturated():
    frames = [made_frame(k, 5.0) for k in range(4)]
    frames += [made_frame(k, 5.0, gap=1.0, flags=256 if k == 7 else 0) for k in range(4, 8)]
    bins = kind(curve(frames), "bin")
    assert bins["NFRAMES"].tolist() == [4, 3]
    assert bins["FLUXERR"][0] == pytest.approx(SIGMA / 2)
    assert len(kind(curve(frames, snr=0.0), "bin")) == 0


def test_what_is_not_seen_has_a_limit_of_three_sigma_and_is_not_detected():
    table = curve([made_frame(0, 20.0), made_frame(1, -5.0), made_frame(2, 40.0)], 0.0)
    assert table["DETECTED"].tolist() == [False, False, True]
    assert table["LIMIT"][0] == pytest.approx(25 - 2.5 * np.log10(20 + 30))
    assert table["LIMIT"][1] == pytest.approx(25 - 2.5 * np.log10(30))
    assert np.isnan(table["LIMIT"][2]) and table["MAG"][2] == pytest.approx(25 - 2.5 * np.log10(40))
    assert table["SNR"].tolist() == pytest.approx([2.0, -0.5, 4.0])


def test_scale_and_scatter_of_the_frames_are_in_the_fluxes():
    """A frame of half the transparency; 2 % of scatter among the comparison stars."""
    dim = {"zeropoint": -2.5 * np.log10(2), "excess": 0.0217}
    dim["quality"] = FrameQuality(seeing=1.5, transparency=0.5, used=True)
    table = curve([made_frame(0, 1000.0), made_frame(1, 500.0, **dim)], 0.0)
    assert table["FLUX"].tolist() == pytest.approx([1000.0, 1000.0])
    assert table["TRANSPARENCY"].tolist() == pytest.approx([1.0, 0.5])
    assert table["FLUXERR"][1] == pytest.approx(np.hypot(20, 20), rel=0.01)
    assert table["X"][0] == 100 and table["Y"][0] == 50


def test_frames_without_zero_point_have_fluxes_only():
    table = curve([made_frame(0, 100.0, offset=np.nan)], 0.0)
    assert table["DETECTED"][0] and np.isnan(table["MAG"][0]) and table["FLUX"][0] == 100.0


def test_light_of_neighbours_is_wrong_in_all_frames_of_a_bin_alike():
    """Of errors of 10, 8 are those of neighbours: 6 average out."""
    frames = [made_frame(k, 100.0) for k in range(16)]
    for one in frames:
        one.fluxes = replace(one.fluxes, neighbour_error=np.array([8.0]))
    table = curve(frames, snr=1000.0)
    (row,) = kind(table, "bin")
    assert row["NFRAMES"] == 16 and row["NEIGHERR"] == pytest.approx(8.0)
    assert row["FLUXERR"] == pytest.approx(np.hypot(6.0 / 4, 8.0))
    assert np.all(kind(table, "frame")["NEIGHERR"] == 8.0)
