# SPDX-License-Identifier: Apache-2.0
"""The search for leaks at the end of the suite finds each kind of leak: here they are made on purpose."""
import os
import pathlib
import socket
import subprocess
import time

from conftest import Engine, traces

ID = "5eaf" * 16


def kinds(found):
    return {line.split()[0] for line in found}


def cgroup_folder():
    controllers = [p for p in pathlib.Path("/sys/fs/cgroup").glob("*/cgroup.procs") if p.parent.name != "unified"]
    top = controllers[0].parent if not pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists() else pathlib.Path("/sys/fs/cgroup")
    return top / ("walnut-leak-test-" + ID)


def test_leaks_are_found():
    e = Engine()
    e.ids.add(ID)
    cgroup = cgroup_folder()
    bound = socket.socket(socket.AF_UNIX)
    process = loop = None
    try:
        assert traces(e) == set()
        os.mkdir(e.root + "/mnt")
        subprocess.run(["mount", "-t", "tmpfs", "none", e.root + "/mnt"], check=True)
        pathlib.Path(e.root + "/disk").write_bytes(bytes(1 << 20))
        loop = subprocess.run(["losetup", "-f", "--show", e.root + "/disk"], capture_output=True, text=True, check=True).stdout.strip()
        process = subprocess.Popen(["tail", "-f", e.root + "/disk"], stdout=subprocess.DEVNULL)
        cgroup.mkdir()
        bound.bind(e.exec_root + "/left.sock")
        os.makedirs(e.exec_root + "/containers/" + ID)
        every = {"mount", "loop", "process", "cgroup", "socket", "folder"}
        deadline = time.monotonic() + 10
        while kinds(found := traces(e)) != every and time.monotonic() < deadline:
            time.sleep(0.1)  # the process has just been started
        assert kinds(found) == every, found
        # a process that names none of the folders, but is in a container's cgroup
        child = subprocess.Popen(["sleep", "100"])
        (cgroup / "cgroup.procs").write_text(str(child.pid))
        found = traces(e)
        child.kill()
        child.wait()
        assert any(line.startswith(f"process {child.pid}:") for line in found), found
    finally:
        bound.close()
        if process:
            process.kill()
            process.wait()
        if loop:
            subprocess.run(["losetup", "-d", loop], check=False)
        subprocess.run(["umount", e.root + "/mnt"], check=False)
        if cgroup.exists():
            cgroup.rmdir()
        e.remove()
    assert traces(e) == set()
