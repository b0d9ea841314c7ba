"""Chooses the writer for each export format."""

from __future__ import annotations

from rqjobs.config.settings import get_settings
from rqjobs.processors.export.partial import PartialFile
from rqjobs.processors.export.text import CsvWriter, JsonWriter, NdjsonWriter
from rqjobs.processors.export.writer import Heading, Writer


def suffix(export_type: str) -> str:
    """Returns the file suffix of the format, without a dot."""
    return "xlsx" if export_type == "excel" else export_type


def open_writer(export_type: str, partial: PartialFile, heading: Heading) -> Writer:
    """Returns a writer of the format.

    It appends to ``partial`` if the format can be resumed; otherwise it starts over.
    """
    settings = get_settings()
    if export_type == "csv":
        return CsvWriter(partial.file, heading, bom=settings.export_csv_bom, guarded=settings.export_csv_guard)
    if export_type == "ndjson":
        return NdjsonWriter(partial.file, heading)
    partial.start_over()
    if export_type == "json":
        return JsonWriter(partial.file, heading)
    if export_type == "excel":
        from rqjobs.processors.export.excel import ExcelWriter

        return ExcelWriter(partial.file, heading, workspace=partial.path.parent)
    from rqjobs.processors.export.pdf import PdfWriter

    return PdfWriter(partial.file, heading, fonts=settings.export_fonts)
