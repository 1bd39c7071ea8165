"""Shared fixtures of the commands' tests."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _load_once(load_once):
    """Commands within this process share the graphs that they load."""


@pytest.fixture(scope="module")
def graph(saved_heads):
    """The folder of a saved graph; a file may have another of its own."""
    return saved_heads
