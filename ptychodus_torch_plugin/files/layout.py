"""Names that the readers and the writers of HDF5 files share.

The dataset names of a scan file are those of the training data file of Ptychodus 1.7, so that stock
Ptychodus reads it too; everything of ours stands in root attributes, in `POSITIONS`,
`BACKGROUND` and `INDEXES`.
"""

from __future__ import annotations

SCAN_FORMAT = 'ptychodus_torch_plugin.scan'
SCAN_FORMAT_VERSION = 1

PATTERNS = 'patterns'
BAD_PIXELS = 'bad_pixels'
PROBE = 'probe'
OBJECT = 'object'
POSITION_Y_PX = 'probe_position_y_px'
POSITION_X_PX = 'probe_position_x_px'
PIXEL_HEIGHT = 'object_pixel_height_m'
PIXEL_WIDTH = 'object_pixel_width_m'
DISTANCE = 'detector_object_distance_m'
ENERGY = 'photon_energy_eV'

# Ours.  POSITIONS holds the positions to the last bit; the two datasets above are the same ones
# relative to the stored object, which rounds them.  BACKGROUND is there if the scan has one, and
# INDEXES if its patterns are not numbered from 0.
POSITIONS = 'positions_px'
BACKGROUND = 'background'
INDEXES = 'indexes'
FORMAT_ATTRIBUTE = 'format'
VERSION_ATTRIBUTE = 'format_version'
KIND_ATTRIBUTE = 'diffraction_kind'
ORIGIN_M_ATTRIBUTE = 'origin_m'
GRID_ORIGIN_ATTRIBUTE = 'grid_origin_px'
NAME_ATTRIBUTE = 'name'
PROVENANCE_ATTRIBUTE = 'provenance'
PLACEHOLDERS_ATTRIBUTE = 'placeholders'

# On the root of a product: the pixel size is not known, lengths are in pixels.
UNKNOWN_PIXEL_ATTRIBUTE = 'pixel_size_unknown'
