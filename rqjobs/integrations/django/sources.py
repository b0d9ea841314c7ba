"""Export sources from the project's models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import close_old_connections
from django.db.models import Model

from rqjobs.sources import Filter, Source, register_source

_LOOKUPS = {"equals": "", "since": "__gte", "until": "__lt", "contains": "__contains"}


def register_model(
    name: str,
    model: type[Model],
    *,
    columns: Sequence[str],
    tenant: str = "user_id",
    filters: Mapping[str, Filter] | None = None,
) -> Source:
    """Registers an export source: users can export their rows of ``model`` as ``DataExportJob(data_type=name)``.

    Call it in an app's ``jobs.py``.

    Args:
        name: the ``data_type``.
        model: the model; its default manager is read, in chunks.
        columns: the fields that may be exported, in the order of the file; ``customer__name`` follows a relation.
        tenant: the field that must equal the job's ``user_id``.
        filters: filters by name; their ``column`` is a field of the model.
    """
    known = dict(filters or {})

    def rows(user_id: str, given: Mapping[str, object]) -> Iterable[tuple[Any, ...]]:
        close_old_connections()
        query = model._default_manager.filter(**{tenant: user_id})  # noqa: SLF001  # Django's public name for it
        for key, value in given.items():
            chosen = known[key]
            lookup = "__in" if isinstance(value, list) and chosen.match == "equals" else _LOOKUPS[chosen.match]
            query = query.filter(**{chosen.column + lookup: value})
        result: Iterable[tuple[Any, ...]] = query.order_by("pk").values_list(*columns).iterator(chunk_size=1000)
        return result

    return register_source(Source(name=name, columns=tuple(columns), filters=known, rows=rows, utc=True))
