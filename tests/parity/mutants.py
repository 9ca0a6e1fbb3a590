"""Small mistakes, one at a time, that somebody could make in a backend; see `mutations.py`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A file of a backend, and texts in it with what stands there instead."""

    backend: str
    name: str
    file: str
    changes: tuple[tuple[str, str], ...]

    def applied_to(self, source: str) -> str:
        for old, new in self.changes:
            assert source.count(old) == 1, f'{self.file} has {source.count(old)} times {old!r}'
            source = source.replace(old, new)
        return source


def _of(backend: str, *rows: tuple[str, ...]) -> list[Mutant]:
    """Return a mutant for each row: name, file, and pairs of texts."""
    return [
        Mutant(backend, name, file, tuple(zip(texts[::2], texts[1::2], strict=True)))
        for name, file, *texts in rows
    ]


TORCH = _of(
    'torch',
    (
        'checkerboard dropped',
        'physics.py',
        'line = 1 - 2 * (torch.arange(n_px, device=device) % 2)',
        'line = 1 + 0 * torch.arange(n_px, device=device)',
    ),
    ('sub-pixel shift has the other sign', 'physics.py', 'torch.exp(-2j *', 'torch.exp(2j *'),
    (
        'modes add coherently',
        'physics.py',
        'absolute_square(far_field(probes * patches)).sum(1)',
        'absolute_square(far_field(probes * patches).sum(1))',
    ),
    (
        'another smallest intensity in the likelihood',
        'physics.py',
        'i = predicted.clamp_min(MIN_INTENSITY)',
        'i = predicted.clamp_min(1e-2)',
    ),
    ('bad pixels count', 'physics.py', 'i.log() - best) * valid', 'i.log() - best)'),
    (
        'amplitude error over the mean, not its root',
        'physics.py',
        'valid.sum() * math.sqrt(mean_count)',
        'valid.sum() * mean_count',
    ),
    (
        'total variation pairs other pixels',
        'physics.py',
        'objects[:, :, :-1])[:, :-1]',
        'objects[:, :, :-1])[:, 1:]',
    ),
    (
        'patches lie one pixel lower on the canvas',
        'merging.py',
        'line[:n_px] - margin',
        'line[:n_px] - margin - 1',
    ),
    (
        'rows and columns of the canvas swapped',
        'merging.py',
        'return matrices[:, :, 0], matrices[:, :, 1]',
        'return matrices[:, :, 1], matrices[:, :, 0]',
    ),
    (
        'offsets have the other sign',
        'merging.py',
        'distance - offsets_px[..., None, None]',
        'distance + offsets_px[..., None, None]',
    ),
    (
        'patches of a group weighed by a transposed weight',
        'merging.py',
        'torch.view_as_real(patches) * weight[..., None]',
        'torch.view_as_real(patches) * weight.T[..., None]',
    ),
    (
        'channels of a group reversed',
        'cnn.py',
        'x = amplitudes.clone(',
        'x = amplitudes.flip(1).clone(',
    ),
    ('means pooled, not maxima', 'cnn.py', 'functional.max_pool2d(', 'functional.avg_pool2d('),
    (
        'phase conjugated',
        'cnn.py',
        'amplitude * phase.sin())',
        '-amplitude * phase.sin())',
    ),
    (
        'border ends in a sigmoid',
        'cnn.py',
        'functional.silu(self.border',
        'torch.sigmoid(self.border',
    ),
    ('another slope of the activation', 'unrolled.py', 'LEAK = 0.1', 'LEAK = 0.11'),
    (
        'zeros beyond the canvas, not its edge',
        'unrolled.py',
        "mode='replicate'",
        "mode='constant'",
    ),
    (
        'gauge is the mean, not the root of the mean square',
        'unrolled.py',
        'return torch.sqrt(power) * torch.sgn(mean)',
        'return mean',
    ),
    (
        'conjugate missing in the step of the object',
        'sweeps.py',
        '(probes.conj() * change)',
        '(probes * change)',
    ),
    (
        'conjugate missing in the step of the probe',
        'sweeps.py',
        'kernel.conj())',
        'kernel)',
    ),
    (
        'momentum not damped by itself',
        'sweeps.py',
        'object_.add_(object_velocity, alpha=sweep.momentum)',
        'object_.add_(object_velocity)',
    ),
    (
        'an odd drift keeps the sign of the probe',
        'sweeps.py',
        'sign = (-1) ** sum(shift)',
        'sign = 1',
    ),
    ('exit wave not cut off', 'illumination.py', 'if config.probe_mask:', 'if False:'),
    (
        "a trained probe's energy has no gradient",
        'illumination.py',
        'absolute_square(shape).sum().sqrt()',
        'absolute_square(shape).sum().sqrt().detach()',
    ),
    (
        'intensity scale has no gradient',
        'cnn_training.py',
        '* self.network.intensity_scale\n',
        '* self.network.intensity_scale.detach()\n',
    ),
    (
        'input scale of the first scan for all',
        'cnn_training.py',
        'self._input_scales[batch.scan]',
        'self._input_scales[0]',
    ),
    (
        'learning rate of the next step',
        'training.py',
        'self.trainer.global_step,',
        'self.trainer.global_step + 1,',
    ),
    (
        'another epsilon in Adam',
        'training.py',
        'Adam(self.named_variables().values())',
        'Adam(self.named_variables().values(), eps=1e-6)',
    ),
    (
        'another memory in Adam',
        'training.py',
        'Adam(self.named_variables().values())',
        'Adam(self.named_variables().values(), betas=(0.9, 0.99))',
    ),
    (
        'moments of a bundle forgotten',
        'training.py',
        'if not moments:',
        'if moments or not moments:',
    ),
    (
        'steps of a bundle forgotten',
        'training.py',
        "torch.tensor(moments[f'{slot}/{name}'], device=variable.device)",
        "torch.tensor(moments[f'{slot}/{name}'] * (slot != 'step'), device=variable.device)",
    ),
    (
        'intensity scale forgotten at inference',
        'reconstruction.py',
        'amplitudes, offsets_px, scale)',
        'amplitudes, offsets_px, 1.0)',
    ),
)

TENSORFLOW = _of(
    'tensorflow',
    (
        'checkerboard dropped',
        'physics.py',
        'line = 1 - 2 * (np.arange(n_px) % 2)',
        'line = 1 + 0 * np.arange(n_px)',
    ),
    (
        'sub-pixel shift has the other sign',
        'physics.py',
        'phase = -2 * math.pi',
        'phase = 2 * math.pi',
    ),
    (
        'modes add coherently',
        'physics.py',
        'tf.reduce_sum(absolute_square(far_field(probes * patches)), 1)',
        'absolute_square(tf.reduce_sum(far_field(probes * patches), 1))',
    ),
    (
        'another smallest intensity in the likelihood',
        'physics.py',
        'i = tf.maximum(predicted, MIN_INTENSITY)',
        'i = tf.maximum(predicted, 1e-2)',
    ),
    ('bad pixels count', 'physics.py', 'tf.math.log(i) - best) * valid', 'tf.math.log(i) - best)'),
    (
        'amplitude error over the mean, not its root',
        'physics.py',
        '(pixels * tf.sqrt(mean_count))',
        '(pixels * mean_count)',
    ),
    (
        'total variation pairs other pixels',
        'physics.py',
        'objects[:, :, :-1])[:, :-1]',
        'objects[:, :, :-1])[:, 1:]',
    ),
    (
        'patches lie one pixel lower on the canvas',
        'merging.py',
        'line[:n_px] - margin',
        'line[:n_px] - margin - 1',
    ),
    (
        'rows and columns of the canvas swapped',
        'merging.py',
        'return matrices[:, :, 0], matrices[:, :, 1]',
        'return matrices[:, :, 1], matrices[:, :, 0]',
    ),
    (
        'offsets have the other sign',
        'merging.py',
        'distance - offsets_px[..., None, None]',
        'distance + offsets_px[..., None, None]',
    ),
    (
        'patches of a group weighed by a transposed weight',
        'merging.py',
        'tf.stack([weight * real,',
        'tf.stack([tf.transpose(weight) * real,',
    ),
    (
        'channels of a group reversed',
        'cnn.py',
        'x = amplitudes\n',
        'x = tf.reverse(amplitudes, [-1])\n',
    ),
    ('means pooled, not maxima', 'cnn.py', 'tf.nn.max_pool2d(', 'tf.nn.avg_pool2d('),
    (
        'phase conjugated',
        'cnn.py',
        'amplitude * tf.sin(phase))',
        '-amplitude * tf.sin(phase))',
    ),
    ('border ends in a sigmoid', 'cnn.py', 'tf.nn.silu(self.border', 'tf.sigmoid(self.border'),
    (
        'height and width of kernels swapped, there and back',
        'layers.py',
        'np.transpose(array, (2, 3, 1, 0))',
        'np.transpose(array, (3, 2, 1, 0))',
        'np.transpose(array, (3, 2, 0, 1))',
        'np.transpose(array, (3, 2, 1, 0))',
    ),
    ('another slope of the activation', 'unrolled.py', 'LEAK = 0.1', 'LEAK = 0.11'),
    (
        'zeros beside the canvas, not its edge',
        'unrolled.py',
        'tf.repeat(tall[:, :, -1:],',
        'tf.repeat(0 * tall[:, :, -1:],',
    ),
    (
        'gauge is the mean, not the root of the mean square',
        'unrolled.py',
        'return tf.cast(tf.sqrt(power), mean.dtype) * tf.sign(mean)',
        'return mean',
    ),
    (
        'conjugate missing in the step of the object',
        'sweeps.py',
        'tf.reduce_sum(tf.math.conj(probes) * change, 1)',
        'tf.reduce_sum(probes * change, 1)',
    ),
    (
        'conjugate missing in the step of the probe',
        'sweeps.py',
        'tf.math.conj(physics.shift_kernel(ramps))',
        'physics.shift_kernel(ramps)',
    ),
    (
        'momentum not damped by itself',
        'sweeps.py',
        'object_ += sweep.momentum * object_velocity',
        'object_ += object_velocity',
    ),
    (
        'an odd drift keeps the sign of the probe',
        'sweeps.py',
        'sign = (-1) ** (sum(shift) % 2)',
        'sign = 1',
    ),
    ('exit wave not cut off', 'illumination.py', 'if config.probe_mask:', 'if False:'),
    (
        "a trained probe's energy has no gradient",
        'illumination.py',
        'tf.reduce_sum(tf.square(parts))',
        'tf.stop_gradient(tf.reduce_sum(tf.square(parts)))',
    ),
    (
        'intensity scale has no gradient',
        'cnn_training.py',
        'physics.as_complex(self.network.intensity_scale)',
        'physics.as_complex(tf.stop_gradient(self.network.intensity_scale))',
    ),
    (
        'input scale of the first scan for all',
        'cnn_training.py',
        'tf.gather(self._input_scales, batch.scan)',
        'self._input_scales[0]',
    ),
    (
        'learning rate of the next step',
        'training.py',
        'self.n_steps,\n',
        'self.n_steps + 1,\n',
    ),
    (
        'gradients clipped one by one',
        'training.py',
        'gradients, _ = tf.clip_by_global_norm(gradients, limit)',
        'gradients = [tf.clip_by_norm(each, limit) for each in gradients]',
    ),
    (
        'accumulated gradients added up, not averaged',
        'training.py',
        'share = 1 / self._task.execution.accum_steps',
        'share = 1.0',
    ),
    (
        'epsilon of Adam beside the uncorrected root',
        'optimizer.py',
        'tf.sqrt(second) / self._root + self.epsilon',
        '(tf.sqrt(second) + self.epsilon) / self._root',
    ),
    (
        'bias of the moments corrected for the next step',
        'optimizer.py',
        'tf.cast(self.iterations + 1, tf.float64)',
        'tf.cast(self.iterations + 2, tf.float64)',
    ),
    (
        'another memory in Adam',
        'optimizer.py',
        'super().__init__(epsilon=1e-8)',
        'super().__init__(epsilon=1e-8, beta_2=0.99)',
    ),
    (
        'moments of a bundle forgotten',
        'optimizer.py',
        'if not moments:',
        'if moments or not moments:',
    ),
    (
        'steps of a bundle forgotten',
        'optimizer.py',
        "self.iterations.assign(int(moments[f'step/{name}']))",
        'self.iterations.assign(0)',
    ),
    (
        'intensity scale forgotten at inference',
        'reconstruction.py',
        'amplitudes, offsets_px, scale)',
        'amplitudes, offsets_px, 1.0)',
    ),
)

MUTANTS = [*TORCH, *TENSORFLOW]
