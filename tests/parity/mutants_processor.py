"""Mistakes in what all backends do on a processor, one at a time; see `mutations.py`."""

from tests.parity.mutants import mutants_of

PROCESSOR = mutants_of(
    'torch',
    (
        'a node too few in a shift',
        '../kernels.py',
        'for k in range(n_nodes - n_nodes % 3, n_nodes):',
        'for k in range(n_nodes - n_nodes % 3, n_nodes - 1):',
    ),
    (
        'conjugate missing in what pulls on the probe',
        '../kernels.py',
        'wanted[y, x] * patch[x].conjugate()',
        'wanted[y, x] * patch[x]',
    ),
    (
        'conjugate missing in the shift back',
        '../kernels.py',
        'spectrum[i] * factor[i].conjugate()',
        'spectrum[i] * factor[i]',
    ),
    (
        'conjugate missing in what pulls on the object',
        '../processor_visits.py',
        'probe.conj() * (fitted.step',
        'probe * (fitted.step',
    ),
    (
        'background not in the rate',
        '../kernels.py',
        'max(intensity[i] + background[i], MIN_INTENSITY)',
        'max(intensity[i], MIN_INTENSITY)',
    ),
    (
        'background not taken from the measured moments',
        '../kernels.py',
        '(count[i] - background[i]) * weight[i]',
        'count[i] * weight[i]',
    ),
    (
        'all modes pull with the first one',
        '../kernels.py',
        'weights[j], pulls, (mode * n_px + top) * n_px',
        'weights[j], pulls, top * n_px',
    ),
    (
        'light of all modes',
        '../kernels.py',
        'if mode == 0:',
        'if mode >= 0:',
    ),
    (
        'what pulls is as bright as the beam',
        '../processor_visits.py',
        'batch.corners, batch.pull_weights, self._pulls',
        'batch.corners, batch.weights, self._pulls',
    ),
)
