"""Which convolution of a Keras model is which, from the graph in its `config.json`.

Neither the names of the layers tell it, for their numbers go on from model to model of a process,
nor the order of the layers: both decoders take turns in it.  The way from the ends of the decoders,
the layers `amp` and `phi`, back to the input does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    ForeignBundleError,
    quoted,
)
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.foreign.canonical import levels
from ptychodus_torch_plugin.foreign.limits import LAYERS
from ptychodus_torch_plugin.foreign.pickled_values import described

CONVOLUTION = 'Conv2D'
CODE = 'Lambda'
"""Kind of layers that are a function of Python, marshalled; PtychoPINN makes none."""
HEADS = {'amplitude': 'amp', 'phase': 'phi'}
"""Layers that make amplitude and phase of what the decoders end with."""

_COMMON = {
    'strides': [1, 1],
    'dilation_rate': [1, 1],
    'groups': 1,
    'padding': 'same',
    'data_format': 'channels_last',
    'use_bias': True,
}
_BLOCK = ('conv2', 'conv1')  # backwards, as everything here


@dataclass(frozen=True)
class Layer:
    """A layer: its class, its settings, and the names of the layers that it takes values from."""

    kind: str
    settings: Mapping[str, Any]
    inputs: tuple[str, ...]


def parse_layers(config: Any, *, source: str) -> dict[str, Layer]:
    """Return the layers of a model by name, in their order, from the values of its config.json.

    Raises
    ------
    BundleContentError
        If these are not the settings of a model in Keras 3.
    BundleLimitError
        If it has too many layers.
    ForeignBundleError
        If a layer is code.
    """
    inner = config.get('config') if isinstance(config, dict) else None
    entries = inner.get('layers') if isinstance(inner, dict) else None
    if not isinstance(entries, list) or not all(map(_is_layer, entries)):
        raise BundleContentError(
            f'{source} does not describe layers as Keras 3 does; expected the model as PtychoPINN '
            'writes it with TensorFlow 2.16 or later. Save it again from there.'
        )
    if len(entries) > LAYERS:
        raise BundleLimitError(f'{source} has {len(entries)} layers; expected at most {LAYERS}.')
    layers = {
        entry['name']: Layer(
            entry['class_name'], entry['config'], tuple(_sources(entry['inbound_nodes']))
        )
        for entry in entries
    }
    if len(layers) != len(entries):
        raise BundleContentError(f'{source} has two layers of one name; expected each once.')
    code = next((name for name, each in layers.items() if each.kind == CODE), None)
    if code is not None:
        raise ForeignBundleError(
            f'{source} has the layer {quoted(code)} of the kind {CODE}: Python code, which is '
            'never run, so that nobody knows what the model says; expected the layers of '
            'PtychoPINN alone. Train the model here instead.'
        )
    return layers


def canonical_convolutions(
    layers: Mapping[str, Layer], config: ModelConfig, *, source: str
) -> dict[str, str]:
    """Return the name of the layer for each canonical name such as ``encoder.0.conv1``.

    Raises
    ------
    ForeignBundleError
        If the graph is another one than that of the settings.
    """
    graph = _Graph(layers, source)
    found: dict[str, str] = {}
    for part, head in HEADS.items():
        decoder = _block_names(f'{part}.decoder', levels(config) - 1)
        ending = 'center' if config.pad_object else 'whole.out'
        tail = [] if config.pad_object else [f'{part}.whole.{conv}' for conv in _BLOCK]
        encoder = _block_names('encoder', levels(config))
        chain = graph.way_back(head, [f'{part}.{ending}', *tail, *decoder, *encoder])
        if any(found[name] != chain[name] for name in found.keys() & chain.keys()):
            raise graph.wrong('whose decoders have an encoder each')
        found |= chain
    if config.pad_object and config.probe_big:
        found |= _borders(graph, found, config)
    unused = [name for name in graph.convolutions if name not in found.values()]
    if unused:
        raise graph.wrong(f'with {quoted(unused[0])} and {len(unused) - 1} more beyond these')
    for name, layer in found.items():
        _check_settings(name, layer, layers[layer], source)
    return found


def _borders(graph: _Graph, found: Mapping[str, str], config: ModelConfig) -> dict[str, str]:
    """Return the layers that branch off behind the decoders and end nowhere else."""
    borders: dict[str, str] = {}
    for name in graph.convolutions:
        if name in found.values():
            continue
        way = graph.convolutions_before(name, steps=3)
        for part in HEADS:
            last = found[f'{part}.decoder.{levels(config) - 2}.conv2']
            if len(way) == 3 and way[-1] == last:
                names = [f'{part}.border.{conv}' for conv in ('out', *_BLOCK)]
                borders |= dict(zip(names, [name, *way[:-1]], strict=True))
    return borders


class _Graph:
    """The convolutions of a model, and what comes before each."""

    def __init__(self, layers: Mapping[str, Layer], source: str) -> None:
        self.source = source
        self._layers = layers
        self.convolutions = [name for name, each in layers.items() if each.kind == CONVOLUTION]

    def way_back(self, head: str, names: Sequence[str]) -> dict[str, str]:
        """Return the convolutions from a layer back to the input under `names`, in that order."""
        if head not in self._layers:
            raise self.wrong(f'without the layer {head}')
        way = self.convolutions_before(head, steps=len(names) + 1)
        if len(way) != len(names):
            raise self.wrong(
                f'with {len(way)} convolutions or more between the input and {head}, where '
                f'{len(names)} are expected'
            )
        return dict(zip(names, way, strict=True))

    def convolutions_before(self, name: str, *, steps: int) -> list[str]:
        """Return the convolutions that a layer comes from, the nearest first, `steps` at most."""
        way: list[str] = []
        while len(way) < steps:
            nearest = self._nearest(way[-1] if way else name)
            if len(nearest) > 1:
                raise self.wrong(f'where {quoted(name)} comes from several convolutions at once')
            if not nearest:
                break
            way += nearest
        return way

    def _nearest(self, name: str) -> list[str]:
        """Return the convolutions that a layer takes values from, through layers of other kinds."""
        found: list[str] = []
        seen, waiting = {name}, [name]
        while waiting:
            layer = self._layers.get(waiting.pop())
            for each in layer.inputs if layer else ():
                if each in seen:
                    continue
                seen.add(each)
                known = self._layers.get(each)
                is_convolution = known is not None and known.kind == CONVOLUTION
                (found if is_convolution else waiting).append(each)
        return found

    def wrong(self, what: str) -> ForeignBundleError:
        return ForeignBundleError(
            f'{self.source} is a model {what}; expected the network that its parameters (N, '
            'pad_object, probe.big) say. Take the archive as PtychoPINN wrote it.'
        )


def _check_settings(name: str, layer: str, convolution: Layer, source: str) -> None:
    activation = 'relu' if name.endswith(('.conv1', '.conv2')) else 'linear'
    for key, expected in {**_COMMON, 'activation': activation}.items():
        value = convolution.settings.get(key)
        if type(value) is not type(expected) or value != expected:
            raise ForeignBundleError(
                f'{source} has the layer {quoted(layer)} with {key} = {described(value)}; expected '
                f'{expected!r} for {name}. Train the model here instead.'
            )


def _block_names(name: str, count: int) -> list[str]:
    """Return the names of `count` blocks of two convolutions, backwards."""
    return [f'{name}.{level}.{conv}' for level in reversed(range(count)) for conv in _BLOCK]


def _is_layer(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get('name'), str)
        and isinstance(entry.get('class_name'), str)
        and isinstance(entry.get('config'), dict)
        and isinstance(entry.get('inbound_nodes'), list)
    )


def _sources(value: Any) -> Iterator[str]:
    """Yield the layers whose results stand anywhere in the arguments of a layer."""
    if isinstance(value, dict) and value.get('class_name') == '__keras_tensor__':
        inner = value.get('config')
        history = inner.get('keras_history') if isinstance(inner, dict) else None
        if isinstance(history, list) and history and isinstance(history[0], str):
            yield history[0]
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _sources(each)
