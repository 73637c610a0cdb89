# SPDX-License-Identifier: Apache-2.0
"""Errors a user meets first: one sentence with the remedy, Docker's status and exit code, and nothing left behind.

What needs an engine of its own (a full disk) gets one on a small tmpfs.
"""
import http.client
import json
import os
import pathlib
import socket
import subprocess

import pytest

from conftest import BUILD, IMAGE, Engine, Result, traces_in_time


def status_of(engine, method, path, body=None):
    """HTTP status and message of a request to the engine."""
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(engine.socket)
    connection.request(method, "/v1.47" + path, body and json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text).get("message", "") if text else ""


def is_one_sentence(text):
    return text and "\n" not in text.strip() and len(text) < 400


def walnut(engine, *args):
    return Result(subprocess.run([str(BUILD / "walnut"), "-H", "unix://" + engine.socket, *map(str, args)],
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120))


def names(engine):
    return engine.ok("ps", "-aq").split()


def data_files(engine):
    return {str(p) for part in ("tmp", "images/blobs", "containers")
            for p in pathlib.Path(engine.root, "data", part).rglob("*")}


def test_no_such_image(engine):
    before = names(engine)
    code, message = status_of(engine, "POST", "/containers/create", {"Image": "no-such-image:1"})
    assert code == 404 and message == "No such image: no-such-image:1"
    result = engine.docker("run", "--rm", "--pull=never", "no-such-image:1", "true")
    assert result.code == 125 and "No such image: no-such-image:1" in result.err
    assert names(engine) == before


def test_no_such_command(engine, iso):
    before = names(engine)
    result = engine.docker("run", "--rm", "--isolation=" + iso, IMAGE, "no-such-command")
    assert result.code == 127
    assert 'exec: "no-such-command": executable file not found in $PATH' in result.err
    assert names(engine) == before
    container = engine.ok("create", "--isolation=" + iso, IMAGE, "no-such-command")
    code, message = status_of(engine, "POST", f"/containers/{container}/start")
    state = engine.inspect(container)["State"]
    engine.ok("rm", container)
    assert code == 400 and is_one_sentence(message), (code, message)
    assert state["ExitCode"] == 127 and "no-such-command" in state["Error"]


def test_unknown_isolation(engine):
    before = names(engine)
    code, message = status_of(engine, "POST", "/containers/create",
                              {"Image": IMAGE, "HostConfig": {"Isolation": "foo"}})
    assert code == 400 and is_one_sentence(message)
    assert "foo" in message and "process" in message and "hyperv" in message
    for result in (engine.docker("run", "--rm", "--isolation=foo", IMAGE, "true"),
                   walnut(engine, "run", "--rm", "--isolation=foo", IMAGE, "true")):
        assert result.code == 125 and message in result.err
    assert names(engine) == before


def damaged_archives(engine, folder):
    good = pathlib.Path(engine.image_archive).read_bytes()
    for name, data in (("empty", b""), ("noise", os.urandom(5000)), ("cut", good[:len(good) // 2])):
        path = folder / name
        path.write_bytes(data)
        yield path


def test_bad_archives(engine, tmp_path):
    before = data_files(engine)
    for path in damaged_archives(engine, tmp_path):
        for result in (engine.docker("load", "-i", path), walnut(engine, "load", "-i", path)):
            assert result.code == 1 and is_one_sentence(result.err), result
            assert "archive" in result.err
    result = walnut(engine, "load", "-i", tmp_path / "missing")
    assert result.code == 1 and "missing: No such file" in result.err
    assert data_files(engine) == before


def second_engine(engine, *options):
    return Result(subprocess.run([str(BUILD / "walnutd"), *options], stdin=subprocess.DEVNULL, capture_output=True,
                                 text=True, timeout=20))


def test_engine_is_already_running(engine):
    for host in (engine.socket, engine.root + "/other.sock"):
        result = second_engine(engine, "--host", "unix://" + host, "--data-root", engine.root + "/data",
                               "--exec-root", engine.exec_root)
        assert result.code == 1
        assert f"an engine is already running on {engine.root}/data: stop it, or choose another --data-root" in result.err
    engine.ok("version")


def as_nobody(*command):
    env = {k: v for k, v in os.environ.items() if k not in ("WALNUT_HOST", "DOCKER_HOST")}
    return Result(subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command],
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, env=env))


@pytest.fixture
def public_programs(tmp_path_factory):
    """Copies that another user may run: the build folder may be in a home that is closed to others."""
    folder = pathlib.Path("/run") / f"walnut-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    for name in ("walnut", "walnutd"):
        (folder / name).write_bytes((BUILD / name).read_bytes())
        (folder / name).chmod(0o755)
    yield folder
    for name in ("walnut", "walnutd"):
        (folder / name).unlink()
    folder.rmdir()


def test_not_root(engine, public_programs):
    result = as_nobody(str(public_programs / "walnutd"), "--host", "unix:///tmp/walnut-not-root.sock")
    assert result.code == 1 and result.err == "walnutd: must run as root, to make containers: use sudo\n"
    os.chmod(engine.root, 0o755)
    result = as_nobody(str(public_programs / "walnut"), "-H", "unix://" + engine.socket, "ps")
    os.chmod(engine.root, 0o700)
    assert result.code == 1 and is_one_sentence(result.err)
    assert "Permission denied: use sudo" in result.err
    result = as_nobody(str(public_programs / "walnut"), "-H", "unix://" + engine.root + "/no.sock", "run", "x")
    assert result.code == 125 and is_one_sentence(result.err)


def test_no_engine(engine):
    for verb, code in ((["ps"], 1), (["run", IMAGE, "true"], 125)):
        result = Result(subprocess.run([str(BUILD / "walnut"), "-H", f"unix://{engine.root}/none.sock", *verb],
                                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20))
        assert result.code == code and is_one_sentence(result.err)
        assert "is walnutd running there?" in result.err


@pytest.fixture
def small_engine(engine):
    """An engine whose data root has room for the test image and 16 MB more."""
    e = Engine()
    size = os.path.getsize(engine.image_archive) + (16 << 20)
    os.mkdir(e.root + "/data")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "walnut-test", e.root + "/data"], check=True)
    try:
        e.start()
        e.load(engine.image_archive)
        yield e
        for container in names(e):
            e.ok("rm", "-f", container)
    finally:
        e.stop()
        subprocess.run(["umount", e.root + "/data"], check=True)
        left = traces_in_time(e)
        e.remove()
    assert not left, sorted(left)


def free_bytes(engine):
    s = os.statvfs(engine.root + "/data")
    return s.f_bavail * s.f_bsize


def test_disk_full_during_load(small_engine, tmp_path):
    import docker_archive
    big = tmp_path / "big.tar"
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs/noise").write_bytes(os.urandom(40 << 20))
    subprocess.run(["tar", "-C", tmp_path / "rootfs", "-cf", tmp_path / "layer.tar", "."], check=True)
    docker_archive.make(str(big), "walnut-test/big:1", [str(tmp_path / "layer.tar")])
    before, free = data_files(small_engine), free_bytes(small_engine)
    result = small_engine.docker("load", "-i", big, timeout=300)
    assert result.code == 1 and is_one_sentence(result.err), result
    assert "No space left on device" in result.err and "free space" in result.err
    assert data_files(small_engine) == before
    assert free_bytes(small_engine) > free - (1 << 20)
    assert "walnut-test/big" not in small_engine.ok("images")


def test_disk_full_during_run(small_engine, iso):
    run = ["run", "--isolation=" + iso]
    free = free_bytes(small_engine)
    # process: the container's own write fails; hyperv: the guest's disk fails when the guest writes its pages back
    full = small_engine.docker(*run, "--name", "full", IMAGE, "sh", "-c",
                               "dd if=/dev/zero of=/f bs=1M count=60 && sync && echo nothing happened; exit 9", timeout=300)
    assert full.code in (9, 125, 137), full
    if iso == "process":
        assert "No space left on device" in full.err and "nothing happened" not in full.out
    assert small_engine.docker("version").code == 0, "the engine lives on"
    result = small_engine.docker(*run, "--rm", IMAGE, "true", timeout=300)
    if result.code:
        assert result.code == 125
        assert "No space left on device: free space on that file system" in result.err, result
    small_engine.ok("rm", "-f", "full")
    assert small_engine.docker(*run, "--rm", IMAGE, "true", timeout=300).code == 0, "works again when there is space"
    assert names(small_engine) == []
    assert free_bytes(small_engine) > free - (1 << 20)
