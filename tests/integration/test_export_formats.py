"""Every format, read back with a reader of somebody else's: what went in comes out."""

from __future__ import annotations

import csv
import gc
import io
import json
import re
import shutil
import subprocess
import unicodedata
import zipfile
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree as ET

import openpyxl
import pytest
from openpyxl.utils.escape import unescape
from sqlalchemy import insert

from rqjobs.attempt import Attempt
from rqjobs.database import get_engine
from rqjobs.jobs import DataExportJob
from rqjobs.processors.export import export, find
from rqjobs.processors.export.excel import ExcelWriter
from rqjobs.processors.export.pdf import PdfWriter
from rqjobs.processors.export.pdf_document import StreamedDocument
from rqjobs.processors.export.values import Batch, guard
from rqjobs.processors.export.writer import Heading
from rqjobs.sources import Source, register_source
from tests.support import apptables
from tests.support.apptables import LONG, TROUBLE, TROUBLE_COLUMNS

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

HOSTILE = ["=1+1", "+1+1", "-1+cmd|'/c calc'!A0", "@SUM(1,2)", "\t=1+1", "\r=1+1", "\n=1+1", " =1+1", "\u00a0=1+1",
           "\uff1d1+1", '"=1+1"', "x;=1+1;y", "x\t=1+1", '=HYPERLINK("http://evil","a")', "{=1+1}", "'=1+1",
           '=cmd|"/c calc"!A1', "+49 151 234", "#DIV/0!", "-5", "1e5"]  # fmt: skip


def run(export_type: str, data_type: str = "trouble") -> Path:
    job = DataExportJob(user_id="u", export_type=export_type, data_type=data_type)
    export(job, Attempt(job_id="j", queue="data-export"))
    record = find("j")
    return Path(record.location) / record.file_name


@pytest.fixture
def trouble(settings):
    register_source(Source(name="trouble", columns=TROUBLE_COLUMNS, rows=lambda _user, _filters: iter(TROUBLE)))


def expected_text(value):
    """What CSV and PDF show of a value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    return str(value).replace("\ud800", "\ufffd")


def test_csv(trouble):
    text = run("csv").read_bytes().decode("utf-8-sig")
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert tuple(header) == TROUBLE_COLUMNS
    for row, source in zip(rows, TROUBLE, strict=True):
        for shown, value in zip(row, source, strict=True):
            assert shown.removeprefix("'") == expected_text(value)
    assert rows[-1][1:3] == ["'=1+1", "'@SUM(A1)"]
    assert rows[1][4] == "-0.10"


@pytest.mark.parametrize("export_type", ["json", "ndjson"])
def test_json(trouble, export_type):
    content = run(export_type).read_bytes()
    rows = json.loads(content) if export_type == "json" else [json.loads(line) for line in content.splitlines()]
    for row, source in zip(rows, TROUBLE, strict=True):
        for name, value in zip(TROUBLE_COLUMNS, source, strict=True):
            same = value is None or isinstance(value, bool | int | str)
            assert row[name] == (value if same and not isinstance(value, Decimal) else expected_text(value))
    assert rows[3]["notes"] == "a\ud800b"


def test_excel(trouble):
    book = openpyxl.load_workbook(run("excel"))
    sheet, long_texts = book.worksheets
    assert (sheet.title, long_texts.title) == ("Trouble", "Long texts")
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", f"A1:G{len(TROUBLE) + 1}")
    header, *rows = sheet.iter_rows()
    assert tuple(cell.value for cell in header) == TROUBLE_COLUMNS
    for row, source in zip(rows, TROUBLE, strict=True):
        for cell, value in zip(row, source, strict=True):
            assert cell.data_type != "f"
            if value == LONG:
                assert cell.value.startswith(LONG[:16_000])
                assert cell.value.endswith("[Long texts, row 2]")
                parts = [r[3] for r in long_texts.iter_rows(min_row=2, values_only=True)]
                assert "".join(parts) == LONG
                assert long_texts["B2"].value == cell.coordinate
            else:
                assert read(cell.value) == in_excel(value), cell.coordinate
            if cell.data_type == "s":  # clipped at its edges; still a text when somebody edits it
                assert (cell.alignment.wrap_text, cell.quotePrefix) == (True, True)
                assert sheet.row_dimensions[cell.row].height == 15
    assert rows[0][5].number_format == "yyyy-mm-dd hh:mm:ss"
    assert rows[0][6].number_format == "yyyy-mm-dd"


def read(value):
    return unescape(value) if isinstance(value, str) else value


def in_excel(value):
    if value == "":
        return None
    if isinstance(value, str):
        return value.replace("\ud800", "\ufffd")
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.year >= 1900 else expected_text(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day) if value.year >= 1900 else str(value)  # noqa: DTZ001
    if isinstance(value, Decimal) and len(value.as_tuple().digits) > 15:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 10**15:
        return str(value)
    return float(value) if isinstance(value, Decimal) else value


def test_excel_rolls_to_new_sheets(tmp_path):
    heading = Heading(columns=("n", "=t"), title="Of [all]: things", created_at=datetime.now(UTC))
    with (tmp_path / "a.xlsx").open("w+b") as file:
        writer = ExcelWriter(file, heading, workspace=tmp_path, rows=5)
        for start in range(0, 9, 3):
            writer.write(Batch([range(start, start + 3), [f"t{number}" for number in range(start, start + 3)]]))
        writer.close()
    book = openpyxl.load_workbook(tmp_path / "a.xlsx")
    assert [sheet.title for sheet in book] == ["Of  all   things", "Of  all   things 2", "Of  all   things 3"]
    values = [row for sheet in book for row in sheet.iter_rows(min_row=2, values_only=True)]
    assert values == [(number, f"t{number}") for number in range(9)]
    assert all(next(sheet.iter_rows(values_only=True)) == ("n", "=t") for sheet in book)


@pytest.mark.parametrize("export_type", ["csv", "json", "ndjson", "excel", "pdf"])
def test_an_export_without_rows_is_a_complete_file(settings, export_type):
    apptables.make(get_engine())
    file = run(export_type, "contacts")
    if export_type == "csv":
        assert file.read_text("utf-8-sig").startswith("id,user_id,")
    elif export_type == "json":
        assert json.loads(file.read_text()) == []
    elif export_type == "ndjson":
        assert file.read_text() == ""
    elif export_type == "excel":
        assert openpyxl.load_workbook(file).active.max_row == 1
    elif shutil.which("pdftotext"):
        assert "Page 1 of 1" in pdf_text(file)


def pdf_text(file: Path) -> str:
    return subprocess.run(["pdftotext", "-raw", str(file), "-"], capture_output=True, text=True, check=True).stdout


needs_pdftotext = pytest.mark.skipif(not shutil.which("pdftotext"), reason="needs poppler-utils (apt install)")


@needs_pdftotext
def test_pdf(trouble):
    file = run("pdf")
    text = pdf_text(file)
    pages = int(re.search(r"Page 1 of (\d+)", text)[1])
    assert text.count(f" of {pages}") == pages
    assert text.count("id\nname\nnotes") + text.count("id name notes") == pages  # the header, on each page
    assert "Trouble, 6 rows" in text
    squeezed = re.sub(r"\s", "", text)
    for source in TROUBLE:
        for value in source:
            shown = re.sub(r"[\x00-\x1f]", "\ufffd", expected_text(value).replace("\r\n", "").replace("\t", ""))
            for piece in re.split(r"[\ufffd\u4e00-\u9fff\u0600-\u06ff\U0001f000-\U0001ffff]+", shown):
                if len(piece) < 1000:
                    assert re.sub(r"\s", "", piece) in squeezed
    assert squeezed.count("Ω") == LONG.count("Ω")


@needs_pdftotext
def test_pdf_with_many_columns_has_larger_pages_and_breaks_names_between_words(tmp_path):
    names = [f"a_rather_long_name_{number}" for number in range(30)]
    heading = Heading(columns=names, title="Many", created_at=datetime.now(UTC))
    with (tmp_path / "a.pdf").open("w+b") as file:
        writer = PdfWriter(file, heading)
        writer.write(Batch([[12345.789]] * 30))
        writer.close()
    text = pdf_text(tmp_path / "a.pdf")
    assert text.count("12345.789") == 30  # none is broken
    assert {line for line in text.split() if line.endswith("_")} <= {
        "a_rather_",
        "a_",
        "rather_",
        "long_",
        "a_rather_long_",
    }
    info = subprocess.run(["pdfinfo", str(tmp_path / "a.pdf")], capture_output=True, text=True, check=True).stdout
    assert "1191 x 842 pts (A3)" in info, info


@needs_pdftotext
def written(writer, file: Path, columns, batch, **heading) -> Path:
    options = {"workspace": file.parent} if writer is ExcelWriter else {}
    with file.open("w+b") as opened:
        out = writer(
            opened, Heading(columns=columns, created_at=datetime(2026, 1, 31, tzinfo=UTC), **heading), **options
        )
        out.write(Batch(batch))
        out.close()
    return file


def test_excel_files_are_valid_with_any_title_and_filters(tmp_path):
    file = written(ExcelWriter, tmp_path / "x.xlsx", ["n"], [[1]], title="History", filters="status \x01\ud800<&>")
    with zipfile.ZipFile(file) as parts:
        for name in parts.namelist():
            ET.fromstring(parts.read(name))
    book = openpyxl.load_workbook(file)
    assert book.sheetnames == ["History 1"]  # Excel repairs a file with a sheet called History
    assert book.properties.description == "status \ufffd\ufffd<&>"


def test_excel_has_the_last_day_of_its_calendar(tmp_path):
    end = datetime(9999, 12, 31, 23, 59, 59, 999_999)  # noqa: DTZ001  # PostgreSQL's "for ever" of many apps
    second = end.replace(microsecond=0)
    values = [end, second, second.replace(tzinfo=UTC), end.replace(tzinfo=UTC), end.date(), datetime(9999, 12, 31)]  # noqa: DTZ001
    file = written(ExcelWriter, tmp_path / "x.xlsx", ["v"], [values], title="t")
    column = [row[0] for row in openpyxl.load_workbook(file).active.iter_rows(min_row=2, values_only=True)]
    day = datetime(9999, 12, 31)  # noqa: DTZ001
    assert column == ["9999-12-31T23:59:59.999999", second, second, "9999-12-31T23:59:59.999999Z", day, day]


def test_excel_writes_unsupported_values_as_text(tmp_path):
    edge = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))
    values = [edge, time(9, 30, tzinfo=timezone(timedelta(hours=1))), date(1900, 2, 28)]
    file = written(ExcelWriter, tmp_path / "x.xlsx", ["v"], [values], title="t")
    column = [row[0] for row in openpyxl.load_workbook(file).active.iter_rows(min_row=2, values_only=True)]
    assert column == ["9999-12-31T23:00:00-05:00", "09:30:00+01:00", "1900-02-28"]


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="needs poppler-utils")
def test_pdf_files_are_valid_with_any_names_and_filters(tmp_path):
    columns = [f"{number} {'n' * 6000}" for number in range(100)]  # such a header would leave no page room for a row
    batch = [[f"cell{number}"] for number in range(100)]
    filters = "status \x01\ud800 " + " or ".join(f"value_{number}" for number in range(2000))
    file = written(PdfWriter, tmp_path / "x.pdf", columns, batch, title="t", filters=filters)
    text = pdf_text(file)
    assert "cell99" in re.sub(r"\s", "", text)
    assert "status \ufffd\ufffd value_0" in text
    assert "\u2026" in text  # the filters go on, and the page says so
    assert "Page 1 of 1" in text


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="needs poppler-utils")
def test_pdf_aligns_right_to_left_text_to_the_right(tmp_path):
    pytest.importorskip("fontpkg_noto_sans_arabic")
    batch = [["short", "\u0645\u0631\u062d\u0628\u0627"]]
    file = written(PdfWriter, tmp_path / "x.pdf", ["name"], batch, title="t")
    boxes = subprocess.run(["pdftotext", "-bbox", file, "-"], check=True, capture_output=True, text=True).stdout
    left = {word: float(x) for x, word in re.findall(r'xMin="([\d.]+)".*>(.*)</word>', boxes)}
    arabic = next(x for word, x in left.items() if re.search("[\u0600-\u06ff\ufe70-\ufefc]", word))
    assert left["short"] < 100
    assert arabic > 700


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="needs poppler-utils")
def test_pdf_has_a_straight_edge_at_the_right_of_arabic(tmp_path):
    pytest.importorskip("fontpkg_noto_sans_arabic")
    pytest.importorskip("arabic_reshaper")
    names = [
        "\u0644\u064a\u0644\u0649",
        "\u0645\u0631\u062d\u0628\u0627",
        "\u0639\u0628\u062f\u0627\u0644\u0644\u0647",
        "\u0633\u0645\u064a\u0631\u0629",
    ]
    file = written(PdfWriter, tmp_path / "x.pdf", ["name"], [names], title="t")
    boxes = subprocess.run(["pdftotext", "-bbox", file, "-"], check=True, capture_output=True, text=True).stdout
    found = re.findall(r'xMax="([\d.]+)".*>(.*)</word>', boxes)
    edges = [float(x) for x, word in found if re.search("[\u0600-\u06ff\ufe70-\ufefc]", word)]
    assert len(edges) == len(names)
    assert max(edges) - min(edges) < 1


def test_pdf_shows_arabic_with_its_font_and_notes_missing_characters(tmp_path):
    pytest.importorskip("fontpkg_noto_sans_arabic")
    heading = Heading(columns=("name",), title="Names", filters="tag vip", created_at=datetime.now(UTC))
    with (tmp_path / "a.pdf").open("w+b") as file:
        writer = PdfWriter(file, heading)
        writer.write(Batch([["مرحبا 12 abc", "\U0001f44d"]]))
        writer.close()
    text = pdf_text(tmp_path / "a.pdf")
    assert "مرحبا" in unicodedata.normalize("NFKC", text)  # drawn with joined forms
    assert "no installed font has them: U+1F44D" in text


@needs_pdftotext
def test_pdf_shows_chinese_japanese_and_korean_with_the_extra(tmp_path):
    pytest.importorskip("justmytype_intl_cjk", reason="pip install 'rqjobs[fonts]'")
    heading = Heading(columns=("name",), title="Names", created_at=datetime.now(UTC))
    with (tmp_path / "a.pdf").open("w+b") as file:
        writer = PdfWriter(file, heading)
        writer.write(Batch([["東京 简体", "ひらがな", "한국어"]]))
        writer.close()
    text = pdf_text(tmp_path / "a.pdf")
    assert all(word in text for word in ("東京", "简体", "ひらがな", "한국어"))


# --- what a spreadsheet program makes of it --------------------------------------------------------------------------


def opened(file: Path, folder: Path, options: str = "") -> str:
    """``file`` as LibreOffice understands it: flat XML, in which a live formula is an attribute."""
    command = ["soffice", "--headless", f"-env:UserInstallation=file://{folder}/profile", "--convert-to", "fods",
               "--outdir", str(folder), *([f"--infilter={options}"] if options else []), str(file)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return (folder / file.with_suffix(".fods").name).read_text()


needs_office = pytest.mark.skipif(not shutil.which("soffice"), reason="needs LibreOffice: libreoffice-calc-nogui")


@needs_office
def test_no_formula_is_live_in_libreoffice(settings, tmp_path):
    rows = [(text, "after") for text in HOSTILE]
    register_source(Source(name="hostile", columns=("=1+1", "b"), rows=lambda _user, _filters: iter(rows)))
    sheet = opened(run("excel", "hostile"), tmp_path)
    assert "table:formula" not in sheet
    assert "=HYPERLINK" in sheet
    options = "CSV:44,34,76,1,,0,false,true,false,false,false,0,true,true"  # formulas are evaluated
    assert "table:formula" not in opened(run("csv", "hostile"), tmp_path, options)
    unguarded = tmp_path / "live.csv"
    unguarded.write_text("=1+1\n")
    assert "table:formula" in opened(unguarded, tmp_path)  # the test would notice


@needs_office
def test_a_phone_number_with_blanks_is_not_guarded_in_a_column_with_formulas(tmp_path):
    phones = ["+49 151 2345000", "+1 (212) 555-0123", "+49 (0)151 23450", "+49 30 1234/56", "+44 20 7946 0958"]
    file = tmp_path / "phones.csv"
    file.write_text("".join(f"{phone}\n={phone}\n" for phone in phones))
    assert [guard(phone) for phone in phones] == phones
    sheet = opened(file, tmp_path, "CSV:44,34,76,1,,0,false,true,false,false,false,0,true,true")
    for phone in phones:
        assert f"<text:p>{phone}</text:p>" in sheet
    assert sheet.count("Err:509") == len(phones)  # a blank between two numbers is no operator


# --- through the database --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_type", ["contacts", "bookings", "qr_scans"])
@pytest.mark.parametrize("export_type", ["csv", "json", "ndjson", "excel", "pdf"])
def test_each_source_in_each_format(settings, data_type, export_type):
    engine = get_engine()
    apptables.make(engine)
    names = {"contacts": "first_name", "bookings": "notes", "qr_scans": "event"}
    if data_type == "contacts":
        apptables.add_contacts(engine, 3, user_id="7")
    elif data_type == "bookings":
        apptables.add_bookings(engine, [{"id": number, "notes": f"Zoë {number}"} for number in range(3)])
    else:
        add_scans(engine)
    job = DataExportJob(user_id="7", export_type=export_type, data_type=data_type)
    assert export(job, Attempt(job_id="j", queue="data-export"))["rows"] == 3
    record = find("j")
    file = Path(record.location) / record.file_name
    name = names[data_type]
    values = {"contacts": ["Zoë", "Łukasz", "Ada"], "bookings": ["Zoë 0", "Zoë 1", "Zoë 2"], "qr_scans": ["scan"] * 3}
    if export_type == "csv":
        found = [row[name] for row in csv.DictReader(io.StringIO(file.read_text("utf-8-sig"), newline=""))]
    elif export_type == "json":
        found = [row[name] for row in json.loads(file.read_text())]
    elif export_type == "ndjson":
        found = [json.loads(line)[name] for line in file.read_text().splitlines()]
    elif export_type == "excel":
        header, *rows = openpyxl.load_workbook(file).active.iter_rows(values_only=True)
        found = [row[header.index(name)] for row in rows]
    elif shutil.which("pdftotext"):
        text = re.sub(r"\s", "", pdf_text(file))
        assert all(re.sub(r"\s", "", value) in text for value in values[data_type])
        return
    else:
        pytest.skip("needs poppler-utils")
    assert found == values[data_type]


def add_scans(engine):
    from rqjobs.database.analytics import events
    from rqjobs.database.schema import ensure_schema

    ensure_schema(engine)
    now = datetime(2026, 1, 31, 22, 30, tzinfo=UTC)
    scan = {
        "qr_code_id": "c",
        "event": "scan",
        "occurred_at": now,
        "bot": False,
        "device": "mobile",
        "recorded_at": now,
    }
    with engine.begin() as connection:
        rows = [scan | {"user_id": "7", "event_id": f"e{n}", "extra": {"n": n}} for n in range(3)]
        connection.execute(insert(events), [*rows, scan | {"user_id": "8", "event_id": "other", "extra": None}])


def test_scans_are_in_utc_and_name_no_visitor(database_url):
    engine = get_engine()
    if engine.dialect.name == "postgresql":
        from rqjobs.database.schema import init_database

        init_database(engine)
    add_scans(engine)
    filters = {"since": "2026-01-31T22:30:00Z", "until": "2026-01-31", "device": ["mobile", "tablet"]}
    job = DataExportJob(user_id="7", export_type="json", data_type="qr_scans", filters=filters)
    export(job, Attempt(job_id="j", queue="data-export"))
    record = find("j")
    rows = json.loads((Path(record.location) / record.file_name).read_text())
    assert [row["extra"] for row in rows] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert {row["occurred_at"] for row in rows} == {"2026-01-31T22:30:00Z"}
    assert not {"visitor", "ip", "recorded_at"} & set(rows[0])


def test_a_process_holds_the_fonts_of_one_pdf_only(tmp_path):
    gc.disable()
    try:
        for _number in range(3):
            written(PdfWriter, tmp_path / "x.pdf", ["name"], [["Ada"]], title="t")
        assert sum(isinstance(each, StreamedDocument) for each in gc.get_objects()) == 1
    finally:
        gc.enable()
