# SPDX-License-Identifier: Apache-2.0
"""Logs (rotation, filters, follow), attach (log before live, early input, detach keys) and exec, down to the bytes."""
import json
import socket
import subprocess
import time

from test_inspect import api


def until(what, seconds=120):
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert what()


def raw(engine, method, path, body=None, extra=b"", upgrade=True):
    """A request on its own connection, with bytes right after it that wait for no answer. Gives the socket."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(engine.socket)
    data = json.dumps(body).encode() if body is not None else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    if upgrade:
        head += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    s.sendall(head.encode() + b"\r\n" + data + extra)
    s.settimeout(60)
    return s


def read_all(s):
    data = b""
    while piece := s.recv(65536):
        data += piece
    return data


def frames(data):
    """Docker's frames: what each stream got."""
    out = {1: b"", 2: b""}
    while data:
        n = int.from_bytes(data[4:8], "big")
        out[data[0]] += data[8:8 + n]
        data = data[8 + n:]
    return out


# ---- logs ----

def rotated(engine, container, files="3"):
    c = container("--log-opt", "max-size=10k", "--log-opt", "max-file=" + files, ...,
                  "sh", "-c", "for i in $(seq 1000); do echo line $i of many; done")
    engine.ok("wait", c)
    return c


def test_logs_over_rotated_files(engine, container):
    c = rotated(engine, container)
    lines = engine.ok("logs", c).splitlines()
    first = int(lines[0].split()[1])
    assert 1 < first < 900, "the oldest lines are gone, the rest is there"
    assert lines == [f"line {i} of many" for i in range(first, 1001)]
    assert engine.ok("logs", "--tail", "200", c).splitlines() == lines[-200:]
    assert engine.ok("logs", "--tail", "0", c) == ""
    assert engine.ok("logs", "--tail", "100000", c).splitlines() == lines


def test_logs_in_one_file(engine, container):
    lines = engine.ok("logs", rotated(engine, container, "1")).splitlines()
    assert lines[-1] == "line 1000 of many" and len(lines) < 300


def test_logs_follow_over_rotation(engine, container):
    c = container("--log-opt", "max-size=20k", "--log-opt", "max-file=50", ..., "sh", "-c",
                  "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; [ $((i % 100)) = 0 ] && sleep 0.1; done")
    assert engine.ok("logs", "-f", c, timeout=120).splitlines() == [f"line {i}" for i in range(1, 2001)]


def test_logs_since_and_until(engine, container):
    c = container("sh", "-c", "echo early; sleep 3; echo late")
    engine.ok("wait", c)
    stamps = [line.split()[0] for line in engine.ok("logs", "-t", c).splitlines()]
    assert engine.ok("logs", "--since", stamps[1], c) == "late"
    assert engine.ok("logs", "--until", stamps[0], c) == "early"
    assert engine.ok("logs", "--since", stamps[1], "--until", stamps[0], c) == ""
    assert engine.docker("logs", "--since", "nonsense", c).code != 0


def test_logs_streams_apart(engine, container):
    c = container("sh", "-c", "echo o; echo e >&2")
    engine.ok("wait", c)
    for query, want in (("stdout=1", (b"o\n", b"")), ("stderr=1", (b"", b"e\n")), ("stdout=1&stderr=1", (b"o\n", b"e\n"))):
        answer = read_all(raw(engine, "GET", f"/v1.47/containers/{c}/logs?{query}", upgrade=False,
                              extra=b"GET /_ping HTTP/1.0\r\n\r\n"))
        body = answer.split(b"\r\n\r\n", 1)[1]
        for text in want:
            assert text in body
    assert api(engine, "GET", f"/containers/{c}/logs")[0] == 400


def test_logs_of_driver_none(engine, container):
    c = container("--log-driver", "none", ..., "echo", "x")
    result = engine.docker("logs", c)
    assert result.code == 1 and "does not support reading" in result.err


# ---- attach ----

def test_attach_log_then_live_then_input(engine, container):
    """The log and the stream join without a gap or a doubled byte, in the middle of a line too; early input is not lost."""
    c = container("-i", ..., "sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); "
                  "[ $((i % 300)) = 0 ] && sleep 0.1; done; printf par; sleep 2; echo tial; read x; echo got $x")
    time.sleep(0.5)
    s = raw(engine, "POST", f"/v1.47/containers/{c}/attach?logs=1&stream=1&stdout=1&stderr=1&stdin=1", extra=b"early input\n")
    answer = read_all(s)
    head, body = answer.split(b"\r\n\r\n", 1)
    assert b"101 UPGRADED" in head and b"application/vnd.docker.multiplexed-stream" in head
    assert frames(body)[1].decode().split("\n") == [str(i) for i in range(3000)] + ["partial", "got early input", ""]


def test_attach_logs_only(engine, container):
    c = container("sh", "-c", "echo out; echo err >&2")
    engine.ok("wait", c)
    body = read_all(raw(engine, "POST", f"/v1.47/containers/{c}/attach?logs=1&stdout=1&stderr=1")).split(b"\r\n\r\n", 1)[1]
    assert frames(body) == {1: b"out\n", 2: b"err\n"}


def test_attach_without_upgrade(engine, container):
    c = container("sh", "-c", "sleep 1; echo x")
    answer = read_all(raw(engine, "POST", f"/v1.24/containers/{c}/attach?stream=1&stdout=1", upgrade=False))
    assert answer.startswith(b"HTTP/1.1 200") and frames(answer.split(b"\r\n\r\n", 1)[1])[1] == b"x\n"


def test_attach_refusals(engine, container):
    c = container("sleep", "100")
    assert api(engine, "POST", f"/containers/{c}/attach?stream=1&stdout=1&detachKeys=nonsense")[0] == 400
    assert api(engine, "POST", "/containers/absent/attach?stream=1")[0] == 404
    engine.ok("pause", c)
    assert api(engine, "POST", f"/containers/{c}/attach?stream=1&stdout=1")[0] == 409


# ---- exec ----

def test_exec_early_input(engine, container):
    c = container("sleep", "100")
    x = api(engine, "POST", f"/containers/{c}/exec", {"Cmd": ["head", "-n1"], "AttachStdin": True, "AttachStdout": True})[1]["Id"]
    answer = read_all(raw(engine, "POST", f"/v1.47/exec/{x}/start", {"Detach": False}, extra=b"at once\n"))
    assert frames(answer.split(b"\r\n\r\n", 1)[1])[1] == b"at once\n"


def test_exec_inspect(engine, container):
    c = container("sleep", "100")
    status, made = api(engine, "POST", f"/containers/{c}/exec", {"Cmd": ["sh", "-c", "exit 9"], "User": "ada"})
    assert status == 201
    x = api(engine, "GET", f"/exec/{made['Id']}/json")[1]
    assert x["Running"] is False and x["ExitCode"] is None and x["ContainerID"] == c
    assert x["ProcessConfig"]["entrypoint"] == "sh" and x["ProcessConfig"]["arguments"] == ["-c", "exit 9"]
    assert x["ProcessConfig"]["user"] == "ada"
    assert api(engine, "POST", f"/exec/{made['Id']}/start", {"Detach": True})[0] == 200
    until(lambda: api(engine, "GET", f"/exec/{made['Id']}/json")[1]["ExitCode"] == 9)
    assert api(engine, "POST", f"/exec/{made['Id']}/start", {"Detach": True})[0] == 409
    assert api(engine, "GET", "/exec/absent/json")[0] == 404
    assert api(engine, "POST", f"/containers/{c}/exec", {"Cmd": []})[0] == 400


def test_exec_detached_and_privileged(engine, container):
    c = container("sleep", "100")
    engine.ok("exec", "-d", c, "touch", "/made")
    until(lambda: engine.docker("exec", c, "test", "-e", "/made").code == 0)
    plain = engine.ok("exec", c, "grep", "CapEff", "/proc/self/status")
    all_of_them = engine.ok("exec", "--privileged", c, "grep", "CapEff", "/proc/self/status")
    assert int(plain.split()[1], 16) & 1 << 21 == 0 and int(all_of_them.split()[1], 16) & 1 << 21


def test_exec_many_at_once(engine, container):
    c = container("sleep", "100")
    running = [engine.popen("exec", c, "sh", "-c", f"sleep 0.5; echo {i}; exit {i}", stdout=subprocess.PIPE) for i in range(20)]
    for i, p in enumerate(running):
        out, _ = p.communicate(timeout=120)
        assert (out.decode().strip(), p.returncode) == (str(i), i)


def test_exec_in_paused(engine, container):
    c = container("sleep", "100")
    engine.ok("pause", c)
    result = engine.docker("exec", c, "true")
    assert result.code == 1 and "is paused" in result.err
