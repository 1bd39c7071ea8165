"""A script without Apache Beam."""

import sys

import pytest

from dfdetect.corpora import beam_setup


def test_a_missing_beam_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"missing: pip install dfdetect\[beam\]"):
        beam_setup.require_beam()
