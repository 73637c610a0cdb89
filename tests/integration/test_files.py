# SPDX-License-Identifier: Apache-2.0
"""docker cp both ways, export and diff, of containers that were never started, run, are paused, have stopped."""
import base64
import io
import json
import os
import subprocess
import tarfile

import pytest

from conftest import IMAGE
from test_inspect import Unix, api


@pytest.fixture
def box(engine):
    """box(command...) -> id of a process container that runs; box() one that was only created."""
    made = []

    def make(*command):
        made.append(engine.ok("run", "-d", IMAGE, *command) if command else engine.ok("create", IMAGE, "sleep", "100"))
        return made[-1]
    yield make
    for c in made:
        engine.docker("rm", "-f", c)


def state(engine, box, which):
    c = box() if which == "created" else box("sleep", "100")
    if which == "paused":
        engine.ok("pause", c)
    elif which == "stopped":
        engine.ok("stop", "-t", "0", c)
    return c


@pytest.mark.parametrize("which", ["created", "running", "paused", "stopped"])
def test_cp_both_ways(engine, box, tmp_path, which):
    c = state(engine, box, which)
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_text("content\n")
    (tree / "sub" / "tool").write_text("#!/bin/sh\n")
    (tree / "sub" / "tool").chmod(0o4755)
    (tree / "link").symlink_to("file")
    os.link(tree / "file", tree / "same")
    os.utime(tree / "file", (1, 1000000000))
    os.chown(tree / "file", 12, 34)
    os.setxattr(tree / "file", "user.walnut", b"kept")
    engine.ok("cp", "-q", tree, c + ":/tmp/")
    engine.ok("cp", "-q", tree, c + ":/tmp/other")
    engine.ok("cp", "-q", c + ":/tmp/tree", tmp_path / "back")
    back = tmp_path / "back"
    assert (back / "file").read_text() == "content\n" and os.readlink(back / "link") == "file"
    assert (back / "sub" / "tool").stat().st_mode & 0o7777 == 0o4755
    assert (back / "file").stat().st_ino == (back / "same").stat().st_ino
    assert int((back / "file").stat().st_mtime) == 1000000000
    archive = tarfile.open(fileobj=io.BytesIO(engine.ok("cp", c + ":/tmp/other/file", "-", text=False)))
    member = archive.getmembers()[0]
    assert (member.name, member.uid, member.gid, member.size) == ("file", 12, 34, 8), member
    if which == "running":
        assert "content" in engine.ok("exec", c, "cat", "/tmp/tree/file")


def test_cp_while_it_runs_sees_its_files(engine, box, tmp_path):
    c = box("sh", "-c", "echo mine > /root/mine; sleep 100")
    for _ in range(50):
        if engine.docker("exec", c, "test", "-s", "/root/mine").code == 0:
            break
    engine.ok("cp", "-q", c + ":/root/mine", tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine\n"


def test_cp_errors(engine, box, tmp_path):
    c = box("sleep", "100")
    (tmp_path / "f").write_text("x")
    result = engine.docker("cp", c + ":/nosuch", tmp_path / "n")
    assert result.code == 1 and "Could not find the file /nosuch in container" in result.err
    assert engine.docker("cp", tmp_path / "f", c + ":/nosuch/deep/").code == 1
    assert api(engine, "GET", f"/containers/{c}/archive")[0] == 400
    assert api(engine, "GET", "/containers/absent/archive?path=/")[0] == 404
    status, answer = put(engine, c, "/etc/passwd", b"\0" * 1024)
    assert status == 400 and "not a directory" in answer
    status, answer = put(engine, c, "/tmp", b"this is no archive" * 100)
    assert status in (400, 500) and answer
    read_only = engine.ok("create", "--read-only", IMAGE, "true")
    try:
        status, answer = put(engine, read_only, "/tmp", b"\0" * 1024)
        assert status == 403 and "read-only" in answer
    finally:
        engine.docker("rm", read_only)


def put(engine, c, path, data, query=""):
    conn = Unix(engine.socket)
    conn.request("PUT", f"/v1.47/containers/{c}/archive?path={path}{query}", data, {"Content-Type": "application/x-tar"})
    answer = conn.getresponse()
    body = answer.read().decode()
    conn.close()
    return answer.status, body


def make_tar(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("which", ["created", "running"])
def test_an_archive_stays_inside(engine, box, tmp_path, which):
    """'..', absolute names and links of a hostile archive lead nowhere but into the container."""
    c = state(engine, box, which)
    mark = f"walnut-escape-{os.getpid()}"
    data = make_tar(("../../../../tmp/" + mark, tarfile.REGTYPE, "", b"x"), ("/tmp/abs-" + mark, tarfile.REGTYPE, "", b"x"),
                    ("out", tarfile.SYMTYPE, "/tmp", b""), ("out/through-" + mark, tarfile.REGTYPE, "", b"x"),
                    ("up", tarfile.SYMTYPE, "../../../../../../../tmp", b""), ("up/up-" + mark, tarfile.REGTYPE, "", b"x"))
    assert put(engine, c, "/root", data)[0] == 200
    assert engine.docker("start", c).code == 0
    names = engine.ok("exec", c, "ls", "/tmp").split()
    assert {"through-" + mark, "up-" + mark} <= set(names), names
    for folder in ("/tmp", "/var/tmp", "/root", "/"):
        assert not [n for n in os.listdir(folder) if mark in n]
    # and a link in the container is followed inside the container only
    assert put(engine, c, "/root", make_tar(("host", tarfile.SYMTYPE, "/etc/passwd", b"")))[0] == 200
    got = engine.ok("cp", "-L", c + ":/root/host", "-", text=False)
    assert b"walnut" not in got and b"ada:" in got


def test_no_overwrite_of_other_kinds(engine, box):
    c = box("sleep", "100")
    assert put(engine, c, "/", make_tar(("k", tarfile.DIRTYPE, "", b"")))[0] == 200
    status, answer = put(engine, c, "/", make_tar(("k", tarfile.REGTYPE, "", b"x")), "&noOverwriteDirNonDir=1")
    assert status == 400 and "cannot overwrite directory" in answer
    assert put(engine, c, "/", make_tar(("k", tarfile.REGTYPE, "", b"x")))[0] == 200


def test_stat_header(engine, box):
    c = box("sleep", "100")
    conn = Unix(engine.socket)
    conn.request("HEAD", f"/v1.47/containers/{c}/archive?path=/tmp")
    answer = conn.getresponse()
    assert answer.status == 200
    stat = json.loads(base64.b64decode(answer.getheader("X-Docker-Container-Path-Stat")))
    assert stat["name"] == "tmp" and stat["mode"] == (1 << 31) | (1 << 20) | 0o777 and stat["linkTarget"] == ""
    conn.close()


@pytest.mark.parametrize("which", ["running", "stopped"])
def test_diff(engine, box, which):
    c = box("sh", "-c", "echo > /tmp/new; rm /etc/os-release; mkdir -p /a/b; echo >> /etc/passwd; touch /done; sleep 100")
    for _ in range(50):
        if engine.docker("exec", c, "test", "-e", "/done").code == 0:
            break
    if which == "stopped":
        engine.ok("stop", "-t", "0", c)
    assert engine.ok("diff", c).splitlines() == ["A /a", "A /a/b", "A /done", "C /etc", "D /etc/os-release", "C /etc/passwd",
                                                 "C /tmp", "A /tmp/new"]


def test_nothing_changed(engine, box):
    c = box("sleep", "100")
    assert engine.ok("diff", c) == "" and api(engine, "GET", f"/containers/{c}/changes") == (200, None)


@pytest.mark.parametrize("which", ["created", "running", "stopped"])
def test_export(engine, box, tmp_path, which):
    c = state(engine, box, which)
    engine.ok("export", "-o", tmp_path / "e.tar", c)
    with tarfile.open(tmp_path / "e.tar") as tar:
        names = {m.name for m in tar}
        assert "bin/busybox" in names and "etc/passwd" in names
        assert not [n for n in names if n.startswith("proc/") or n.startswith("sys/")]
    done = subprocess.run(["tar", "-tf", tmp_path / "e.tar"], capture_output=True)
    assert done.returncode == 0 and not done.stderr


def test_hyperv_is_refused_with_the_reason(engine):
    c = engine.ok("create", "--isolation=hyperv", IMAGE, "true")
    try:
        result = engine.docker("export", c)
        assert result.code == 1 and "hyperv" in result.err
    finally:
        engine.docker("rm", c)
