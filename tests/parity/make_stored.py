"""Write `stored.npz`: `python -m tests.parity.make_stored`.

It is committed; writing it anew means that the physics changed.
"""

import numpy as np

from tests.parity.oracle import of_groups, of_whole_scan
from tests.parity.scenes import PlainScene, lopsided_scan
from tests.parity.stored import FILE, GroupScene


def first_scene() -> PlainScene:
    """Return the scene that is stored, `stored.scene`."""
    whole = lopsided_scan(32, 2, whole=False)
    scan = whole.subset(np.flatnonzero(np.arange(whole.n_patterns) % 5 < 3)[:12])
    return PlainScene.on(scan, whole=False)


def arrays() -> dict[str, np.ndarray]:
    """Return inputs and results; what is large in single precision."""
    scene = first_scene()
    inputs = {
        'patterns': scene.scan.patterns.astype(np.uint16),
        'positions_px': scene.scan.positions_px,
        'bad_pixels': scene.scan.bad_pixels,
        'first_probe': scene.scan.probe,
        'object': scene.object_,
        'probe': scene.probe,
    }
    assert np.array_equal(inputs['patterns'], scene.scan.patterns)
    return inputs | {
        name: shorter(array)
        for name, array in (of_whole_scan(scene) | of_groups(GroupScene())).items()
    }


def shorter(array: np.ndarray) -> np.ndarray:
    if array.size < 100:
        return array
    return array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)


if __name__ == '__main__':
    np.savez_compressed(FILE, **arrays())
