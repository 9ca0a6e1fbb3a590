"""Pickles read as data: what they ask to be called is written down, and never called.

A pickle is a program for a small stack machine.  This one knows the instructions that protocols 2
to 5 write for plain values; where such a program would import a name, it gets a `Name`, and where
it would call one, a `Record` of what with.  Nothing else can come out, whatever the bytes are.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    CorruptBundleError,
    quoted,
)
from ptychodus_torch_plugin.errors import BundleError
from ptychodus_torch_plugin.foreign.limits import (
    INTEGER_BITS,
    KEY_BITS,
    PICKLE_MARKS,
    PICKLE_OPCODES,
)

# A warning comes of odd escapes in names, where warnings are errors.
_PICKLE_DEFECTS = (ValueError, LookupError, TypeError, ArithmeticError, struct.error, Warning)


@dataclass(frozen=True)
class Name:
    """What would be imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f'{self.module}.{self.name}'


@dataclass(frozen=True, eq=False, repr=False)
class Persistent:
    """What would be fetched from beside the pickle."""

    identifier: Any


@dataclass(eq=False, repr=False, slots=True)
class Record:
    """What would be made by a call.

    Attributes
    ----------
    maker
        What would be called, usually a `Name`.
    arguments
        What with.
    state
        What the result's attributes would be set from.
    entries, items
        What would be put into the result as into a dictionary, and as into a list.
    """

    maker: Any
    arguments: tuple[Any, ...]
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)
    items: list[Any] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Full name of what would be called, or nothing where that is no plain name."""
        return str(self.maker) if isinstance(self.maker, Name) else ''


def read_pickle(data: bytes, *, source: str) -> Any:
    """Return the value of a pickle: plain values, `Name`, `Record` and `Persistent`.

    Nothing in it is imported or called.  Its parts may contain each other, even themselves: walk
    through it to known places only, and never print a container.

    Raises
    ------
    CorruptBundleError
        If it is truncated or no pickle.
    BundleLimitError
        If it has too many instructions, is nested too deeply, or holds an absurd integer.
    BundleContentError
        If it has an instruction that no archive needs, or a key that is neither text nor integer.
    """
    machine = _Machine(source)
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if count >= PICKLE_OPCODES:
                raise BundleLimitError(
                    f'{source} has more than {PICKLE_OPCODES} pickle instructions; expected the '
                    'settings or the weights of one model.'
                )
            machine.step(opcode.name, argument, position or 0)
        return machine.stack.pop()
    except BundleError:
        raise
    except _PICKLE_DEFECTS as error:
        raise CorruptBundleError(
            f'{source} is no valid pickle: {quoted(error)}. Copy the archive again from where it '
            'was written.'
        ) from error


class _Machine:
    """The stack, what lies below the last marks, and the memo."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any, position: int) -> None:
        """Do one instruction; see the table at the end of this module."""
        instruction = _INSTRUCTIONS.get(name)
        if instruction is None:
            raise BundleContentError(
                f'{self.source} has the pickle instruction {name} at byte {position}, which no '
                'archive of PtychoPINN needs; it is not read any further. Take another copy.'
            )
        instruction(self, argument)

    def push(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > INTEGER_BITS:
            raise BundleLimitError(
                f'{self.source} has an integer of {value.bit_length()} bits; expected at most '
                f'{INTEGER_BITS}.'
            )
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """Return the last values, in the order in which they were pushed."""
        taken = self.stack[len(self.stack) - count :] if count <= len(self.stack) else None
        if taken is None:
            raise ValueError('more values are taken than there are')
        del self.stack[len(self.stack) - count :]
        return taken

    def mark(self) -> None:
        if len(self.below) >= PICKLE_MARKS:
            raise BundleLimitError(
                f'{self.source} is nested deeper than {PICKLE_MARKS} levels; expected the settings '
                'or the weights of one model.'
            )
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def put_in(self, pairs: list[Any]) -> None:
        """Put keys and values, in turns, into the dictionary on top of the stack."""
        target = self.stack[-1]
        entries = target.entries if isinstance(target, Record) else target
        if not isinstance(entries, dict) or len(pairs) % 2:
            raise ValueError('keys and values without a dictionary')
        for key in pairs[::2]:
            # Other keys could be chosen so that their hashes collide.
            small = isinstance(key, int) and key.bit_length() <= KEY_BITS
            if not (small or isinstance(key, str)):
                raise BundleContentError(
                    f'{self.source} has a dictionary with a key of type {type(key).__name__}; '
                    f'expected text, or integers of at most {KEY_BITS} bits.'
                )
        entries.update(zip(pairs[::2], pairs[1::2], strict=True))

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Record) else target
        if not isinstance(items, list):
            raise ValueError('items without a list')
        items.extend(values)

    def call(self, count: int) -> None:
        """Note a call: what, with which arguments and, if there are three, by which names."""
        maker, arguments, *named = self.pop(count)
        if not isinstance(arguments, tuple) or (named and not isinstance(named[0], dict)):
            raise ValueError('a call without arguments')
        self.stack.append(Record(maker, arguments, entries=named[0] if named else {}))

    def build(self) -> None:
        (state,) = self.pop(1)
        target = self.stack[-1]
        if not isinstance(target, Record):
            raise ValueError('attributes of a plain value')
        target.state = state

    def name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError('a name that is no text')
        self.stack.append(Name(module, name))


_Instruction = Callable[[_Machine, Any], object]


def _constant(value: Any) -> _Instruction:
    return lambda machine, _: machine.stack.append(value)


def _tuple(count: int) -> _Instruction:
    return lambda machine, _: machine.stack.append(tuple(machine.pop(count)))


_INSTRUCTIONS: dict[str, _Instruction] = {
    **dict.fromkeys(('PROTO', 'FRAME', 'STOP'), lambda _machine, _: None),
    **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4'), _Machine.push),
    **dict.fromkeys(('SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8'), _Machine.push),
    **dict.fromkeys(('SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8'), _Machine.push),
    'BINFLOAT': _Machine.push,
    'BYTEARRAY8': lambda machine, value: machine.push(bytes(value)),
    'NONE': _constant(None),
    'NEWTRUE': _constant(True),
    'NEWFALSE': _constant(False),
    'EMPTY_TUPLE': _constant(()),
    'TUPLE1': _tuple(1),
    'TUPLE2': _tuple(2),
    'TUPLE3': _tuple(3),
    'TUPLE': lambda machine, _: machine.push(tuple(machine.since_mark())),
    'FROZENSET': lambda machine, _: machine.push(tuple(machine.since_mark())),
    'EMPTY_LIST': lambda machine, _: machine.push([]),
    'EMPTY_SET': lambda machine, _: machine.push([]),
    'EMPTY_DICT': lambda machine, _: machine.push({}),
    'APPEND': lambda machine, _: machine.append(machine.pop(1)),
    'APPENDS': lambda machine, _: machine.append(machine.since_mark()),
    'ADDITEMS': lambda machine, _: machine.append(machine.since_mark()),
    'SETITEM': lambda machine, _: machine.put_in(machine.pop(2)),
    'SETITEMS': lambda machine, _: machine.put_in(machine.since_mark()),
    'MARK': lambda machine, _: machine.mark(),
    'POP': lambda machine, _: machine.pop(1),
    'POP_MARK': lambda machine, _: machine.since_mark(),
    'DUP': lambda machine, _: machine.push(machine.stack[-1]),
    'MEMOIZE': lambda machine, _: machine.remember(len(machine.memo)),
    **dict.fromkeys(('BINPUT', 'LONG_BINPUT'), _Machine.remember),
    **dict.fromkeys(
        ('BINGET', 'LONG_BINGET'), lambda machine, index: machine.push(machine.memo[index])
    ),
    'GLOBAL': lambda machine, text: machine.name(*text.split(' ', 1)),
    'STACK_GLOBAL': lambda machine, _: machine.name(*machine.pop(2)),
    'REDUCE': lambda machine, _: machine.call(2),
    'NEWOBJ': lambda machine, _: machine.call(2),
    'NEWOBJ_EX': lambda machine, _: machine.call(3),
    'BUILD': lambda machine, _: machine.build(),
    'BINPERSID': lambda machine, _: machine.push(Persistent(*machine.pop(1))),
}
