"""What the pages of the reconstructors say first."""

from __future__ import annotations

from ptychodus_torch_plugin.integration.reconstructor import (
    FitReconstructor,
    PretrainedReconstructor,
)
from ptychodus_torch_plugin.integration.support import LIBRARY_NAME

TRAINABLE_TEXT = (
    '<b>Export Training Data…</b> (menu ▾ above) once for each scan, then <b>Train</b> on the '
    'folder of these files. <b>Infer</b> reconstructs the selected scan with the trained model, or '
    'one from <b>Load Model…</b>, by the Inference and Execution settings alone.'
)
FIT_TEXT = (
    '<b>Reconstruct</b> trains a network on the selected scan alone and shows the object as it '
    'gets better; <b>Stop</b> keeps the best so far.'
)
TRAINABLE_SWEEPS_TEXT = (
    'Sweeps alone have nothing to train: <b>Train</b> only keeps the settings as a model. To run '
    'the sweeps on the selected scan at once, choose the algorithm <b>{fit}</b>.'
)
FIT_SWEEPS_TEXT = '<b>Reconstruct</b> runs the sweeps on the selected scan; nothing is trained.'
PRETRAINED_TEXT = (
    '<b>Reconstruct</b> runs sweeps on the selected scan, and a network corrects their object. It '
    'was trained beforehand on simulated scans: nothing is left to train, and it takes seconds.'
)


def introduction(name: str, family: str) -> str:
    """Return what the page of a reconstructor says for the family of networks that is chosen."""
    if name.endswith(PretrainedReconstructor.SUFFIX):
        return PRETRAINED_TEXT
    fits = name.endswith(FitReconstructor.SUFFIX)
    if family != 'none':
        return FIT_TEXT if fits else TRAINABLE_TEXT
    if fits:
        return FIT_SWEEPS_TEXT
    fit = f'{LIBRARY_NAME.casefold()}_{name}{FitReconstructor.SUFFIX}'
    return TRAINABLE_SWEEPS_TEXT.format(fit=fit)
