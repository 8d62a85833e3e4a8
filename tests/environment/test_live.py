"""Which experiment file a notebook belongs to."""

import json

import pytest

from wardian.environment.live import experiment_of


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Write a notebook with this metadata into a folder below one with an experiment."""
    monkeypatch.delenv("WARDIAN_EXPERIMENT", raising=False)
    (tmp_path / "experiment.yaml").write_text("name: here\n")
    folder = tmp_path / "notebooks"
    folder.mkdir()

    def write(metadata):
        path = folder / "study.ipynb"
        path.write_text(json.dumps({"metadata": metadata, "cells": [], "nbformat": 4, "nbformat_minor": 5}))
        return path

    return write


def test_the_nearest_folder_decides(notebook, tmp_path):
    """Without a word of the notebook it is the experiment.yaml of its folder, or of the nearest above."""
    assert experiment_of(notebook({})) == tmp_path / "experiment.yaml"


def test_the_notebook_may_name_another(notebook, tmp_path):
    """The notebook's metadata names a file relative to it."""
    assert experiment_of(notebook({"wardian": {"experiment": "../other.yaml"}})) == tmp_path / "other.yaml"


def test_the_environment_variable_comes_first(notebook, tmp_path, monkeypatch):
    """What is set for a whole run stands over what a notebook says."""
    path = notebook({"wardian": {"experiment": "../other.yaml"}})
    monkeypatch.setenv("WARDIAN_EXPERIMENT", str(tmp_path / "third.yaml"))
    assert experiment_of(path) == tmp_path / "third.yaml"


@pytest.mark.parametrize("metadata", [None, [], {"wardian": 7}, {"wardian": {"experiment": ["x"]}}])
def test_odd_metadata_names_nothing(notebook, tmp_path, metadata):
    """Metadata of another shape is as good as none."""
    assert experiment_of(notebook(metadata)) == tmp_path / "experiment.yaml"
