# SPDX-License-Identifier: Apache-2.0
"""Other clients than Docker's newest: Debian's docker 20.10, python3-docker, docker-compose, dockerode (npm)."""
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import time

import pytest

from conftest import IMAGE

NODE_FOLDER = pathlib.Path(os.environ.get("WALNUT_CACHE", "/var/cache/walnut")) / "dockerode-4"


@pytest.fixture
def python_client(engine):
    import docker
    client = docker.DockerClient(base_url="unix://" + engine.socket, timeout=60)
    yield client
    client.close()


def test_python_run_logs_wait(python_client):
    c = python_client.containers.run(IMAGE, ["sh", "-c", "echo o; sleep 0.2; echo e >&2; sleep 1; exit 3"], detach=True)
    try:
        assert c.wait()["StatusCode"] == 3
        assert c.logs() == b"o\ne\n" and c.logs(stderr=False) == b"o\n"
        assert c.attach(stdout=True, stderr=False, logs=True, stream=False) == b"o\n"
    finally:
        c.remove(force=True)
    assert python_client.containers.run(IMAGE, "echo hello", remove=True) == b"hello\n"


def test_python_terminal(python_client):
    c = python_client.containers.create(IMAGE, "sh", stdin_open=True, tty=True)
    try:
        s = c.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        c.start()
        c.resize(40, 100)
        s._sock.sendall(b"echo $((6*7)); exit 9\n")
        assert c.wait()["StatusCode"] == 9
        assert b"42" in c.logs()
        s.close()
    finally:
        c.remove(force=True)


def test_python_exec_files_and_states(python_client):
    c = python_client.containers.run(IMAGE, "sleep 100", detach=True)
    try:
        done = c.exec_run(["sh", "-c", "echo a; echo b >&2; exit 4"], demux=True)
        assert (done.exit_code, done.output) == (4, (b"a\n", b"b\n"))
        assert list(c.exec_run("echo x", stream=True).output) == [b"x\n"]
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            info = tarfile.TarInfo("f")
            info.size = 2
            tar.addfile(info, io.BytesIO(b"hi"))
        assert c.put_archive("/tmp", data.getvalue()) is True
        assert c.get_archive("/tmp/f")[1]["size"] == 2
        assert {"Path": "/tmp/f", "Kind": 1} in c.diff()
        assert c.top()["Titles"][1] == "PID" and c.stats(stream=False)["memory_stats"]["usage"] > 0
        c.pause()
        c.reload()
        assert c.status == "paused"
        c.unpause()
        c.update(mem_limit="64m", memswap_limit="64m")
        c.rename("python-renamed")
        c.restart(timeout=0)
        c.kill()
        assert c.wait()["StatusCode"] == 137
    finally:
        c.remove(force=True)


def test_python_events_and_system(python_client):
    since = int(time.time()) - 1
    python_client.containers.run(IMAGE, "true", remove=True)
    actions = [e["Action"] for e in python_client.events(since=since, until=int(time.time()) + 1, decode=True)]
    assert [a for a in actions if a in ("create", "start", "die", "destroy")][-4:] == ["create", "start", "die", "destroy"]
    image = python_client.images.get(IMAGE)
    assert image.tag("walnut-test/python", "1")
    python_client.images.remove("walnut-test/python:1")
    assert image.history() and python_client.ping() and python_client.info()["OSType"] == "linux"
    assert python_client.df()["Images"]


# ---- docker-compose ----

COMPOSE = """
version: "2.4"
services:
  web:
    image: %s
    command: sh -c 'trap "exit 0" TERM; echo up; while :; do sleep 0.1; done'
    network_mode: none
    environment: [A=b]
    healthcheck: {test: ["CMD", "true"], interval: 1s}
    mem_limit: 64m
    isolation: %s
"""


def test_compose(engine, iso, tmp_path):
    (tmp_path / "docker-compose.yml").write_text(COMPOSE % (IMAGE, iso))

    def compose(*args, code=0):
        done = subprocess.run(["/usr/bin/docker-compose", "-p", "walnutcompose", *args], cwd=tmp_path, env=engine.env(),
                              capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)
        assert done.returncode == code, done
        return done.stdout
    try:
        compose("up", "-d")
        deadline = time.monotonic() + 60
        while "healthy" not in compose("ps").replace("unhealthy", "") and time.monotonic() < deadline:
            time.sleep(0.5)
        assert "Up (healthy)" in compose("ps")
        assert "up" in compose("logs", "--no-color", "web")
        assert compose("exec", "-T", "web", "sh", "-c", "echo in $A") == "in b\n"
        compose("exec", "-T", "web", "sh", "-c", "exit 5", code=5)
        assert "PID" in compose("top")
        compose("restart", "-t", "1")
        compose("up", "-d", "--force-recreate", "-t", "1")
    finally:
        compose("down", "-t", "1")
    assert engine.ok("ps", "-aq", "--filter", "label=com.docker.compose.project=walnutcompose") == ""


# ---- dockerode ----

NODE = r"""
const Docker = require('dockerode'), d = new Docker({socketPath: process.argv[2]}), image = process.argv[3];
const {PassThrough} = require('stream'), fail = (what, got) => { throw new Error(what + ': ' + JSON.stringify(got)); };
const want = (what, got, right) => { if (JSON.stringify(got) !== JSON.stringify(right)) fail(what, got); };
(async () => {
  const out = new PassThrough(), err = new PassThrough(); let o = '', e = '';
  out.on('data', x => o += x); err.on('data', x => e += x);
  const [res, c] = await d.run(image, ['sh', '-c', 'echo o; echo e >&2; exit 3'], [out, err], {Tty: false});
  want('run', [res.StatusCode, o, e], [3, 'o\n', 'e\n']);
  await c.remove();
  const k = await d.createContainer({Image: image, Cmd: ['sh', '-c', 'read x; echo got $x; sleep 100'], OpenStdin: true,
                                     name: 'walnut-node'});
  try {
    const s = await k.attach({stream: true, stdin: true, stdout: true, stderr: true, hijack: true});
    let got = ''; const seen = new Promise(r => k.modem.demuxStream(s, {write: x => { got += x; r(); }}, process.stderr));
    await k.start(); s.write('line\n'); await seen;
    want('attach', got, 'got line\n');
    const x = await k.exec({Cmd: ['cat'], AttachStdin: true, AttachStdout: true});
    const xs = await x.start({hijack: true, stdin: true}); let xo = '';
    k.modem.demuxStream(xs, {write: b => xo += b}, process.stderr); xs.write('through exec'); xs.end();
    await new Promise(r => xs.on('end', r));
    want('exec', [xo, (await x.inspect()).ExitCode], ['through exec', 0]);
    want('logs', (await k.logs({stdout: true})).toString('latin1').slice(8), 'got line\n');
    want('state', [(await k.inspect()).State.Status, (await k.top()).Titles[0]], ['running', 'UID']);
    const w = k.wait(); await k.kill(); want('wait', (await w).StatusCode, 137);
  } finally { await k.remove({force: true}); }
  const now = Math.floor(Date.now() / 1000);
  const ev = await d.getEvents({since: now - 60, until: now + 1, filters: {container: ['walnut-node'], event: ['start']}});
  let t = ''; ev.on('data', b => t += b); await new Promise(r => ev.on('end', r));
  if (!t.includes('"start"')) fail('events', t);
  if (!(await d.listImages()).length) fail('images', 0);
  try { await d.getContainer('absent').inspect(); fail('absent', 0); } catch (x) { want('404', x.statusCode, 404); }
})().catch(e => { console.error(e); process.exit(1); });
"""


def test_dockerode(engine, tmp_path):
    """The module comes from the npm registry once, and is kept."""
    if not (NODE_FOLDER / "node_modules" / "dockerode").exists():
        NODE_FOLDER.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", NODE_FOLDER,
                               "dockerode@4"], capture_output=True, text=True, timeout=300)
        if done.returncode:
            shutil.rmtree(NODE_FOLDER, ignore_errors=True)
            pytest.fail("npm install dockerode: " + done.stderr[-500:])
    done = subprocess.run(["node", "-", engine.socket, IMAGE], input=NODE, capture_output=True, text=True, timeout=120,
                          env=dict(os.environ, NODE_PATH=str(NODE_FOLDER / "node_modules")))
    assert done.returncode == 0, done.stderr


# ---- Debian's docker ----

OLD = "/usr/bin/docker"


def test_old_docker_client(engine, iso):
    """An older client asks for an older API version and gets what it knows."""
    def docker(*args, code=0, input=None):
        done = subprocess.run([OLD, *map(str, args)], env=engine.env(), capture_output=True, text=True, timeout=180, input=input,
                              stdin=subprocess.DEVNULL if input is None else None)
        assert done.returncode == code, done
        return done.stdout.strip()
    assert "Server" in docker("version")
    docker("run", "--rm", "--isolation=" + iso, IMAGE, "sh", "-c", "exit 7", code=7)
    assert docker("run", "--rm", "-i", "--isolation=" + iso, IMAGE, "cat", input="piped") == "piped"
    c = docker("run", "-d", "--isolation=" + iso, IMAGE, "sh", "-c", "echo up; sleep 100")
    try:
        deadline = time.monotonic() + 30
        while docker("logs", c) != "up" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert docker("exec", c, "echo", "in") == "in"
        assert c[:12] in docker("ps") and "sleep" in docker("top", c)
        assert json.loads(docker("inspect", c))[0]["State"]["Running"]
        docker("stats", "--no-stream", c)
        docker("pause", c)
        docker("unpause", c)
        docker("stop", "-t", "1", c)
        docker("info")
        docker("system", "df", "-v")
        docker("images")
        docker("history", IMAGE)
    finally:
        docker("rm", "-f", c)
