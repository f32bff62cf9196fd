"""Rows of a data file: CSV, TSV, JSON, JSON Lines and plain text, read as a stream, with line numbers.

Every fault in a file is one `DataError` that names the file and the line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxpeft.errors import DataError, did_you_mean

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")
_FIELD_LIMIT = 1 << 24  # characters of one CSV field; beyond it a missing quote is likelier than a text
_LINE_LIMIT = 1 << 26  # bytes
_JSON_LIMIT = 1 << 29  # bytes of a file that has to be read whole
_BOMS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


@dataclass(frozen=True)
class Row:
    """One record, with where it was found: a `unit` (a line, or in a JSON array an item) counted from one."""

    file: str
    unit: str
    number: int
    values: Mapping[str, Any]

    @property
    def place(self) -> str:
        """`line 7` or `item 7`."""
        return f"{self.unit} {self.number}"

    @property
    def where(self) -> str:
        """`file line 7` or `file item 7`, for messages."""
        return f"{self.file} {self.place}"


def read_rows(path: str | Path) -> Iterator[Row]:
    """Yield the rows of `path`; its suffix says the format.

    JSON is an array of objects, an object with one array in it, or in fact JSON Lines; text is one row a
    paragraph, in the column `text`.

    Raises:
        DataError: the file is missing, empty, not UTF-8, of an unknown format, or malformed at some line.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if file.is_dir():
        raise DataError(f"{file} is a folder: expected a file ({', '.join(SUFFIXES)})")
    if not file.is_file():
        beside = file.parent.iterdir() if file.parent.is_dir() else ()
        siblings = [p.name for p in beside if p.suffix.lower() in SUFFIXES and p.is_file()]
        hint = did_you_mean(file.name, siblings) if len(siblings) < 50 else ""
        raise DataError(f"{file} does not exist{hint}")
    if suffix not in SUFFIXES:
        raise DataError(f"{file}: unknown format '{suffix}': expected one of {', '.join(SUFFIXES)}")
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty")
    readers = {".csv": _delimited, ".tsv": _delimited, ".json": _json, ".txt": _paragraphs}
    found = False
    for row in readers.get(suffix, _json_lines)(file):
        found = True
        yield row
    if not found:
        raise DataError(f"{file} holds no rows")


def _lines(file: Path) -> Iterator[str]:
    """Decoded lines, line ends kept."""
    with file.open("rb") as stream:
        for number, raw in enumerate(iter(lambda: stream.readline(_LINE_LIMIT + 1), b""), start=1):
            if len(raw) > _LINE_LIMIT:
                raise DataError(
                    f"{file} line {number} is longer than {_LINE_LIMIT:,} bytes: expected one row a line"
                )
            if number == 1:
                for bom, encoding in _BOMS:
                    if raw.startswith(bom):
                        raise DataError(f"{file} is {encoding}: expected UTF-8; save it as UTF-8")
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if b"\x00" in raw:
                raise DataError(
                    f"{file} line {number}: a NUL byte: expected UTF-8 text, not UTF-16 or a binary file"
                )
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                place = f"byte 0x{raw[error.start]:02x} at column {error.start + 1}"
                raise DataError(
                    f"{file} line {number}: {place} is not UTF-8; save the file as UTF-8"
                ) from None


def _delimited(file: Path) -> Iterator[Row]:
    csv.field_size_limit(_FIELD_LIMIT)
    name = str(file)
    lines = _lines(file)
    header_line = next(lines, "")
    delimiter = "\t" if file.suffix.lower() == ".tsv" else _delimiter(header_line)
    reader = csv.reader(_chain(header_line, lines), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(file, header)
        for record in reader:
            if not record:
                continue
            if len(record) != len(header):
                raise DataError(
                    f"{file} line {reader.line_num}: {len(record)} fields where the first line names "
                    f"{len(header)} columns ({', '.join(header)}); quote a field that contains '{delimiter}'"
                )
            yield Row(name, "line", reader.line_num, dict(zip(header, record, strict=True)))
    except csv.Error as error:
        known = {
            "unexpected end": "a quoted field is never closed",
            "larger than field limit": f"a field of more than {_FIELD_LIMIT:,} characters: is a quote never closed?",
        }
        reason = next((told for words, told in known.items() if words in str(error)), str(error))
        raise DataError(f"{file} line {reader.line_num}: {reason}") from None


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(header: str) -> str:
    """Comma, unless the first line has none and has semicolons or tabs."""
    if "," in header:
        return ","
    return max(";\t", key=header.count) if any(c in header for c in ";\t") else ","


def _check_header(file: Path, header: list[str]) -> None:
    if not any(header):
        raise DataError(f"{file} line 1: no column names")
    for index, name in enumerate(header, start=1):
        if not name:
            raise DataError(f"{file} line 1: column {index} has no name")
        if header.count(name) > 1:
            raise DataError(f"{file} line 1: the column '{name}' is named twice")


def _json_lines(file: Path) -> Iterator[Row]:
    name = str(file)
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            where = f"{name} line {number}"
            yield Row(name, "line", number, _object(where, _parse(where, line)))


def _json(file: Path) -> Iterator[Row]:
    if file.stat().st_size > _JSON_LIMIT:
        raise DataError(
            f"{file} is larger than {_JSON_LIMIT:,} bytes, and JSON is read whole: save it as JSON Lines, which "
            "is read line by line"
        )
    text = "".join(_lines(file))
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            yield from _json_lines(file)
            return
        raise DataError(f"{file} line {error.lineno}: not JSON: {error.msg.lower()}") from None
    except RecursionError:
        raise DataError(f"{file}: JSON nested too deeply") from None
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else [content]
    if not isinstance(content, list):
        raise DataError(f"{file}: expected an array of objects, got {_kind(content)}")
    for number, item in enumerate(content, start=1):
        yield Row(str(file), "item", number, _object(f"{file} item {number}", item))


def _parse(where: str, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg.lower()} at column {error.colno}") from None
    except RecursionError:
        raise DataError(f"{where}: JSON nested too deeply") from None


def _object(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f'{where}: expected an object such as {{"text": ...}}, got {_kind(value)}')
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _paragraphs(file: Path) -> Iterator[Row]:
    start, block = 1, ""
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            start = start if block else number
            block += line
        elif block:
            yield Row(str(file), "line", start, {"text": block.strip()})
            block = ""
    if block:
        yield Row(str(file), "line", start, {"text": block.strip()})
