# SPDX-License-Identifier: Apache-2.0
"""docker commit: the writable layer of a process container becomes a layer of a new image."""
import io
import json
import subprocess
import tarfile
import time

import pytest

from conftest import IMAGE


@pytest.fixture
def made(engine):
    """Removes containers and images a test makes under these names."""
    names = []
    yield names.append
    for name in names:
        engine.docker("rm", "-f", name)
    for name in names:
        engine.docker("rmi", "-f", name)


CHANGES = """
mkdir -p /new/deep && echo deep > /new/deep/file && ln /new/deep/file /new/link && ln -s deep/file /new/soft
rm /etc/not-executable && echo changed > /etc/os-release
rm -rf /home && mkdir -p /home/ada && echo fresh > /home/ada/fresh
echo owned > /var/owned && chown 1000:2000 /var/owned && chmod 4750 /var/owned
mkfifo /var/fifo
mkdir "/var/$(printf 'caf\\303\\251')" && echo x > "/var/$(printf 'caf\\303\\251')/$(printf 'n%.0s' $(seq 120))"
echo odd > "/var/$(printf 'bad\\377name')"
"""
CHECK = """
cat /new/deep/file; test /new/deep/file -ef /new/link && echo same; readlink /new/soft
test -e /etc/not-executable || echo deleted; cat /etc/os-release
ls -A /home /home/ada; stat -c '%u %g %a' /var/owned; test -p /var/fifo && echo fifo
ls /var/caf*/; cat /var/bad*
"""


@pytest.mark.parametrize("state", ["running", "exited", "paused"])
def test_files(engine, made, state):
    """What a container changed is in the image, in both isolations, whatever the container's state."""
    box, image = f"commit-{state}", f"committed-{state}:1"
    made(box), made(image)
    engine.ok("run", "-d", "--isolation=process", "--name", box, IMAGE, "sleep", "1000")
    engine.ok("exec", box, "sh", "-c", CHANGES)
    want = engine.ok("exec", box, "sh", "-c", CHECK, text=False).strip()
    assert b"deep\nsame\ndeep/file\ndeleted\nchanged" in want and b"1000 2000 4750\nfifo" in want
    if state == "exited":
        engine.ok("kill", box)
    elif state == "paused":
        engine.ok("pause", box)
    new = engine.ok("commit", box, image)
    assert new.startswith("sha256:") and engine.inspect(image)["Id"] == new
    now = engine.inspect(box)["State"]["Status"]
    assert now == state
    if state == "paused":
        engine.ok("unpause", box)
    old = engine.inspect(IMAGE)
    info = engine.inspect(image)
    assert info["RootFS"]["Layers"][:-1] == old["RootFS"]["Layers"] and info["Parent"] == old["Id"]
    for isolation in ("process", "hyperv") if state == "running" else ("process",):
        assert engine.ok("run", "--rm", "--isolation=" + isolation, image, "sh", "-c", CHECK, text=False).strip() == want


def test_layer_holds_only_changes(engine, made, tmp_path):
    """Neither the files that the engine makes for a run nor folders that did not change; whiteouts as the OCI image-spec has them."""
    made("commit-layer"), made("committed-layer:1")
    engine.ok("run", "--isolation=process", "--name", "commit-layer", IMAGE, "sh", "-c",
              "echo 1 > /root/one; rm /etc/group; rm -r /home; mkdir /home")
    engine.ok("commit", "commit-layer", "committed-layer:1")
    engine.ok("save", "-o", tmp_path / "i.tar", "committed-layer:1")
    with tarfile.open(tmp_path / "i.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        layer = tarfile.open(fileobj=io.BytesIO(tar.extractfile(manifest["Layers"][-1]).read()))
    assert sorted(layer.getnames()) == ["etc", "etc/.wh.group", "home", "home/.wh..wh..opq", "root", "root/one"]


def test_nothing_changed(engine, made):
    """No layer for no change, but a step in the history (as Docker)."""
    made("commit-none"), made("committed-none:1")
    engine.ok("run", "--isolation=process", "--name", "commit-none", IMAGE, "true")
    engine.ok("commit", "-m", "nothing", "commit-none", "committed-none:1")
    assert engine.inspect("committed-none:1")["RootFS"] == engine.inspect(IMAGE)["RootFS"]
    assert engine.ok("history", "--format", "{{.CreatedBy}}|{{.Comment}}|{{.Size}}", "committed-none:1").splitlines()[0] == \
        "true|nothing|0B"
    created = engine.ok("create", "--isolation=process", "--name", "commit-created", IMAGE)
    made("commit-created")
    engine.ok("commit", created, "committed-none:1")


def test_config(engine, made):
    made("commit-config"), made("committed-config:1")
    engine.ok("run", "--isolation=process", "--name", "commit-config", "-e", "MINE=1", "-w", "/var", "-h", "strange",
              "--label", "a=b", IMAGE, "echo", "hello")
    engine.ok("commit", "--author", "Ada <ada@x>", "--message", "a message", "--change", 'ENV ADDED="two words"',
              "--change", 'ENTRYPOINT ["/bin/echo", "said:"]', "--change", "EXPOSE 80/udp", "--change", "LABEL c=d",
              "--change", "USER ada", "commit-config", "committed-config:1")
    image = engine.inspect("committed-config:1")
    config = image["Config"]
    assert image["Author"] == "Ada <ada@x>" and image["Comment"] == "a message"
    assert "MINE=1" in config["Env"] and "ADDED=two words" in config["Env"]
    assert config["WorkingDir"] == "/var" and config["Labels"] == {"a": "b", "c": "d"} and config["User"] == "ada"
    # ENTRYPOINT takes away the command that came from before
    assert config["Entrypoint"] == ["/bin/echo", "said:"] and not config.get("Cmd")
    assert config["ExposedPorts"] == {"80/udp": {}} and not config.get("Hostname")
    assert engine.ok("run", "--rm", "--isolation=process", "committed-config:1", "x") == "said: x"
    engine.ok("commit", "--change", 'CMD ["a", "b"]', "commit-config", "committed-config:1")
    assert engine.inspect("committed-config:1")["Config"]["Cmd"] == ["a", "b"]
    # by the API: a config of the request's own, filled up from the container's
    status, answer = engine.api("POST", "/commit?container=commit-config&repo=committed-config&tag=1",
                                {"Cmd": ["own"], "Env": ["MINE=2"]})
    assert status == 201, answer
    config = engine.inspect("committed-config:1")["Config"]
    assert config["Cmd"] == ["own"] and "MINE=2" in config["Env"] and "MINE=1" not in config["Env"]
    assert config["WorkingDir"] == "/var"


def test_nameless_and_events(engine, made):
    made("commit-nameless")
    engine.ok("run", "--isolation=process", "--name", "commit-nameless", IMAGE, "touch", "/x")
    image = engine.ok("commit", "commit-nameless")
    made(image)
    assert image.split(":")[1][:12] in engine.ok("images", "-q", "--filter", "dangling=true").split()
    events = engine.ok("events", "--since", "1m", "--until", f"{time.time():.6f}", "--filter", "event=commit", "--format", "{{json .}}")
    event = json.loads(events.splitlines()[-1])
    assert event["Type"] == "container" and event["Actor"]["Attributes"]["imageID"] == image


@pytest.mark.parametrize("pause", [True, False])
def test_pause(engine, made, pause):
    box = f"commit-pause-{pause}"
    made(box), made("committed-pause:1")
    engine.ok("run", "-d", "--isolation=process", "--name", box, IMAGE, "sleep", "1000")
    engine.ok("commit", f"--pause={str(pause).lower()}", box, "committed-pause:1")
    events = engine.ok("events", "--since", "1m", "--until", f"{time.time():.6f}", "--filter", "container=" + box, "--format", "{{.Action}}")
    assert ("pause" in events.split()) == ("unpause" in events.split()) == pause
    assert engine.inspect(box)["State"]["Status"] == "running"


def test_refused(engine, made):
    made("commit-bad")
    engine.ok("run", "--isolation=process", "--name", "commit-bad", IMAGE, "touch", "/x")
    before = engine.ok("images", "-aq")
    for args, text in ((("absent",), "No such container: absent"), (("commit-bad", "Bad Name"), "invalid reference format"),
                       (("--change", "FROM x", "commit-bad"), "FROM is not a valid change command")):
        result = engine.docker("commit", *args)
        assert result.code == 1 and text in result.err, result
    assert engine.ok("images", "-aq") == before


def test_hyperv_is_refused_by_name(engine, made):
    made("commit-hyperv")
    engine.ok("create", "--isolation=hyperv", "--name", "commit-hyperv", IMAGE, "true")
    result = engine.docker("commit", "commit-hyperv")
    assert result.code == 1 and "a hyperv container can not be committed" in result.err


def test_commit_of_a_commit(engine, made):
    """Deletions and replacements over two layers."""
    made("commit-a"), made("commit-b"), made("committed-ab:1"), made("committed-ab:2")
    engine.ok("run", "--isolation=process", "--name", "commit-a", IMAGE, "sh", "-c", "mkdir -p /d/e && echo 1 > /d/e/f && echo 2 > /g")
    engine.ok("commit", "commit-a", "committed-ab:1")
    engine.ok("run", "--isolation=process", "--name", "commit-b", "committed-ab:1", "sh", "-c", "rm -r /d/e; rm /g; mkdir /g; echo 3 > /g/h")
    engine.ok("commit", "commit-b", "committed-ab:2")
    assert engine.ok("run", "--rm", "--isolation=process", "committed-ab:2", "sh", "-c", "ls -A /d; cat /g/h") == "3"
    assert subprocess.run(["ls", engine.root + "/data/tmp"], capture_output=True).stdout == b""
