"""Handing an experiment to somebody else: one file with all that it takes, and the way back to a folder.

A bundle is a zip with an RO-Crate (https://w3id.org/ro/crate/1.1): the folder of the experiment as it is, what describes it, and below
`FOLDER` what Wardian adds.
"""

from __future__ import annotations

SUFFIX = ".crate.zip"
PARTIAL, SCRATCH = ".part", ".scratch"
"""What names end in of files and folders that a bundle comes out of, and that are gone when it is there."""
METADATA = "ro-crate-metadata.json"
TROVI = "trovi.json"
FOLDER = "wardian-bundle"
"""Of what Wardian adds; the names below are in it."""
MANIFEST = f"{FOLDER}/bundle.json"
"""{"version", "experiment", "notebooks", "runs", "images"}: what a program needs to know of the bundle."""
JOURNAL = f"{FOLDER}/journal.jsonl"
REPORT = f"{FOLDER}/environment.md"
IMAGES = f"{FOLDER}/images"
COLLECTED = f"{FOLDER}/collected"
VERSION = 1
"""Of the layout."""
