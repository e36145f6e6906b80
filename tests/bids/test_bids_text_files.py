"""Tables and JSON as people save them."""

from __future__ import annotations

import pytest

from msnmo_bids.bids.dataset import write_tsv
from msnmo_bids.bids.text_files import GUESSED, read_json, read_tsv

TEXT = 'participant_id\tsite \nsub-01\t"Málaga\nsub-02\tn/a\n'
ROWS = (
    {"participant_id": "sub-01", "site": '"Málaga'},
    {"participant_id": "sub-02", "site": "n/a"},
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1")


def whats(notes) -> list[str]:
    return [note.what for note in notes]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_same_table_in_every_encoding(tmp_path, encoding, line_end):
    file = tmp_path / "table.tsv"
    file.write_bytes(TEXT.replace("\n", line_end).encode(encoding))
    table = read_tsv(file)
    assert table.rows == ROWS
    assert whats(table.notes) == ([GUESSED] if encoding == "latin-1" else [])


def test_what_the_program_writes_it_reads(tmp_path):
    texts = ['"', 'a "b" c', "'", "ñ", "#", "1,5"]
    rows = [{"text": text} for text in texts]
    write_tsv(tmp_path / "table.tsv", ("text",), rows)
    assert list(read_tsv(tmp_path / "table.tsv").rows) == rows


@pytest.mark.parametrize(
    ("text", "rows", "about"),
    [
        ("a\tb\t\n1\t2\t\n\n3\t4\n", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}], []),
        ("a\tb\n1\n2\t3\t4\n5\t6\n", [{"a": "5", "b": "6"}], ["2", "3"]),
        ("a\tb\ta\n1\t2\t3\n", [{"a": "1", "b": "2"}], ["a"]),
        ("a\tb\n", [], []),
    ],
)
def test_uneven_lines_and_repeated_columns_are_named(tmp_path, text, rows, about):
    (tmp_path / "table.tsv").write_text(text)
    table = read_tsv(tmp_path / "table.tsv")
    assert list(table.rows) == rows
    assert [note.about for note in table.notes] == about


def test_what_is_not_a_table(tmp_path):
    file = tmp_path / "table.tsv"
    file.write_text("participant_id\tage\n1\tsub-02\t34\n2\tsub-03\t44\n")  # of R
    assert "lacks the name of the first column" in read_tsv(file).problem
    assert read_tsv(file).rows == ()
    file.unlink()
    assert (read_tsv(file).problem, read_tsv(file).columns) == ("", ())
    file.write_text(" \n\n")
    assert read_tsv(file).problem == "empty"
    file.write_bytes(b"PK\x03\x04\x00\x00\x01\x02\xff")
    assert "not a text file" in read_tsv(file).problem
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 9\n")
    assert read_tsv(file).problem == "a link without its content (run git lfs pull)"
    file.unlink()
    file.symlink_to(".git/annex/objects/x")
    assert "link without its content" in read_tsv(file).problem
    file.unlink()
    file.mkdir()
    assert "cannot be read" in read_tsv(file).problem


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_in_every_encoding(tmp_path, encoding):
    file = tmp_path / "file.json"
    file.write_bytes('{"Institution": "Málaga"}'.encode(encoding))
    content, notes = read_json(file)
    assert content == {"Institution": "Málaga"}
    assert whats(notes) == ([GUESSED] if encoding == "latin-1" else [])


def test_what_json_does_not_have_is_left_out(tmp_path):
    file = tmp_path / "file.json"
    file.write_text('{"a": NaN, "b": {"c": -Infinity, "d": 1e999}, "e": [1, NaN], "f": "NaN"}')
    content, notes = read_json(file)
    assert content == {"b": {}, "e": [1, None], "f": "NaN"}
    assert [note.what.split(" ")[0] for note in notes] == ["a", "b.c", "b.d", "e"]
