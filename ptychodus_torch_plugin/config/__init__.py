"""All settings: frozen, validated, unknown fields refused, JSON or YAML in and out.

`RunConfig` is the whole run in one file.  Settings that describe the model and what it learnt from
travel in the bundle; settings of the machine and the optimiser (`ExecutionConfig`) are none of the
model's: a bundle only notes, as provenance, those that decided the course of training.
"""

from ptychodus_torch_plugin.config.execution import ExecutionConfig
from ptychodus_torch_plugin.config.model import ModelConfig, SweepConfig
from ptychodus_torch_plugin.config.run import RunConfig
from ptychodus_torch_plugin.config.settings import Settings
from ptychodus_torch_plugin.config.training import InferenceConfig, TrainingConfig

__all__ = [
    'ExecutionConfig',
    'InferenceConfig',
    'ModelConfig',
    'RunConfig',
    'Settings',
    'SweepConfig',
    'TrainingConfig',
]
