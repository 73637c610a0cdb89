# SPDX-License-Identifier: Apache-2.0
"""The real Debian 12 image, made from Debian's packages."""
import subprocess

import pytest

from conftest import ROOT


@pytest.fixture(scope="module")
def debian(engine):
    path = subprocess.run([str(ROOT / "tests/images/make-debian")], capture_output=True, text=True, timeout=1200)
    if path.returncode != 0:
        pytest.fail("make-debian: " + path.stderr[-500:])
    engine.load(path.stdout.strip())
    return "walnut/debian:12"


def test_os_release(engine, debian, iso):
    out = engine.ok("run", "--rm", "--isolation=" + iso, debian, "cat", "/etc/os-release", timeout=120)
    assert "Debian GNU/Linux 12 (bookworm)" in out


def test_dpkg_finds_its_files_unchanged(engine, debian, iso):
    """dpkg --verify compares every packaged file with its checksum; only what the image left out may differ."""
    out = engine.ok("run", "--rm", "--isolation=" + iso, debian, "dpkg", "--verify", timeout=300)
    bad = [line for line in out.splitlines() if not line.startswith("missing") and "/usr/share/" not in line]
    assert bad == []
