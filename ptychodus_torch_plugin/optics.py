"""What is known of the experiment besides patterns and positions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Optics:
    """Lengths and energies of the experiment, all optional; `None` means not known.

    Attributes
    ----------
    pixel_size_m
        Object pixel [height, width] in metres.
    photon_energy_eV, detector_distance_m
        As in a Ptychodus product.
    origin_m
        Position [y, x] in metres of pixel [0, 0] of the object grid, so that
        position_m = origin_m + position_px * pixel_size_m.
    """

    pixel_size_m: tuple[float, float] | None = None
    photon_energy_eV: float | None = None
    detector_distance_m: float | None = None
    origin_m: tuple[float, float] = (0.0, 0.0)
