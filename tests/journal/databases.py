"""Looking into a journal's database behind its back."""

import sqlite3
import subprocess
import sys
import textwrap

import psycopg


def ask(target, query):
    """Run a statement on a journal's database; gives its rows."""
    if isinstance(target, str):
        with psycopg.connect(target) as connection:
            cursor = connection.execute(query)
            return list(cursor) if cursor.description else []
    with sqlite3.connect(target) as connection:
        return list(connection.execute(query))


def everything(target):
    """All bytes that a journal keeps, one after the other."""
    if not isinstance(target, str):
        return b"".join(file.read_bytes() for file in target.parent.rglob("*") if file.is_file())
    tables = [name for (name,) in ask(target, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    columns = [
        bytes(value) if isinstance(value, bytes) else str(value).encode()
        for table in tables
        for row in ask(target, f"SELECT * FROM {table}")
        for value in row
    ]
    return b"\n".join(columns)


def python(code, *arguments, **options):
    """Start Python on a piece of code."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=subprocess.PIPE, text=True, **options
    )
