"""The benchmark of what is served, run as from the command line."""

from __future__ import annotations

import pytest

from benchmarks import reach

pytest.importorskip("transformers")

pytestmark = pytest.mark.peers


def test_it_tells_who_serves_and_what_cannot_be_built(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["reach", "causal", "--only", "gpt2", "mixtral", "falcon_h1"])
    reach.main()
    *told, counts = capsys.readouterr().out.splitlines()
    served = [line for line in told if ": capture, " in line]
    assert [line.split(":")[0] for line in served] == ["gpt2", "mixtral"]
    assert all(float(line.split(", ")[1]) < 1e-8 for line in served)
    assert any(line.startswith("falcon_h1: not built: ") for line in told)
    assert counts == "{'capture': 2, 'other': 0, 'not built': 1}"
