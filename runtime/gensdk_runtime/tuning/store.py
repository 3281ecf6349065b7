"""What was measured, kept in the per-user cache: one small JSON file for each key. Read as hostile input."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.host.atomic import write_file
from gensdk_runtime.host.locks import locked_if_possible
from gensdk_runtime.host.own_files import read_own
from gensdk_runtime.host.user_cache import cache_folder
from gensdk_runtime.plan.batches import largest_batch
from gensdk_runtime.plan.costs import Choice, CostTable
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.strict import StrictModel
from gensdk_runtime.tuning.candidates import MAX_ROUND, MEASURED_BACKENDS

MAX_BYTES = 2**20
FOLDER = "tuning"

_LOG = logging.getLogger("gensdk")
_BACKEND = re.compile(r"[a-z0-9]+(:[a-z0-9_]+)?")
_kept: dict[str, CostTable] = {}  # of this process, for where the cache can't be written
_said = False

Text = Annotated[str, Field(max_length=2000)]


class StoredTable(StrictModel):
    """One file: the key in words, and the costs."""

    schema_version: Literal[2] = 2
    key: Annotated[dict[Text, Text], Field(max_length=64)]
    table: CostTable


def load_table(key: Mapping[str, str], manifest: Manifest) -> CostTable | None:
    """The stored costs for `key`, or None: nothing is stored, or what is stored can't be trusted."""
    if (kept := _kept.get(_name(key))) is not None:
        return kept
    try:
        data = read_own(cache_folder(FOLDER) / _name(key), limit=MAX_BYTES)
        stored = StoredTable.from_json(data, what="stored costs")
    except (OSError, BackendError, InputError):
        return None
    if stored.key != dict(key) or not _fits(stored.table, manifest):
        return None
    return stored.table


def save_table(key: Mapping[str, str], table: CostTable, manifest: Manifest) -> Path | None:
    """Keeps `table` for `key` and returns the file; None, and a word, where the cache can't be written."""
    stored = StoredTable(key=dict(key), table=table)
    if not _fits(table, manifest):
        raise InputError("expected costs of this bundle's own batch sizes and of known backends")
    try:
        path = cache_folder(FOLDER) / _name(key)
        write_file(path, stored.model_dump_json().encode(), durable=True)
    except (OSError, BackendError) as failure:
        _kept[_name(key)] = table
        _say_unwritable(failure)
        return None
    _kept.pop(_name(key), None)
    return path


def clear_tables(keys: Iterable[Mapping[str, str]]) -> int:
    """Removes the stored costs of `keys`; how many files there were. BackendError where they can't be removed."""
    paths = [cache_folder(FOLDER) / _name(key) for key in keys]
    for path in paths:
        _kept.pop(path.name, None)
    there = [path for path in paths if path.exists()]
    for path in there:
        try:
            path.unlink(missing_ok=True)
        except OSError as failure:
            raise BackendError(f"can't remove {path}: {failure.strerror or failure}; remove it yourself") from None
    return len(there)


@contextlib.contextmanager
def measuring_alone(patience: float) -> Iterator[None]:
    """Held while measuring: two at once would disturb each other. Goes on after `patience` seconds."""
    with _locked(".lock", patience):
        yield


@contextlib.contextmanager
def measuring_this(key: Mapping[str, str]) -> Iterator[bool]:
    """Held while this process measures what `key` names; false where another one is at it already."""
    with _locked(f"{_name(key)}.lock", 0.0) as held:
        yield held is not False


@contextlib.contextmanager
def _locked(name: str, patience: float) -> Iterator[bool | None]:
    """A lock in the folder of measurements; None where there are no locks, or is no cache."""
    try:
        folder = cache_folder(FOLDER)
    except BackendError:
        yield None
        return
    with locked_if_possible(folder / name, patience=patience) as held:
        yield held


def _name(key: Mapping[str, str]) -> str:
    text = json.dumps(dict(key), sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _fits(table: CostTable, manifest: Manifest) -> bool:
    """Whether `table` names only what is ever measured, and batches that the model may be given."""
    return all(
        _known(cost.choice)
        and (cost.choice.form == "steps" or manifest.one_call is not None)
        and cost.batch <= largest_batch(manifest.model, cost.choice.workers)
        and cost.samples <= max(MAX_ROUND, cost.choice.workers)
        for cost in table.costs
    )


def _known(choice: Choice) -> bool:
    return _BACKEND.fullmatch(choice.backend) is not None and choice.backend.split(":")[0] in MEASURED_BACKENDS


def _say_unwritable(failure: Exception) -> None:
    global _said  # noqa: PLW0603 - once for each process
    if not _said:
        _LOG.warning("what was measured can't be kept, so it is measured again in each process: %s", failure)
        _said = True
