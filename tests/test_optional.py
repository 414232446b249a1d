"""What is missing is named together with the extra that brings it."""

import pytest

from spokeshave.errors import MissingExtra
from spokeshave.optional import EXTRAS, available, require


def test_a_missing_module_names_its_extra(monkeypatch):
    monkeypatch.setitem(EXTRAS, "no_such_module", "onnx")
    assert not available("no_such_module") and available("torch")
    with pytest.raises(MissingExtra, match=r"exporting needs no_such_module: pip install 'spokeshave\[onnx\]'"):
        require("no_such_module", "exporting")
