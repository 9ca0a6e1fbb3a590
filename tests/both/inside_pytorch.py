"""What the tests must know of the inside of the PyTorch backend; twin of `inside_tensorflow`."""

import os

import torch

from ptychodus_torch_plugin.backends.torch import prediction, reconstruction, unrolled_training
from ptychodus_torch_plugin.backends.torch.cnn_training import CnnTraining, GroupData
from ptychodus_torch_plugin.backends.torch.training import Task, Training
from ptychodus_torch_plugin.backends.torch.unrolled import UnrolledNetwork
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

PACKAGES = ('torch', 'lightning')
LOGGERS = ('lightning.pytorch', 'lightning.fabric')
BEST, LAST = 'best.ckpt', 'last.ckpt'


def hide_gpu(monkeypatch):
    """Let the framework find no accelerator."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: False)


def disturb():
    """Do to the framework's generator what another program might do."""
    torch.manual_seed(77)


def global_state():
    """Return what the framework keeps for the whole process."""
    return {
        'threads': torch.get_num_threads(),
        'deterministic': torch.are_deterministic_algorithms_enabled(),
        'warn only': torch.is_deterministic_algorithms_warn_only_enabled(),
        'cudnn': (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        'tf32': tf32(),
        'dtype': torch.get_default_dtype(),
        'gradients': torch.is_grad_enabled(),
        'torch rng': torch.get_rng_state().tolist(),
        'cublas': os.environ.get('CUBLAS_WORKSPACE_CONFIG'),
    }


def tf32():
    """Return whether float32 may be shortened in convolutions, and in products."""
    products = torch.get_float32_matmul_precision()
    return torch.backends.cudnn.allow_tf32, {'high': True, 'highest': False}[products]


def set_tf32(convolutions, products):
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision('high' if products else 'highest')


def watch_rates(monkeypatch):
    """Return a list that gets the epoch, from 0, and the learning rate of every step."""
    rates = []

    def before(module, optimizer):
        rates.append((module.current_epoch, optimizer.param_groups[0]['lr']))

    monkeypatch.setattr(Training, 'on_before_optimizer_step', before)
    return rates


def change_losses(monkeypatch, change):
    """Let `change(loss, training)` say what a batch costs."""

    def changing(real):
        def training_step(module, batch, number):
            loss = real(module, batch, number)
            known = float(loss.detach())
            new = change(known, training=True)
            return loss if new == known else loss * 0 + new

        return training_step

    for family in (unrolled_training.UnrolledTraining, CnnTraining):
        monkeypatch.setattr(family, 'training_step', changing(family.training_step))
    real = Training.log_loss

    def log_loss(module, name, loss, n_patterns):
        if name == 'val_loss':
            loss = torch.full_like(loss, change(float(loss), training=False))
        real(module, name, loss, n_patterns)

    monkeypatch.setattr(Training, 'log_loss', log_loss)


def spy(monkeypatch):
    """Return a list that gets every call of the likelihood of 'unrolled'."""
    calls = []
    real = unrolled_training._score

    def score(view, object_, first, chosen, counts):
        loss = real(view, object_, first, chosen, counts)
        calls.append(
            Scored(
                view.scan.frame.shape,
                view.scale,
                view.mean_count,
                view.probe.numpy(),
                chosen,
                counts.numpy(),
                None if view.scan.background is None else view.scan.background.numpy(),
                torch.is_grad_enabled(),
                float(loss.detach()),
            )
        )
        return loss

    monkeypatch.setattr(unrolled_training, '_score', score)
    return calls


def spy_on_objects(monkeypatch):
    """Return a list that gets every comparison of objects."""
    calls, seen = [], []
    forward, distance = UnrolledNetwork.forward, unrolled_training._distance

    def looking(network, object_, photons, gauge):
        seen[:] = object_.numpy(), photons.numpy()
        return forward(network, object_, photons, gauge)

    def comparing(object_, target, weight):
        loss = distance(object_, target, weight)
        calls.append(Compared(*seen, target.numpy(), weight.numpy(), float(loss.detach())))
        return loss

    monkeypatch.setattr(UnrolledNetwork, 'forward', looking)
    monkeypatch.setattr(unrolled_training, '_distance', comparing)
    return calls


def turned(canvas, turn):
    return unrolled_training.turned(torch.from_numpy(canvas), turn).numpy()


def distance(object_, target, weight):
    return float(unrolled_training._distance(*map(torch.from_numpy, (object_, target, weight))))


@torch.no_grad()
def corrected(model, object_, photons, gauge):
    """Return what the unrolled network makes of arrays."""
    arguments = (torch.from_numpy(object_), torch.from_numpy(photons), torch.tensor(gauge))
    return model.network(*arguments).numpy()


class CnnLoss:
    """The loss of batches of groups, and its gradients."""

    def __init__(self, model, scans, training, execution):
        log = TrainingLog(training.epochs, lambda _: None, lambda: False)
        device = torch.device('cpu')
        task = Task(
            model.network,
            model.config,
            model.calibration,
            scans,
            training,
            execution,
            device,
            log,
            {},
        )
        self._training = CnnTraining.prepare(task)
        self._variables = self._training.named_variables()

    def __call__(self, batch):
        with torch.no_grad():
            return float(self._loss(batch))

    def _loss(self, batch):
        return self._training.loss(GroupData(self._training._plan, [batch])[0])

    def gradients(self, batch):
        """Return the gradients with respect to all variables by canonical name."""
        found = torch.autograd.grad(self._loss(batch), list(self._variables.values()))
        return {name: g.numpy() for name, g in zip(self._variables, found, strict=True)}

    @torch.no_grad()
    def move(self, name, change):
        """Add an array to a variable."""
        self._variables[name] += torch.tensor(change)
