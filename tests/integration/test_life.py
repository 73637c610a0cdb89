# SPDX-License-Identifier: Apache-2.0
"""Health checks, restart policies, wait, pause, update, top, events: what happens to a container over time."""
import json
import time

import pytest

from conftest import IMAGE
from test_inspect import api
from test_streams import raw, until


def test_health(engine, container):
    since = int(time.time())
    c = container("--health-cmd", "echo looked; test -e /ok", "--health-interval", "1s", "--health-retries", "2", ..., "sleep", "100")
    assert engine.inspect(c)["State"]["Health"]["Status"] == "starting"
    assert "(health: starting)" in engine.ok("ps", "--filter", "id=" + c, "--format", "{{.Status}}")
    until(lambda: engine.inspect(c)["State"]["Health"]["Status"] == "unhealthy")
    health = engine.inspect(c)["State"]["Health"]
    assert health["FailingStreak"] >= 2 and health["Log"][-1]["ExitCode"] == 1 and health["Log"][-1]["Output"] == "looked\n"
    assert c in engine.ok("ps", "-q", "--no-trunc", "--filter", "health=unhealthy").split()
    engine.ok("exec", c, "touch", "/ok")
    until(lambda: engine.inspect(c)["State"]["Health"]["Status"] == "healthy")
    assert engine.inspect(c)["State"]["Health"]["FailingStreak"] == 0
    events = engine.ok("events", "--since", since, "--until", int(time.time()) + 1, "--filter", "container=" + c,
                       "--filter", "event=health_status", "--format", "{{.Action}}").splitlines()
    assert events == ["health_status: unhealthy", "health_status: healthy"]


def test_health_timeout(engine, container):
    c = container("--health-cmd", "sleep 50", "--health-interval", "500ms", "--health-timeout", "1s", "--health-retries", "1",
                  ..., "sleep", "100")
    until(lambda: engine.inspect(c)["State"]["Health"]["Status"] == "unhealthy")
    entry = engine.inspect(c)["State"]["Health"]["Log"][0]
    assert entry["ExitCode"] == -1 and "exceeded timeout" in entry["Output"]


def test_no_healthcheck(engine, container):
    c = container("--no-healthcheck", ..., "sleep", "100")
    assert "Health" not in engine.inspect(c)["State"]


def test_restart_on_failure_counts(engine, container):
    c = container("--restart", "on-failure:2", ..., "sh", "-c", "echo run; exit 3")
    until(lambda: engine.inspect(c)["State"]["Status"] == "exited" and engine.inspect(c)["RestartCount"] == 2)
    time.sleep(1)
    assert engine.ok("logs", c).split() == ["run"] * 3
    state = engine.inspect(c)
    assert state["State"]["ExitCode"] == 3 and state["RestartCount"] == 2


def test_on_failure_leaves_success_alone(engine, container):
    c = container("--restart", "on-failure", ..., "true")
    engine.ok("wait", c)
    time.sleep(0.5)
    assert engine.inspect(c)["State"]["Status"] == "exited" and engine.inspect(c)["RestartCount"] == 0


def test_restart_backs_off_and_stop_ends_it(engine, container):
    c = container("--restart", "always", ..., "sh", "-c", "date +%s%N; exit 1")
    until(lambda: engine.inspect(c)["RestartCount"] >= 4)
    engine.ok("stop", "-t", "1", c)
    count = engine.inspect(c)["RestartCount"]
    time.sleep(2)
    state = engine.inspect(c)
    assert state["State"]["Status"] == "exited" and state["RestartCount"] == count
    engine.ok("start", c)
    until(lambda: engine.inspect(c)["RestartCount"] >= 1)


def test_policies_over_an_engine_restart(engine):
    made = {name: engine.ok("run", "-d", "--restart", policy, IMAGE, "sleep", "100") for name, policy in
            (("always", "always"), ("unless", "unless-stopped"), ("stopped", "unless-stopped"), ("no", "no"))}
    try:
        for c in ("always", "stopped", "no"):
            engine.ok("stop", "-t", "0", made[c])
        assert engine.stop()
        engine.start()
        until(lambda: engine.inspect(made["always"])["State"]["Running"])
        assert engine.inspect(made["unless"])["State"]["Running"]
        assert not engine.inspect(made["stopped"])["State"]["Running"] and not engine.inspect(made["no"])["State"]["Running"]
    finally:
        engine.docker("rm", "-f", *made.values())


@pytest.mark.parametrize("condition", ["", "?condition=not-running", "?condition=next-exit", "?condition=removed"])
def test_wait_conditions(engine, container, condition):
    c = container("sh", "-c", "sleep 2; exit 7")
    s = raw(engine, "POST", f"/v1.47/containers/{c}/wait{condition}", upgrade=False)
    head = s.recv(65536)
    assert b"200 OK" in head and b"StatusCode" not in head, "the head comes at once, the body at the end"
    if "removed" in condition:
        engine.ok("wait", c)
        engine.ok("rm", c)
        assert b'"StatusCode":7' in s.recv(65536)
    else:
        assert b'"StatusCode":7' in s.recv(65536)
    s.close()


def test_wait_of_exited(engine, container):
    c = container("sh", "-c", "exit 5")
    engine.ok("wait", c)
    assert api(engine, "POST", f"/containers/{c}/wait") == (200, {"StatusCode": 5})
    assert api(engine, "POST", f"/containers/{c}/wait?condition=nonsense")[0] == 400


def test_pause(engine, container):
    c = container("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    until(lambda: engine.ok("logs", c))
    engine.ok("pause", c)
    state = engine.inspect(c)["State"]
    assert (state["Status"], state["Paused"], state["Running"]) == ("paused", True, True)
    assert "(Paused)" in engine.ok("ps", "--filter", "id=" + c, "--format", "{{.Status}}")
    time.sleep(0.5)
    before = engine.ok("logs", c)
    time.sleep(1)
    assert engine.ok("logs", c) == before
    assert "already paused" in engine.docker("pause", c).err
    engine.ok("unpause", c)
    until(lambda: engine.ok("logs", c) != before)
    assert "not paused" in engine.docker("unpause", c).err
    engine.ok("pause", c)
    engine.ok("kill", c)
    assert engine.ok("wait", c) == "137"


def test_update(engine, container):
    c = container("-m", "64m", ..., "sleep", "100")
    engine.ok("update", "-m", "48m", "--memory-swap", "48m", "--pids-limit", "77", "--cpus", "0.5", "--restart", "on-failure:3", c)
    host = engine.inspect(c)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NanoCpus"]) == (48 << 20, 48 << 20, 77, 5 * 10 ** 8)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    limits = engine.ok("exec", c, "sh", "-c", "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max "
                       "cpu/cpu.cfs_quota_us memory.max pids.max cpu.max 2>/dev/null; true").split()
    assert limits[:3] == [str(48 << 20), "77", "50000"]
    for options, words in ((["-m", "1m"], "Minimum memory limit"), (["-m", "1g"], "memoryswap"),
                           (["--blkio-weight", "100"], "BlkioWeight"), (["--restart", "nonsense"], "nonsense")):
        result = engine.docker("update", *options, c)
        assert result.code != 0 and words in result.err, result
    assert engine.inspect(c)["HostConfig"]["Memory"] == 48 << 20


def test_top(engine, container):
    c = container("sh", "-c", "sleep 1234; true")
    until(lambda: engine.ok("top", c).count("1234") == 2)
    lines = engine.ok("top", c).splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert {line.split(None, 7)[7] for line in lines[1:]} == {"sh -c sleep 1234; true", "sleep 1234"}
    lines = engine.ok("top", c, "-o", "pid,args").splitlines()
    assert lines[0].split() == ["PID", "COMMAND"] and lines[1].split(None, 1)[1] == "sh -c sleep 1234; true"
    assert engine.ok("top", c, "aux").splitlines()[0].split()[:4] == ["USER", "PID", "%CPU", "%MEM"]
    result = engine.docker("top", c, "-o", "args")
    assert result.code == 1 and "PID" in result.err
    engine.ok("kill", c)
    engine.ok("wait", c)
    result = engine.docker("top", c)
    assert result.code == 1 and "is not running" in result.err


def test_stats_forms(engine, container):
    c = container("sleep", "100")
    once = api(engine, "GET", f"/containers/{c}/stats?stream=0&one-shot=1")[1]
    assert once["pids_stats"]["current"] == 1 and once["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    pair = api(engine, "GET", f"/containers/{c}/stats?stream=0")[1]
    assert pair["precpu_stats"]["system_cpu_usage"] < pair["cpu_stats"]["system_cpu_usage"]
    assert pair["memory_stats"]["usage"] > 0 and pair["memory_stats"]["limit"] > 0 and pair["name"].startswith("/")
    s = raw(engine, "GET", f"/v1.47/containers/{c}/stats", upgrade=False)
    data = b""
    while data.count(b'"read"') < 3:
        piece = s.recv(65536)
        assert piece, "the stream goes on"
        data += piece
    engine.ok("rm", "-f", c)
    read_all_ends = time.monotonic()
    while True:
        piece = s.recv(65536)
        if not piece or piece.endswith(b"0\r\n\r\n"):
            break
        assert time.monotonic() - read_all_ends < 20, "the stream ends with the container"
    s.close()
    assert api(engine, "GET", f"/containers/{c}/stats?stream=0")[0] == 404


def test_stats_of_a_stopped_container(engine, container):
    c = container("true")
    engine.ok("wait", c)
    stats = api(engine, "GET", f"/containers/{c}/stats?stream=0")[1]
    assert stats["id"] == c and stats["cpu_stats"]["cpu_usage"]["total_usage"] == 0


def test_events_filters_and_replay(engine, container):
    since = int(time.time())
    c = container("--label", "ev=1", ..., "sh", "-c", "exit 4")
    engine.ok("wait", c)
    engine.ok("rename", c, "events-renamed")
    now = int(time.time()) + 1

    def events(*filters):
        out = engine.ok("events", "--since", since, "--until", now, *[x for f in filters for x in ("--filter", f)], "--format", "{{json .}}")
        return [json.loads(line) for line in out.splitlines()]
    mine = events("container=" + c)
    actions = [e["Action"] for e in mine]
    assert [a for a in actions if a in ("create", "start", "die", "rename")] == ["create", "start", "die", "rename"]
    die = [e for e in mine if e["Action"] == "die"][0]
    assert die["Actor"]["Attributes"]["exitCode"] == "4" and die["Actor"]["Attributes"]["ev"] == "1"
    assert die["Actor"]["ID"] == c and die["scope"] == "local" and die["timeNano"] // 10 ** 9 == die["time"]
    assert {e["Action"] for e in events("label=ev=1", "event=start")} == {"start"}
    assert not events("label=ev=2") and not events("type=network")
    assert engine.docker("events", "--until", now, "--filter", "nonsense=1").code != 0
