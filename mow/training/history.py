"""What a training measured, record by record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, overload

from mow.naming import named

Record = dict[str, Any]
"""Of a step: step, pictures, loss, reconstruction, distance, and test_reconstruction and test_distance if measured."""

Callback = Callable[[Record], object]
"""Called with each record as it is made."""


class History:
    """The records of a training in the order of its steps, and their columns by name: what `Trainer.fit` returns.

        >>> history = trainer.fit(pictures, steps=20, log_every=10)
        >>> history["step"]
        [10, 20]
        >>> len(history), history[-1]["pictures"]
        (2, 20)

    `pandas.DataFrame(iter(history))` is a table of them.

    Args:
        records: to begin with.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self.records: list[Record] = [dict(record) for record in records]

    def __repr__(self) -> str:
        return named(self, records=len(self), **(self.records[-1] if self.records else {}))

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @overload
    def __getitem__(self, key: str) -> list[Any]: ...

    @overload
    def __getitem__(self, key: int) -> Record: ...

    def __getitem__(self, key: str | int) -> list[Any] | Record:
        """A record by its number, or a column by its name: the values of the records that have one.

        Raises:
            KeyError: no record has such a value.
            IndexError: there are not so many records.
        """
        if not isinstance(key, str):
            return self.records[key]
        if column := [record[key] for record in self.records if key in record]:
            return column
        known = sorted({name for record in self.records for name in record})
        raise KeyError(f"name is {key!r}; it must be one of {', '.join(known) or 'none, since nothing was measured'}")

    def add(self, record: Record) -> None:
        """A record of a later step."""
        self.records.append(record)

    def cut(self, step: int) -> None:
        """Forget what was measured after a step, from which a training goes on."""
        self.records = [record for record in self.records if record["step"] <= step]
