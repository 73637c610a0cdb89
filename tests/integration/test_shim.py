# SPDX-License-Identifier: Apache-2.0
"""walnut-shim by itself, with a busybox root filesystem: stdio, log, exit status, exec, re-adoption. Needs root."""
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "unit"))
from shim_client import Shim, ShimError, demux, make_layer, read_all  # noqa: E402

BINARY = os.environ.get("WALNUT_SHIM") or os.path.join(HERE, "..", "..", "build", "src", "shim", "walnut-shim")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="walnut-shim needs root"),
    pytest.mark.skipif(not os.path.exists(BINARY), reason="walnut-shim is not built"),
    pytest.mark.skipif(not shutil.which("mkfs.erofs") or not os.path.exists("/bin/busybox"),
                       reason="needs erofs-utils and busybox-static"),
]


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    return make_layer(tmp_path_factory.mktemp("layer"))


@pytest.fixture
def shim(tmp_path, layer):
    s = Shim(BINARY, tmp_path, layer)
    yield s
    if s.process.poll() is None:
        try:
            s.conn.call("signal", {"signal": 9})
            s.conn.wait_event("exited")
        except (ShimError, OSError, EOFError):
            pass
    s.end()


def test_output_exit_code_and_log(shim):
    assert shim.conn.call("hello")["state"] == "new"
    sock = shim.attach()
    shim.start(["sh", "-c", "echo out; echo err >&2; printf tail; exit 7"])
    exited = shim.conn.wait_event("exited")
    assert exited["exit_code"] == 7
    assert demux(read_all(sock)) == (b"out\ntail", b"err\n")
    with open(shim.data + "/exit.json", encoding="utf-8") as f:
        assert json.load(f) == exited
    records = shim.log_records()
    assert "".join(r["log"] for r in records if r["stream"] == "stdout") == "out\ntail"
    assert [r["log"] for r in records if r["stream"] == "stderr"] == ["err\n"]
    assert shim.conn.call("hello")["exit"] == exited


@pytest.mark.parametrize("args,code", [(["nonesuch"], 2), (["/etc/notexec"], 13)])
def test_start_failures(shim, args, code):
    sock = shim.attach()
    with pytest.raises(ShimError) as e:
        shim.start(args)
    assert e.value.code == code
    assert read_all(sock) == b""


def test_signal(shim):
    shim.start(["sh", "-c", "sleep 100"])
    shim.conn.call("signal", {"signal": int(signal.SIGKILL)})
    assert shim.conn.wait_event("exited")["exit_code"] == 137


@pytest.mark.parametrize("driver", ["none", "json-file"])
def test_100_mb_through(shim, driver):
    sock = shim.attach(stdin=True)
    shim.start(["cat"], stdin_open=True, stdin_once=True, driver=driver)
    block = os.urandom(1 << 20)
    want, got, left = hashlib.sha256(), hashlib.sha256(), 100

    def send():
        for _ in range(left):
            sock.sendall(block)
            want.update(block)
        sock.shutdown(1)
    began = time.monotonic()
    sender = threading.Thread(target=send)
    sender.start()
    data, total = b"", 0
    while True:
        chunk = sock.recv(1 << 20)
        if not chunk:
            break
        data += chunk
        while len(data) >= 8:
            n = int.from_bytes(data[4:8], "big")
            if len(data) < 8 + n:
                break
            got.update(data[8:8 + n])
            total += n
            data = data[8 + n:]
    sender.join()
    assert total == 100 << 20 and got.digest() == want.digest()
    print(f"100 MB, log {driver}: {time.monotonic() - began:.2f} s")
    assert shim.conn.wait_event("exited")["exit_code"] == 0


def test_tty_resize_and_detach(shim):
    sock = shim.attach(stdin=True, mux=False)
    shim.start(["sh"], terminal=True, stdin_open=True, stdin_once=True, console={"height": 20, "width": 70})
    shim.conn.call("resize", {"height": 33, "width": 99})
    sock.sendall(b"stty size\n")
    sock.settimeout(10)
    seen = b""
    while b"33 99" not in seen:
        seen += sock.recv(4096)
    sock.sendall(b"\x10\x11")
    assert shim.conn.wait_event("detached") == {}
    read_all(sock)
    sock = shim.attach(stdin=True, mux=False)
    sock.sendall(b"exit 5\n")
    assert shim.conn.wait_event("exited")["exit_code"] == 5


def test_exec_many(shim):
    shim.start(["sleep", "100"])
    socks = [shim.exec(f"e{i}", ["sh", "-c", f"cat; echo e >&2; exit {i}"], stdin=True) for i in range(10)]
    for i, sock in enumerate(socks):
        sock.sendall(b"text %d" % i)
        sock.shutdown(1)
    for i, sock in enumerate(socks):
        assert demux(read_all(sock)) == (b"text %d" % i, b"e\n")
    codes = {}
    while len(codes) < 10:
        event = shim.conn.wait_event("exec_exited")
        codes[event["exec_id"]] = event["exit_code"]
    assert codes == {f"e{i}": i for i in range(10)}
    with pytest.raises(ShimError) as e:
        shim.exec("missing", ["nonesuch"])
    assert e.value.code == 2


def test_engine_goes_and_comes(shim):
    shim.start(["sh", "-c", "read x; echo got $x; exit 3"], stdin_open=True)
    shim.conn.sock.close()
    time.sleep(0.2)
    shim.conn = shim.connect()
    hello = shim.conn.call("hello")
    assert hello["state"] == "running" and hello["pid"] > 0
    sock = shim.attach(stdin=True)
    sock.sendall(b"word\n")
    assert shim.conn.wait_event("exited")["exit_code"] == 3
    assert demux(read_all(sock))[0] == b"got word\n"


def test_ends_without_engine(shim):
    shim.start(["sh", "-c", "sleep 1; exit 4"])
    shim.conn.sock.close()
    assert shim.process.wait(10) == 0
    with open(shim.data + "/exit.json", encoding="utf-8") as f:
        assert json.load(f)["exit_code"] == 4


def test_long_lines_and_bad_utf8(shim):
    shim.start(["sh", "-c", r"printf '%040000d\n' 0; printf 'x\377y\303\251\n'"])
    shim.conn.wait_event("exited")
    records = [r["log"] for r in shim.log_records()]
    assert [len(r) for r in records[:3]] == [16384, 16384, 40000 - 32768 + 1]
    assert records[3] == "x\ufffdy\u00e9\n"


def test_rotation(shim):
    shim.start(["seq", "1", "2000"], log={"driver": "json-file", "path": shim.log, "max_size": 20000, "max_file": 3})
    shim.conn.wait_event("exited")
    names = sorted(n for n in os.listdir(shim.data) if "json.log" in n)
    assert names == ["t1-json.log", "t1-json.log.1", "t1-json.log.2"]
    assert all(os.path.getsize(f"{shim.data}/{n}") < 21000 for n in names)


def test_private_memory(shim):
    shim.start(["sleep", "100"])
    status = open(f"/proc/{shim.process.pid}/smaps_rollup", encoding="ascii").read()
    private = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("Private"))
    print(f"private memory: {private} kB")
    assert private < 2048
