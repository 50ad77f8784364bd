"""How often a test split has been looked at: each look wears it out a little, whoever looked."""

from __future__ import annotations

import json
from pathlib import Path

from optimize.runs.run_dir import write_whole


def count_opening(runs: Path, dataset_fingerprint: str, key: str) -> int:
    """Note that the test split of a state of the data is opened, outside of any study's folder.

    Args:
        runs: The folder that everything is kept under.
        dataset_fingerprint: Which state of the data.
        key: Who opens it for what; the same key counts once, so that going on with a study is no second look.

    Returns:
        Number of openings so far, this one included.
    """
    folder = runs / "openings"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{dataset_fingerprint}.json"
    opened = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    if key not in opened:
        opened.append(key)
        write_whole(file, json.dumps(opened, indent=1) + "\n")
    return len(opened)
