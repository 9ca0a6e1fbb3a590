"""What the tests must know of the inside of the TensorFlow backend; twin of `inside_pytorch`."""

import keras
import tensorflow as tf

from ptychodus_torch_plugin.backends.tensorflow import prediction, reconstruction, unrolled_training
from ptychodus_torch_plugin.backends.tensorflow.cnn_training import CnnTraining
from ptychodus_torch_plugin.backends.tensorflow.layers import to_canonical, to_native
from ptychodus_torch_plugin.backends.tensorflow.training import Task, Training
from ptychodus_torch_plugin.backends.training_log import TrainingLog

from .scored import Compared, Scored

__all__ = [
    'BEST',
    'LAST',
    'PACKAGES',
    'CnnLoss',
    'change_losses',
    'corrected',
    'prediction',
    'reconstruction',
]

PACKAGES = ('tensorflow', 'keras')
LOGGERS = ()
BEST, LAST = 'best.ckpt', 'last.ckpt'


def hide_gpu(monkeypatch):
    """Let the framework find no accelerator."""
    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda *_: [])


def disturb():
    """Do to the framework's generator what another program might do."""
    tf.random.set_seed(77)


def global_state():
    """Return what the framework keeps for the whole process."""
    return {
        'threads': tf.config.threading.get_intra_op_parallelism_threads(),
        'tf32': tf32(),
        'eager': tf.config.functions_run_eagerly(),
        'jit': tf.config.optimizer.get_jit(),
        'device': tf.constant(0).device,
        'float': keras.config.floatx(),
        'policy': keras.config.dtype_policy().name,
        'data format': keras.config.image_data_format(),
    }


def tf32():
    """Return whether float32 may be shortened in convolutions, and in products."""
    return (tf.config.experimental.tensor_float_32_execution_enabled(),) * 2


def set_tf32(_, products):
    tf.config.experimental.enable_tensor_float_32_execution(products)


def _after_begin(monkeypatch, wrap):
    """Call `wrap(training)` as soon as the functions that compute are there."""
    real = Training.begin

    def begin(training):
        real(training)
        wrap(training)

    monkeypatch.setattr(Training, 'begin', begin)


def watch_rates(monkeypatch):
    """Return a list that gets the epoch, from 0, and the learning rate of every step."""
    rates = []

    def wrap(training):
        step = training._step

        def watched():
            rates.append((len(training._task.log.history), float(training.adam.learning_rate)))
            step()

        training._step = watched

    _after_begin(monkeypatch, wrap)
    return rates


def change_losses(monkeypatch, change):
    """Let `change(loss, training)` say what a batch costs."""

    def wrap(training):
        gather, score = training._gather, training._score
        training._gather = lambda batch: change(float(gather(batch)), training=True)
        training._score = lambda batch: change(float(score(batch)), training=False)

    _after_begin(monkeypatch, wrap)


def spy(monkeypatch):
    """Return a list that gets every call of the likelihood of 'unrolled'."""
    calls = []
    real = unrolled_training._scored

    def scored(view, first, chosen, counts):
        tensors = real(view, first, chosen, counts)
        canvas, probe = view.scan.frame.shape, view.probe.numpy()
        figures = view.scale, view.mean_count
        # Whether it trains, and what it costs, is known once it is computed.
        arrays = tensors.counts.numpy(), tensors.background.numpy()
        calls.append(Scored(canvas, *figures, probe, chosen, *arrays, False, float('nan')))
        return tensors

    def note(loss, *, training):
        calls[-1].training, calls[-1].loss = training, loss
        return loss

    monkeypatch.setattr(unrolled_training, '_scored', scored)
    change_losses(monkeypatch, note)
    return calls


def spy_on_objects(monkeypatch):
    """Return a list that gets every comparison of objects."""
    calls = []
    real = unrolled_training.UnrolledTraining._training_batch

    def training_batch(training, step):
        batch = real(training, step)
        seen = batch.object_, batch.photons, batch.target, batch.target_weight
        # What it costs is known once it is computed.
        calls.append(Compared(*(x.numpy() for x in seen), float('nan')))
        return batch

    def note(loss, *, training):
        if training:
            calls[-1].loss = loss
        return loss

    monkeypatch.setattr(unrolled_training.UnrolledTraining, '_training_batch', training_batch)
    change_losses(monkeypatch, note)
    return calls


def turned(canvas, turn):
    return unrolled_training.turned(tf.constant(canvas), turn).numpy()


def distance(object_, target, weight):
    return float(unrolled_training._distance(*map(tf.constant, (object_, target, weight))))


def corrected(model, object_, photons, gauge):
    """Return what the unrolled network makes of arrays."""
    return model.network(tf.constant(object_), tf.constant(photons), tf.constant(gauge)).numpy()


class CnnLoss:
    """The loss of batches of groups, and its gradients."""

    def __init__(self, model, scans, training, execution):
        log = TrainingLog(training.epochs, lambda _: None, lambda: False)
        task = Task(
            model.network, model.config, model.calibration, scans, training, execution, log, {}
        )
        self._training = CnnTraining.prepare(task)
        self._variables = self._training.named_variables()

    def __call__(self, batch):
        return float(self._training.loss(self._training._tensors(batch)))

    def gradients(self, batch):
        """Return the gradients with respect to all variables by canonical name."""
        variables = [variable.value for variable in self._variables.values()]
        with tf.GradientTape() as tape:
            tape.watch(variables)
            loss = self._training.loss(self._training._tensors(batch))
        found = zip(self._variables, tape.gradient(loss, variables), strict=True)
        return {name: to_canonical(name, gradient.numpy()) for name, gradient in found}

    def move(self, name, change):
        """Add an array to a variable."""
        self._variables[name].assign_add(to_native(name, change))
