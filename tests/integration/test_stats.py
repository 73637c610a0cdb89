# SPDX-License-Identifier: Apache-2.0
"""docker stats in both isolations."""
import json


def test_stats_of_a_running_container(engine, container):
    c = container("--memory", "64m", ..., "sleep", "60")
    stats = json.loads(engine.ok("stats", "--no-stream", "--format", "{{json .}}", c))
    assert stats["PIDs"] == "1", stats
    assert stats["MemUsage"].endswith("/ 64MiB"), stats
