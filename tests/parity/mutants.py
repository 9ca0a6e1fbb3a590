"""A small mistake that somebody could make in a backend; see `mutations.py`."""

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


def mutants_of(backend: str, *rows: tuple[str, ...]) -> list[Mutant]:
    """Return a mutant for each row: name, file, and pairs of texts."""
    return [
        Mutant(backend, name, file, tuple(zip(texts[::2], texts[1::2], strict=True)))
        for name, file, *texts in rows
    ]
