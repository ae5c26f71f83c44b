"""What a command wrote."""

import csv


def read_csv(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_one_line_error(capsys, *parts):
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("skgradood: error: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    for part in parts:
        assert part in lines[0]
