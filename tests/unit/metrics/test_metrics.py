# SPDX-License-Identifier: MulanPSL-2.0
"""The metrics: named by the conventions, readable by Prometheus, and the ones that dashboard and alerts name."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gazelled.instance.run_dir import RunDir
from gazelled.metrics.exposition import text
from gazelled.metrics.families import FAMILIES

REPOSITORY = Path(__file__).resolve().parents[3]
RULES = REPOSITORY / "packaging/prometheus/gazelled.rules.yml"
DASHBOARD = REPOSITORY / "packaging/grafana/gazelled.json"
PROMTOOL = REPOSITORY / ".cache/promtool/promtool"
NAMES = {family.name for family in FAMILIES}


def test_names_follow_the_conventions() -> None:
    assert len(NAMES) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"gazelle_[a-z0-9_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert "_total_" not in family.name.removesuffix("_total") + "_"
        assert family.meaning
        assert not set(family.labels) & {"instance", "job", "stack"}


def test_an_instance_that_does_not_run_says_just_that(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "blue")
    found = {family.name: family for family in text_string_to_metric_families(text(run_dir))}
    assert set(found) == {"gazelle_build_info", "gazelle_supervisor_up"}
    assert [(sample.labels, sample.value) for sample in found["gazelle_supervisor_up"].samples] == [
        ({"stack": "blue"}, 0.0)
    ]


@pytest.mark.parametrize("file", [RULES, DASHBOARD], ids=lambda file: file.name)
def test_every_query_names_a_metric_there_is(file: Path) -> None:
    if file is DASHBOARD:
        dashboard = json.loads(file.read_text())
        queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        queries += [each["query"] for each in dashboard["templating"]["list"]]
    else:
        queries = re.findall(r"expr: (.*)", file.read_text())
    named = {name for query in queries for name in re.findall(r"gazelle_\w+", query)}
    assert len(named) > 8
    assert named <= NAMES


def test_promtool_takes_the_rules_and_the_text(tmp_path: Path) -> None:
    assert PROMTOOL.is_file(), "scripts/setup test fetches it"
    done = subprocess.run([PROMTOOL, "check", "rules", RULES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = text(RunDir(tmp_path / "blue"))
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=said, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
