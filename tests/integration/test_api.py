# SPDX-License-Identifier: Apache-2.0
"""The life of containers: logs, ps, inspect, wait, restart, rename, exec, events, re-adoption."""
import json
import subprocess
import time

from conftest import BUILD, IMAGE


def test_version(engine):
    v = json.loads(engine.ok("version", "--format", "{{json .}}"))
    assert v["Server"]["Os"] == "linux"


def test_info(engine):
    info = json.loads(engine.ok("info", "--format", "{{json .}}"))
    assert info["OSType"] == "linux"


def test_logs(engine, container):
    c = container("sh", "-c", "echo one; echo two >&2; echo three")
    engine.ok("wait", c)
    result = engine.docker("logs", c)
    assert (result.out, result.err) == ("one\nthree\n", "two\n")


def test_logs_tail_and_timestamps(engine, container):
    c = container("sh", "-c", "for i in 1 2 3 4 5; do echo $i; done")
    engine.ok("wait", c)
    assert engine.ok("logs", "--tail", "2", c).split() == ["4", "5"]
    stamp, text = engine.ok("logs", "-t", "--tail", "1", c).split()
    assert text == "5" and stamp[10] == "T" and stamp.endswith("Z")


def test_logs_follow(engine, container):
    c = container("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done")
    assert engine.ok("logs", "-f", c, timeout=20).split() == ["1", "2", "3"]


def test_wait_gives_the_exit_code(engine, container):
    assert engine.ok("wait", container("sh", "-c", "sleep 0.5; exit 12")) == "12"


def test_ps_filters(engine, container):
    c = container("--name", "psfilter", ..., "sleep", "100")
    for f in ("name=psfilter", "id=" + c[:12], "status=running"):
        assert c in engine.ok("ps", "-q", "--no-trunc", "--filter", f).split(), f
    assert c not in engine.ok("ps", "-q", "--no-trunc", "--filter", "status=exited").split()
    assert engine.docker("ps", "--filter", "nonsense=1").code != 0


def test_ps_a_shows_the_exit(engine, container):
    c = container("sh", "-c", "exit 4")
    engine.ok("wait", c)
    assert "Exited (4)" in engine.ok("ps", "-a", "--no-trunc", "--filter", "id=" + c, "--format", "{{.Status}}")


def test_inspect_state(engine, container):
    c = container("sleep", "100")
    state = engine.inspect(c)["State"]
    assert state["Running"] is True and state["Status"] == "running" and state["Pid"] > 0
    engine.ok("kill", c)
    engine.docker("wait", c)
    state = engine.inspect(c)["State"]
    assert state["Running"] is False and state["Status"] == "exited" and state["ExitCode"] == 137


def test_kill_with_signal(engine, container):
    c = container("sh", "-c", "trap 'exit 5' HUP; echo up; while :; do sleep 0.1; done")
    time.sleep(0.5)
    engine.ok("kill", "-s", "HUP", c)
    assert engine.ok("wait", c) == "5"


def test_create_start_attach(engine, iso):
    c = engine.ok("create", "--isolation=" + iso, IMAGE, "echo", "attached")
    try:
        assert engine.ok("start", "-a", c) == "attached"
        assert engine.ok("start", "-a", c) == "attached"
    finally:
        engine.docker("rm", "-f", c)


def test_files_stay_over_restart(engine, container):
    c = container("sh", "-c", "cat /kept 2>/dev/null; echo kept > /kept; exec sleep 100")
    deadline = time.monotonic() + 15
    while engine.docker("exec", c, "grep", "-q", "kept", "/kept").code != 0 and time.monotonic() < deadline:
        time.sleep(0.2)
    engine.ok("restart", "-t", "0", c)
    time.sleep(0.5)
    assert engine.ok("exec", c, "cat", "/kept") == "kept"
    assert "kept" in engine.ok("logs", c)


def test_restart_of_a_container_that_removes_itself(engine, container):
    c = container("--rm", ..., "sh", "-c", "echo x >> /starts; exec sleep 100")
    engine.ok("exec", c, "sh", "-c", "until [ -s /starts ]; do sleep 0.1; done")
    engine.ok("restart", "-t", "0", c)
    engine.ok("exec", c, "sh", "-c", "until [ $(wc -l < /starts) = 2 ]; do sleep 0.1; done", timeout=30)
    assert engine.inspect(c)["State"]["Running"]
    assert engine.ok("exec", c, "cat", "/starts").split() == ["x", "x"]


def test_rename(engine, container):
    c = container("--name", "before-rename", ..., "sleep", "100")
    engine.ok("rename", "before-rename", "after-rename")
    assert engine.inspect("after-rename")["Id"] == c
    assert engine.docker("inspect", "before-rename").code == 1


def test_rm_running_is_refused(engine, container):
    c = container("sleep", "100")
    result = engine.docker("rm", c)
    assert result.code == 1 and "running" in result.err
    engine.ok("rm", "-f", c)


def test_exec(engine, container):
    c = container("sleep", "100")
    assert engine.ok("exec", c, "echo", "hi") == "hi"
    assert engine.docker("exec", c, "sh", "-c", "exit 6").code == 6
    assert engine.docker("exec", c, "no-such-command").code == 127
    result = engine.docker("exec", c, "sh", "-c", "echo o; echo e >&2")
    assert (result.out, result.err) == ("o\n", "e\n")


def test_exec_options(engine, container):
    c = container("sleep", "100")
    out = engine.ok("exec", "-u", "ada", "-w", "/tmp", "-e", "X=y", c, "sh", "-c", "id -un; pwd; echo $X")
    assert out.split() == ["ada", "/tmp", "y"]
    assert engine.ok("exec", "-i", c, "cat", input="in\n") == "in"


def test_exec_in_stopped(engine, container):
    c = container("true")
    engine.ok("wait", c)
    result = engine.docker("exec", c, "true")
    assert result.code == 1 and "is not running" in result.err


def test_events(engine, iso):
    since = time.time()
    c = engine.ok("run", "--isolation=" + iso, "-d", IMAGE, "true")
    engine.ok("wait", c)
    engine.ok("rm", c)
    out = engine.ok("events", "--since", str(int(since)), "--until", str(int(time.time()) + 1), "--filter", "container=" + c,
                    "--format", "{{.Action}}")
    assert [a for a in out.split("\n") if a in ("create", "start", "die", "destroy")] == ["create", "start", "die", "destroy"]


def test_no_such_container(engine):
    for verb in ("stop", "kill", "rm", "logs", "start"):
        result = engine.docker(verb, "absent")
        assert result.code == 1 and "No such container: absent" in result.err, result


def test_engine_killed_containers_go_on(engine, container):
    """kill -9 of the engine: containers run on, their output and exit codes are not lost, the next engine adopts them."""
    lives = container("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    ends = container("sh", "-c", "sleep 1; echo last words; exit 21")
    pid = engine.inspect(lives)["State"]["Pid"]
    engine.kill()
    time.sleep(2)
    engine.start()
    assert engine.inspect(lives)["State"]["Pid"] == pid
    assert engine.ok("wait", ends) == "21"
    assert "last words" in engine.ok("logs", ends)
    numbers = [int(n) for n in engine.ok("logs", lives).split()]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 15
    assert engine.ok("exec", lives, "echo", "in") == "in"
    engine.ok("kill", lives)
    assert engine.ok("wait", lives) == "137"


def test_second_engine_on_the_same_roots(engine):
    done = subprocess.run([str(BUILD / "walnutd"), "--host", "unix://" + engine.socket, "--data-root", engine.root + "/data",
                           "--exec-root", engine.exec_root], capture_output=True, text=True, timeout=20)
    assert done.returncode != 0 and len(done.stderr.strip().splitlines()) <= 2, done
    assert engine.docker("version").code == 0


def test_not_root():
    done = subprocess.run([str(BUILD / "walnutd"), "--data-root", "/tmp/none"], capture_output=True, text=True, timeout=20,
                          user=65534, group=65534)
    assert done.returncode != 0 and "root" in done.stderr, done
