"""Kinds that are rows of a table, for check-layers.

What differs between the kinds of such an enumeration stands in its table; nobody else compares them or switches over them.
"""
import re

from check_sizes import without_texts

# Enumeration: enumerators that are no row, and where the table and its rows' functions are.
TABLES = {
    "TaskKind": ((), ("src/run/tasks/", "src/run/task_type.cpp")),
    "CoderChoice": (("cheapest",), ("src/codec/",)),
}


def wrong_kinds(name, code):
    """(line, what is wrong) of a file's code, comments blanked."""
    for kind, (no_rows, places) in TABLES.items():
        if name.startswith(places):
            continue
        rows = rf"(?:\w+::)*{kind}(?:::(?!(?:{'|'.join(no_rows) or '-'})\b)\w+\b|\{{)"
        for found in re.finditer(rf"[=!]=\s*{rows}|{rows}\}}?\s*[=!]=|\bcase\s+{rows}", code):
            yield code.count("\n", 0, found.start()), f"a {kind} is compared: that belongs to a row of its table"
        for found in re.finditer(rf"\busing\s+(?:enum\s+(?:\w+::)*{kind}\b|\w+\s*=\s*(?:\w+::)*{kind}\b)", code):
            yield code.count("\n", 0, found.start()), f"{kind} gets another name, under which it could be compared"
    if name.startswith(("src/run/", "include/lmq/run/")) and not name.startswith(TABLES["TaskKind"][1]):
        for found in re.finditer(r"\bswitch\s*\([^)]*\bkey\.kind\b|\bkey\.kind\s*[=!]=", code):
            yield code.count("\n", 0, found.start()), "a TaskKind is compared: that belongs to a row of its table"


def wrong_tables(tree):
    """Lines "file:line: what is wrong" of the headers and sources of a tree."""
    for path in sorted([*(tree / "src").rglob("*.[ch]pp"), *(tree / "include").rglob("*.hpp")]):
        name = str(path.relative_to(tree))
        code = without_texts(path.read_text(encoding="utf-8", errors="replace"))
        for at, what in dict(wrong_kinds(name, code)).items():
            yield f"{name}:{at + 1}: {what}"
