"""The whole way from photographs to samples, by commands: encoded, killed, resumed, drawn."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "photographs.py"


@pytest.mark.skipif(shutil.which("pkill") is None, reason="needs pkill")
def test_from_photographs_to_samples(tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "308 images in 5 shards" in said
    assert "all 5 shards in latents are whole" in said
    killed = int(re.search(r"killed after (\d+) images", said)[1])
    resumed = int(re.search(r"resuming after (\d+) images", said)[1])
    assert 80 <= killed < 240
    assert 0 < resumed <= killed
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["images"] for line in lines] == list(range(8, 241, 8))  # nothing lost or twice
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.width >= 4 * 32
