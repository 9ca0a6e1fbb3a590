"""From `RawScan` to `ScanData`: the one place where the conventions of a file are undone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import BoolArray, FloatArray, check_array, check_finite
from ptychodus_torch_plugin.errors import PluginError, ScanFileError, ScanValueError, ShapeError
from ptychodus_torch_plugin.files.background import load_background
from ptychodus_torch_plugin.files.cropping import crop_detector
from ptychodus_torch_plugin.files.options import DiffractionKind, ReadOptions, is_pattern_size
from ptychodus_torch_plugin.files.raw import RawScan, as_complex64
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.pattern_store import mapped, outline, summary
from ptychodus_torch_plugin.scan import ScanData

logger = logging.getLogger('ptychodus_torch_plugin.files')

# A measured pattern holds tens of times more counts where the beam is, and a flat one equal parts:
# three times as much in the corner as in the centre is no accident.
_CORNER_RATIO = 3.0


def to_scan(raw: RawScan, options: ReadOptions) -> ScanData:
    """Return the scan in the conventions of this package, as the file and `options` say.

    Raises
    ------
    ShapeError, ScanValueError, ScanFileError
        If arrays do not fit each other, values make no sense, or the beam is not at the centre.
    """
    with keys_named(raw):
        return checked(converted(raw, options), options)


def converted(raw: RawScan, options: ReadOptions, *, in_parts: bool = False) -> RawScan:
    """Return the scan in our conventions, its values not yet checked.

    `in_parts`: these are some patterns of a scan; where the beam is, all of them will say.
    """
    _refuse_contradictions(raw, options)
    raw = _with_background(raw, options)
    _check_shapes(raw)
    kind, reason = decide_diffraction_kind(raw, options)
    raw = _with_counts(raw, kind, reason)
    if not in_parts or options.beam_center != 'auto':
        raw = with_beam_at_center(raw, options)
    raw = _with_photons(raw, options.photons)
    raw = _with_patch_centers(raw, options)
    raw = _with_sorted_modes(raw)
    raw = raw.changed(optics=_optics(raw.optics, options))
    if options.crop_px is not None and not is_pattern_size(raw.patterns.shape[-1]):
        raw = crop_detector(raw, options.crop_px)
    return raw


def checked(raw: RawScan, options: ReadOptions) -> ScanData:
    """Return what `converted` gave as a scan."""
    scan = _scan(raw)
    return scan if options.crop_px is None else scan.cropped(options.crop_px)


@contextmanager
def keys_named(raw: RawScan) -> Iterator[None]:
    """Say in errors what the file calls the arrays."""
    try:
        yield
    except PluginError as error:
        raise type(error)(f'{error} (In this file {raw.keys}.)') from error


def decide_diffraction_kind(raw: RawScan, options: ReadOptions) -> tuple[DiffractionKind, str]:
    """Return what the patterns hold and why; the option first, then evidence, then the contract."""
    wanted = options.diffraction_kind
    if raw.tagged:
        return raw.contract, raw.contract_source
    if wanted != 'auto':
        return wanted, 'as asked for'
    if raw.bad_pixels is not None:
        return 'intensity', 'the file has bad_pixels, which amplitude files have not'
    if raw.patterns.dtype.kind in 'iu':
        return 'intensity', f'the values are {raw.patterns.dtype}, whole counts'
    if raw.contract == 'amplitude' and _holds_whole_numbers(raw.patterns[:8]):
        logger.warning(
            'The patterns are taken as amplitudes (%s), but they hold whole numbers only, as '
            'counts do. If they are counts, set diffraction_kind to intensity.',
            raw.contract_source,
        )
    return raw.contract, raw.contract_source


def _holds_whole_numbers(values: NDArray[np.floating]) -> bool:
    return bool(values.max() > 1) and np.array_equal(values, np.rint(values))


def _refuse_contradictions(raw: RawScan, options: ReadOptions) -> None:
    said = {
        'diffraction_kind': (options.diffraction_kind, ('auto', 'intensity')),
        'beam_center': (options.beam_center, ('auto', 'center')),
        'position_anchor': (options.position_anchor, ('center',)),
    }
    for name, (value, allowed) in said.items():
        if raw.tagged and value not in allowed:
            raise ScanFileError(
                f'the file states its own conventions, and {name} = {value!r} contradicts them; '
                f'expected {" or ".join(map(repr, allowed))}. Leave this option out.'
            )


def _check_shapes(raw: RawScan) -> None:
    """Check what the steps below rely on; `ScanData` checks the rest."""
    if raw.patterns.size == 0:
        raise ScanValueError(
            f'patterns has shape {raw.patterns.shape} and is empty; '
            'expected at least one diffraction pattern.'
        )
    patterns = check_array(outline(raw.patterns), 'n N N', name='patterns')
    if patterns.dtype.kind not in 'iuf':
        raise ShapeError(f'patterns has dtype {patterns.dtype}; expected real numbers.')
    sizes = {'n': patterns.shape[0], 'N': patterns.shape[1]}
    check_array(raw.positions_px, 'n 2', name='positions_px', sizes=sizes)
    check_array(raw.probe, 'm N N', name='probe', sizes=sizes)
    if raw.bad_pixels is not None:
        check_array(raw.bad_pixels, 'N N', name='bad_pixels', sizes=sizes)
    if raw.background is not None:
        check_array(raw.background, 'N N', name='background', sizes=sizes)
    if raw.object_guess is not None:
        check_finite(check_array(raw.object_guess, 'h w', name='object_guess'), name='object_guess')


def _with_background(raw: RawScan, options: ReadOptions) -> RawScan:
    if options.background is None or len(raw.patterns.shape) != 3:
        return raw
    height, width = raw.patterns.shape[1:]
    dark = load_background(options.background, (height, width))
    return raw.changed(
        f'background of {dark.mean():.6g} counts per pixel, as asked for', background=dark
    )


def _with_counts(raw: RawScan, kind: DiffractionKind, reason: str) -> RawScan:
    if raw.bad_pixels is None:
        bad_pixels = np.zeros(raw.patterns.shape[1:], dtype=np.bool_)
    else:
        bad_pixels = raw.bad_pixels != 0
    patterns = mapped(raw.patterns, partial(_as_float32, bad_pixels=bad_pixels))
    if kind == 'intensity':
        note = f'patterns taken as intensity ({reason})'
    else:
        lowest = summary(patterns).lowest
        if lowest < 0:
            raise ScanValueError(
                f'patterns has negative values (lowest {lowest:g}) and is taken as '
                f'amplitude ({reason}); expected square roots of counts.'
            )
        note = f'patterns taken as amplitude ({reason}): squared to counts'
        patterns = mapped(patterns, _squared)
    return raw.changed(note, patterns=patterns, bad_pixels=bad_pixels)


def _as_float32(stored: NDArray[Any], bad_pixels: BoolArray) -> FloatArray:
    # Before any arithmetic: squares of uint16 overflow.  A float64 beyond float32 becomes infinite,
    # which ScanData reports.
    with np.errstate(over='ignore', invalid='ignore'):
        patterns = np.ascontiguousarray(stored, dtype=np.float32)
    if bad_pixels.any():
        patterns[:, bad_pixels] = 0  # dead pixels may hold NaN or a marker
    return patterns


def _squared(amplitudes: FloatArray) -> FloatArray:
    with np.errstate(over='ignore'):
        return np.square(amplitudes)


def with_beam_at_center(raw: RawScan, options: ReadOptions) -> RawScan:
    """Return the scan with its beam at the centre; refuse one whose patterns say otherwise."""
    if options.beam_center == 'corner':
        return raw.changed(
            'beam taken at pixel [0, 0], as asked for: moved to the centre',
            patterns=mapped(raw.patterns, partial(np.fft.fftshift, axes=(-2, -1))),
            bad_pixels=None if raw.bad_pixels is None else np.fft.fftshift(raw.bad_pixels),
            background=None if raw.background is None else np.fft.fftshift(raw.background),
        )
    if options.beam_center == 'center':
        return raw.changed('beam taken at pixel [N//2, N//2], as asked for')
    center, corner = _energy_at_center_and_corner(summary(raw.patterns).total)
    if corner > _CORNER_RATIO * center:
        raise ScanFileError(
            f'patterns hold {corner:.4g} counts around pixel [0, 0] and {center:.4g} around the '
            'centre; expected the beam at pixel [N//2, N//2]. Say where it is: '
            '--beam-center corner moves it from pixel [0, 0] to the centre, '
            '--beam-center center takes the patterns as they are.'
        )
    note = 'beam taken at pixel [N//2, N//2] (default; the counts do not contradict)'
    return raw if raw.tagged else raw.changed(note)


def _energy_at_center_and_corner(pattern: NDArray[np.float64]) -> tuple[float, float]:
    """Return the counts within N/8 pixels of [N//2, N//2] and, across the edges, of [0, 0]."""
    middle, reach = pattern.shape[0] // 2, max(1, pattern.shape[0] // 8)
    window = slice(middle - reach, middle + reach)
    return float(pattern[window, window].sum()), float(
        np.fft.fftshift(pattern)[window, window].sum()
    )


def _with_photons(raw: RawScan, photons: float | None) -> RawScan:
    if photons is None:
        return raw
    total = float(summary(raw.patterns).total.sum())
    if not (np.isfinite(total) and total > 0):  # ScanData reports such a total
        return raw
    mean = total / len(raw.patterns)
    dark = raw.background
    return raw.changed(
        f'patterns scaled from {mean:.6g} to {photons:.6g} mean total counts, as asked for',
        patterns=mapped(raw.patterns, partial(np.multiply, np.float32(photons / mean))),
        background=None if dark is None else dark * np.float32(photons / mean),
    )


def _with_patch_centers(raw: RawScan, options: ReadOptions) -> RawScan:
    if raw.tagged:
        return raw
    if options.position_anchor != raw.usual_anchor:
        logger.warning(
            'The positions are taken as the %s of a patch, but files of this kind usually give the '
            '%s. If this one does, set position_anchor to %s.',
            options.position_anchor,
            raw.usual_anchor,
            raw.usual_anchor,
        )
    n_px = raw.patterns.shape[-1]
    anchor_px = {'center': (n_px - 1) / 2, 'center-pixel': n_px // 2, 'first-pixel': 0}
    shift = (n_px - 1) / 2 - anchor_px[options.position_anchor]
    return raw.changed(
        f'positions denote the {options.position_anchor} of a patch: moved by {shift:+g} px',
        positions_px=raw.positions_px + shift,
    )


def _with_sorted_modes(raw: RawScan) -> RawScan:
    probe = as_complex64(raw.probe)
    energies = np.square(np.abs(probe).astype(np.float64)).sum(axis=(-2, -1))
    order = np.argsort(-energies, kind='stable')
    if np.array_equal(order, np.arange(len(probe))):
        return raw.changed(probe=probe)
    return raw.changed(
        f'probe modes sorted by energy, from the order {order.tolist()}', probe=probe[order]
    )


def _optics(optics: Optics, options: ReadOptions) -> Optics:
    if options.pixel_size_m is not None:
        # Positions stay where they are in pixels, so all lengths in metres grow with the pixel.
        size = (options.pixel_size_m, options.pixel_size_m)
        old = optics.pixel_size_m or (1.0, 1.0)
        origin = (
            optics.origin_m[0] * size[0] / old[0],
            optics.origin_m[1] * size[1] / old[1],
        )
        optics = replace(optics, pixel_size_m=size, origin_m=origin)
    return replace(
        optics,
        photon_energy_eV=options.photon_energy_eV or optics.photon_energy_eV,
        detector_distance_m=options.detector_distance_m or optics.detector_distance_m,
    )


def _scan(raw: RawScan) -> ScanData:
    guess = raw.object_guess
    if raw.bad_pixels is None:
        raise AssertionError('the step that makes counts sets bad_pixels')
    return ScanData(
        patterns=raw.patterns,
        positions_px=raw.positions_px,
        probe=raw.probe,
        bad_pixels=raw.bad_pixels,
        object_guess=None if guess is None else as_complex64(guess),
        background=None if raw.background is None else raw.background.astype(np.float32),
        optics=raw.optics,
        name=raw.name,
        provenance=raw.notes,
        indexes=raw.indexes,
    )
