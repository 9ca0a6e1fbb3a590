"""Flips every convention and asks its test in `test_conventions.py` to notice."""

from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from ptychodus_torch_plugin import frame, physics, probes, sweeps
from ptychodus_torch_plugin.files import conversion
from ptychodus_torch_plugin.scan import ScanData

spec = spec_from_file_location('checks', Path(__file__).with_name('test_conventions.py'))
checks = module_from_spec(spec)
spec.loader.exec_module(checks)

corners_of, shift, far_field = frame.patch_corners, physics.shift_probe, physics.far_field
predict, loss, impose = physics.predict_counts, physics.poisson_loss, physics.impose_counts
scale, ramp, cropped = probes.scale_probe, probes.ramp, ScanData.cropped
with_counts, centre_positions = conversion._with_counts, conversion._with_patch_centers


def rounded_by(rounding, middle=lambda n: (n - 1) / 2):
    def flipped(positions_px, n_px):
        first = positions_px - middle(n_px)
        corners = rounding(first).astype(np.int64)
        return corners, first - corners

    return flipped


def columns_first(positions_px, n_px):
    return tuple(array[:, ::-1] for array in corners_of(positions_px, n_px))


def transform_by(fft2, before=np.fft.ifftshift, norm='ortho'):
    axes = (-2, -1)
    return lambda waves: np.fft.fftshift(fft2(before(waves, axes=axes), norm=norm), axes=axes)


def coherent(object_, probe, corners, remainders_px):
    return predict(object_, probe.sum(axis=0, keepdims=True), corners, remainders_px)


def all_valid(function):
    return lambda a, b, valid, *rest: function(a, b, np.ones_like(valid), *rest)


def overwrite(patches, corners, canvas):
    n_px = patches.shape[-1]
    for patch, (y, x) in zip(patches, corners, strict=True):
        canvas[y : y + n_px, x : x + n_px] = patch


def cropped_about_pixel_zero(scan, n_px):
    return replace(cropped(scan, n_px), positions_px=scan.positions_px * n_px / scan.n_px)


def cropped_beside_the_beam(scan, n_px):
    return cropped(replace(scan, patterns=np.roll(scan.patterns, 1, axis=-1)), n_px)


def anchored(raw, options):
    other = {'first-pixel': 'center', 'center': 'center-pixel', 'center-pixel': 'center'}
    return centre_positions(raw, replace(options, position_anchor=other[options.position_anchor]))


FLIPS = {
    'columns before rows': (
        checks.test_rows_come_before_columns,
        (frame, 'patch_corners', columns_first),
    ),
    'patch centre N // 2': (
        checks.test_the_centre_of_n_pixels_is_half_of_n_minus_one,
        (frame, 'patch_corners', rounded_by(lambda p: np.floor(p + 0.5), lambda n: n // 2)),
    ),
    'patch centre N / 2 on the canvas': (
        checks.test_light_falls_where_the_position_says,
        (frame, 'patch_corners', rounded_by(lambda p: np.floor(p + 0.5), lambda n: n / 2)),
    ),
    'remainders from 0 to 1': (
        checks.test_remainders_reach_from_minus_a_half_to_below_a_half,
        (frame, 'patch_corners', rounded_by(np.floor)),
    ),
    'halves rounded to even': (
        checks.test_remainders_reach_from_minus_a_half_to_below_a_half,
        (frame, 'patch_corners', rounded_by(np.rint)),
    ),
    'whole positions only': (
        checks.test_light_falls_where_the_position_says,
        (physics, 'shift_probe', lambda probe, r: shift(probe, 0 * r)),
    ),
    'the probe moves backwards': (
        checks.test_a_positive_remainder_moves_the_probe_to_higher_rows_and_columns,
        (physics, 'shift_probe', lambda probe, r: shift(probe, -r)),
    ),
    'the light moves backwards': (
        checks.test_light_falls_where_the_position_says,
        (physics, 'shift_probe', lambda probe, r: shift(probe, -r)),
    ),
    'the probe moves along the other axis': (
        checks.test_a_positive_remainder_moves_the_probe_to_higher_rows_and_columns,
        (physics, 'shift_probe', lambda probe, r: shift(probe, r[:, ::-1])),
    ),
    'origin subtracted twice': (
        checks.test_the_canvas_begins_at_its_origin,
        (frame, 'patch_corners', lambda p, n: (corners_of(p, n)[0] + 1, corners_of(p, n)[1])),
    ),
    'patches overwrite each other': (
        checks.test_scattering_is_the_adjoint_of_gathering,
        (physics, 'scatter_patches', overwrite),
    ),
    'FFT without a norm': (
        checks.test_the_far_field_is_centred_and_keeps_the_energy,
        (physics, 'far_field', transform_by(np.fft.fft2, norm='backward')),
    ),
    'inverse FFT': (
        checks.test_the_far_field_is_centred_and_keeps_the_energy,
        (physics, 'far_field', transform_by(np.fft.ifft2)),
    ),
    'beam in the corner': (
        checks.test_the_far_field_is_centred_and_keeps_the_energy,
        (physics, 'far_field', lambda waves: np.fft.ifftshift(far_field(waves), axes=(-2, -1))),
    ),
    'real space not shifted': (
        checks.test_the_far_field_is_centred_and_keeps_the_energy,
        (physics, 'far_field', transform_by(np.fft.fft2, before=lambda waves, axes: waves)),
    ),
    'amplitudes': (
        checks.test_patterns_are_photon_counts,
        (physics, 'predict_counts', lambda *arguments: np.sqrt(predict(*arguments))),
    ),
    'energy lost in the FFT': (
        checks.test_patterns_are_photon_counts,
        (physics, 'far_field', transform_by(np.fft.fft2, norm='backward')),
    ),
    'coherent modes': (
        checks.test_modes_add_incoherently,
        (physics, 'predict_counts', coherent),
    ),
    'loss with counts and prediction swapped': (
        checks.test_the_loss_is_poissons_over_the_mean_count,
        (physics, 'poisson_loss', lambda i, k, valid, mean: loss(k, i, valid, mean)),
    ),
    'loss that grows with the dose': (
        checks.test_the_loss_is_poissons_over_the_mean_count,
        (physics, 'poisson_loss', lambda i, k, valid, _: loss(i, k, valid, 4.5)),
    ),
    'counts imposed as amplitudes': (
        checks.test_counts_pull_amplitudes_as_far_as_poisson_noise_allows,
        (physics, 'impose_counts', lambda waves, k, valid: impose(waves, k**2, valid)),
    ),
    'background subtracted from the counts': (
        checks.test_a_background_adds_to_the_rate,
        (
            physics,
            'impose_counts',
            lambda waves, k, valid, dark=0.0: impose(waves, np.maximum(k - dark, 0), valid),
        ),
    ),
    'probe scaled by the ratio of counts': (
        checks.test_an_empty_object_predicts_the_measured_mean_counts,
        (sweeps, 'scale_probe', lambda probe, mean, valid: scale(probe, mean**2, valid)),
    ),
    'probe scaled over bad pixels': (
        checks.test_an_empty_object_predicts_the_measured_mean_counts,
        (sweeps, 'scale_probe', all_valid(scale)),
    ),
    'bad pixels in the loss': (
        checks.test_bad_pixels_take_no_part,
        (physics, 'poisson_loss', all_valid(loss)),
    ),
    'bad pixels imposed': (
        checks.test_bad_pixels_take_no_part,
        (physics, 'impose_counts', all_valid(impose)),
    ),
    'bad pixels in the mean': (
        checks.test_bad_pixels_take_no_part,
        (ScanData, 'mean_counts', lambda scan: float(scan.patterns.sum()) / scan.n_patterns),
    ),
    'ramp backwards': (
        checks.test_a_ramp_moves_the_far_field_and_its_opposite_hides_it,
        (probes, 'ramp', lambda *arguments: ramp(*arguments).conj()),
    ),
    'ramp scaled to the canvas': (
        checks.test_a_ramp_moves_the_far_field_and_its_opposite_hides_it,
        (probes, 'ramp', lambda shape, tilt, n: ramp(shape, tilt, shape[0])),
    ),
    'probe tilted away from the mean pattern': (
        checks.test_a_probe_to_be_refined_starts_where_the_mean_pattern_lies,
        (sweeps, 'ramp', lambda *arguments: ramp(*arguments).conj()),
    ),
    'gauge let go': (
        checks.test_sweeps_keep_energy_and_place_of_the_probe,
        (sweeps, '_keep_gauge', lambda *arguments: None),
    ),
    'amplitudes not squared': (
        checks.test_the_kind_of_the_patterns_is_told_by_evidence_then_by_contract,
        (conversion, '_with_counts', lambda raw, kind, why: with_counts(raw, 'intensity', why)),
    ),
    'contract before evidence': (
        checks.test_the_kind_of_the_patterns_is_told_by_evidence_then_by_contract,
        (conversion, 'decide_diffraction_kind', lambda raw, options: (raw.contract, 'contract')),
    ),
    'beam left in the corner': (
        checks.test_the_beam_goes_to_pixel_half_n,
        (conversion, 'with_beam_at_center', lambda raw, options: raw),
    ),
    'first pixel taken for the centre': (
        checks.test_positions_become_patch_centres,
        (conversion, '_with_patch_centers', anchored),
    ),
    'positions halved about the middle of a pixel': (
        checks.test_a_cropped_detector_sees_the_same_sample_in_larger_pixels,
        (ScanData, 'cropped', cropped_about_pixel_zero),
    ),
    'detector cropped beside the beam': (
        checks.test_a_cropped_detector_sees_the_same_sample_in_larger_pixels,
        (ScanData, 'cropped', cropped_beside_the_beam),
    ),
}


@pytest.mark.parametrize(('check', 'flip'), FLIPS.values(), ids=list(FLIPS))
def test_a_flipped_convention_is_noticed(check, flip, monkeypatch):
    check()
    monkeypatch.setattr(*flip)
    with pytest.raises(AssertionError):
        check()
