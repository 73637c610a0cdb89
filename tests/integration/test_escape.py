# SPDX-License-Identifier: Apache-2.0
"""Known ways out of a container, each shown to fail."""
import os


def shims(engine):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                arguments = f.read().split(b"\0")
        except OSError:
            continue
        if arguments[0] == b"walnut-shim" and engine.exec_root.encode() in b" ".join(arguments):
            yield pid


def test_own_executable_can_not_be_written(engine, container):
    """CVE-2019-5736: the shim's file, which the container's first process still maps, lies on a read-only mount."""
    container(..., "sleep", "60")
    found = 0
    for pid in shims(engine):
        path = os.readlink(f"/proc/{pid}/exe")
        with open(f"/proc/{pid}/mountinfo") as f:
            own = [line.split() for line in f if line.split()[4] == path]
        assert own and "ro" in own[-1][5].split(","), (path, own)
        found += 1
    assert found
