"""Options of PtychoPINN's network, architecture 'cnn', alone."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from ptychodus_torch_plugin.cli.options import setting, switch

ModelType = Literal['pinn', 'supervised']
Activation = Literal['sigmoid', 'swish', 'softplus', 'relu']
InputScaling = Literal['training', 'scan']


def cnn_setting(*names: str, default: str, what: str) -> Any:
    """Return `options.setting` whose help says that it is for 'cnn'."""
    return setting(*names, default=default, what=f'cnn: {what}')


def cnn_switch(name: str, *, default: bool, what: str) -> Any:
    """Return `options.switch` whose help says that it is for 'cnn'."""
    return switch(name, default=default, what=f'cnn: {what}')


NeighborCount = Annotated[
    int | None,
    cnn_setting(
        '--neighbor_count',
        default='C',
        what="nearest neighbours from which a group's other C - 1 patterns are drawn.",
    ),
]


@dataclass(frozen=True)
class CnnOptions:
    """What 'cnn' is, which groups it sees, and what it learns from them.

    See `config.ModelConfig` and `config.TrainingConfig`; `--gridsize` is in `model_options`.
    """

    SETTINGS: ClassVar[dict[str, str]] = {
        'batch_size': 'training.batch_size',
        'n_groups': 'training.n_groups',
        'n_subsample': 'training.n_subsample',
        'neighbor_count': 'training.neighbor_count',
        'enable_oversampling': 'training.enable_oversampling',
        'sequential_sampling': 'training.sequential_sampling',
        'model_type': 'model.model_type',
        'n_filters_scale': 'model.n_filters_scale',
        'amp_activation': 'model.amp_activation',
        'object_big': 'model.object_big',
        'probe_big': 'model.probe_big',
        'pad_object': 'model.pad_object',
        'probe_mask': 'model.probe_mask',
        'gaussian_smoothing_sigma': 'model.gaussian_smoothing_sigma',
        'cbam_encoder': 'model.cbam_encoder',
        'outer_channels': 'model.outer_channels',
        'border_filters': 'model.border_filters',
        'input_scaling': 'model.input_scaling',
        'nll_weight': 'training.nll_weight',
        'mae_weight': 'training.mae_weight',
        'tv_weight': 'training.tv_weight',
        'realspace_mae_weight': 'training.realspace_mae_weight',
        'probe_trainable': 'training.probe_trainable',
        'intensity_scale_trainable': 'training.intensity_scale_trainable',
    }

    # Which groups
    batch_size: Annotated[
        int | None,
        cnn_setting('--batch_size', default='16', what='groups that make one optimiser step.'),
    ] = None
    n_groups: Annotated[
        int | None,
        cnn_setting(
            '--n_groups',
            '--n_images',
            default='one for each pattern',
            what='groups of each scan, those that validate among them.',
        ),
    ] = None
    n_subsample: Annotated[
        int | None,
        cnn_setting(
            '--n_subsample',
            default='all',
            what='patterns of each scan that training may see at all.',
        ),
    ] = None
    neighbor_count: NeighborCount = None
    enable_oversampling: Annotated[
        bool | None,
        cnn_switch(
            'enable_oversampling',
            default=False,
            what='whether there may be more groups than patterns.',
        ),
    ] = None
    sequential_sampling: Annotated[
        bool | None,
        cnn_switch(
            'sequential_sampling',
            default=False,
            what='whether groups start from the first patterns in order, not from random ones.',
        ),
    ] = None

    # What the network is
    model_type: Annotated[
        ModelType | None,
        cnn_setting(
            '--model_type',
            default='pinn',
            what='pinn: trained by physics, without labels; supervised: against a known object.',
        ),
    ] = None
    n_filters_scale: Annotated[
        int | None,
        cnn_setting(
            '--n_filters_scale', default='2', what='factor on the number of filters of a layer.'
        ),
    ] = None
    amp_activation: Annotated[
        Activation | None,
        cnn_setting('--amp_activation', default='sigmoid', what='activation of the amplitude.'),
    ] = None
    object_big: Annotated[
        bool | None,
        cnn_switch(
            'object_big',
            default=True,
            what='whether every pattern of a group has a patch of its own, or one serves them all.',
        ),
    ] = None
    probe_big: Annotated[
        bool | None,
        cnn_switch(
            'probe_big', default=True, what='whether the patch reaches beyond its central half.'
        ),
    ] = None
    pad_object: Annotated[
        bool | None,
        cnn_switch(
            'pad_object',
            default=True,
            what='whether the outer part of the patch has layers of its own.',
        ),
    ] = None
    probe_mask: Annotated[
        bool | None,
        cnn_switch(
            'probe_mask',
            default=False,
            what='whether the exit wave is cut off outside a disc of diameter N / 2.',
        ),
    ] = None
    gaussian_smoothing_sigma: Annotated[
        float | None,
        cnn_setting(
            '--gaussian_smoothing_sigma',
            default='0',
            what='sigma in pixels of a Gaussian filter of the exit wave; 0: none.',
        ),
    ] = None
    cbam_encoder: Annotated[
        bool | None,
        cnn_switch(
            'cbam_encoder',
            default=False,
            what='whether each level of the encoder weighs its channels and pixels.',
        ),
    ] = None
    outer_channels: Annotated[
        int | None,
        cnn_setting(
            '--outer_channels',
            default='4',
            what='channels of a decoder that make the outer part of the patch.',
        ),
    ] = None
    border_filters: Annotated[
        int | None,
        cnn_setting(
            '--border_filters',
            default='n_filters_scale * 2048 / N',
            what='filters of the layers at the full side N.',
        ),
    ] = None
    input_scaling: Annotated[
        InputScaling | None,
        cnn_setting(
            '--input_scaling',
            default='training',
            what='normalise the input by the counts of the training scans, or of the scan at hand.',
        ),
    ] = None

    # What it learns from
    nll_weight: Annotated[
        float | None,
        cnn_setting(
            '--nll_weight',
            default='for pinn 1, for supervised 0',
            what='weight of the Poisson likelihood.',
        ),
    ] = None
    mae_weight: Annotated[
        float | None,
        cnn_setting(
            '--mae_weight',
            default='0',
            what='weight of the mean absolute error of the amplitudes in the detector.',
        ),
    ] = None
    tv_weight: Annotated[
        float | None,
        cnn_setting(
            '--tv_weight', default='0', what='weight of the total variation of the object.'
        ),
    ] = None
    realspace_mae_weight: Annotated[
        float | None,
        cnn_setting(
            '--realspace_mae_weight',
            default='for pinn 0, for supervised 1',
            what='weight of the mean absolute error against the known object.',
        ),
    ] = None
    probe_trainable: Annotated[
        bool | None,
        cnn_switch('probe_trainable', default=False, what='whether the probe is trained as well.'),
    ] = None
    intensity_scale_trainable: Annotated[
        bool | None,
        cnn_switch(
            'intensity_scale_trainable',
            default=False,
            what="whether the factor on the network's amplitudes is trained as well.",
        ),
    ] = None
