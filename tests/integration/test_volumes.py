# SPDX-License-Identifier: Apache-2.0
"""Volumes, bind mounts and tmpfs mounts, with the stock client and by the API. hyperv has no virtio-fs server: it refuses by name."""
import json
import os
import socket
import subprocess
import time
import uuid

import pytest

from conftest import IMAGE, docker_archive


def sh(engine, *options, cmd, code=0, image=IMAGE):
    result = engine.docker("run", "--rm", *options, image, "sh", "-c", cmd)
    assert result.code == code, result
    return result.out


def refused(engine, *options, image=IMAGE):
    """What create says of options that it must refuse; nothing may be left."""
    before = engine.ok("ps", "-aq"), engine.ok("volume", "ls", "-q")
    result = engine.docker("create", *options, image, "true")
    assert result.code != 0, result
    assert (engine.ok("ps", "-aq"), engine.ok("volume", "ls", "-q")) == before
    return result.err


@pytest.fixture
def volume(engine):
    """volume(options...) -> name of a new volume, removed after the test with the containers that have it."""
    made = []

    def make(*options):
        made.append("t" + uuid.uuid4().hex[:12])
        engine.ok("volume", "create", *options, made[-1])
        return made[-1]
    yield make
    for name in made:
        for c in engine.docker("ps", "-aq", "--filter", "volume=" + name).out.split():
            engine.docker("rm", "-f", "-v", c)
        engine.docker("volume", "rm", name)


@pytest.fixture
def box(engine):
    """box(options..., ..., command) -> id of a container that runs."""
    made = []

    def make(*args):
        args = [IMAGE if a is ... else a for a in args]
        made.append(engine.ok("run", "-d", *args))
        return made[-1]
    yield make
    for c in made:
        engine.docker("rm", "-f", "-v", c)


@pytest.fixture(scope="module")
def filled(engine, tmp_path_factory):
    """An image with a VOLUME and content with owners, links and modes at it."""
    import io
    import tarfile
    folder = tmp_path_factory.mktemp("image")
    base, layer = folder / "base.tar", folder / "layer.tar"
    from conftest import busybox_layer
    busybox_layer(base)
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        def add(name, kind, mode=0o755, data=b"", link="", uid=0):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.size = kind, mode, link, len(data)
            info.mtime, info.uid, info.gid = 1000000000, uid, uid
            tar.addfile(info, io.BytesIO(data))
        add("seed", tarfile.DIRTYPE, 0o2750, uid=1000)
        add("seed/file", tarfile.REGTYPE, 0o640, b"from the image\n", uid=1000)
        add("seed/tool", tarfile.REGTYPE, 0o4755, b"#!/bin/sh\n")
        add("seed/hard", tarfile.LNKTYPE, link="seed/file")
        add("seed/link", tarfile.SYMTYPE, 0o777, link="/etc/passwd")
        add("seed/sub", tarfile.DIRTYPE, 0o700)
        add("seed/sub/pipe", tarfile.FIFOTYPE, 0o600)
    image = folder / "image.tar"
    docker_archive.make(str(image), "walnut-test/filled:1", [str(base), str(layer)], Volumes={"/seed": {}})
    engine.load(image)
    return "walnut-test/filled:1"


# ---- the verbs of volumes ----

def test_verbs(engine, volume):
    name = volume("--label", "a=b", "--label", "c")
    v = json.loads(engine.ok("volume", "inspect", name))[0]
    assert v["Name"] == name and v["Driver"] == "local" and v["Scope"] == "local" and v["Labels"] == {"a": "b", "c": ""}
    assert v["Mountpoint"] == f"{engine.root}/data/volumes/{name}/_data" and os.path.isdir(v["Mountpoint"])
    assert v["Options"] is None and v["CreatedAt"].endswith("Z") and "." not in v["CreatedAt"]
    assert name in engine.ok("volume", "ls", "-q").split()
    assert engine.ok("volume", "create", name) == name, "an existing one is given back"
    assert engine.ok("volume", "rm", name) == name
    assert not os.path.exists(os.path.dirname(v["Mountpoint"]))
    missing = engine.docker("volume", "inspect", name)
    assert missing.code != 0 and "no such volume" in missing.err.lower()
    assert engine.api("DELETE", "/volumes/" + name)[0] == 404
    assert engine.api("DELETE", f"/volumes/{name}?force=1")[0] == 204


@pytest.mark.parametrize("name, words", [("x", "too short"), ("..", "includes invalid characters"),
                                         ("a/b", "includes invalid characters"), ("-ab", "includes invalid characters"),
                                         ("a" * 300, "includes invalid characters")])
def test_names(engine, name, words):
    status, answer = engine.api("POST", "/volumes/create", {"Name": name})
    assert status == 400 and words in answer["message"]


@pytest.mark.parametrize("body, status, words", [
    ({"Driver": "foreign"}, 404, 'plugin "foreign" not found'),
    ({"DriverOpts": {"colour": "red"}}, 400, 'invalid option: "colour"'),
    ({"DriverOpts": {"type": "tmpfs"}}, 400, 'missing required option: "device"'),
    ({"DriverOpts": {"device": "tmpfs"}}, 400, 'missing required option: "type"'),
    ({"DriverOpts": {"size": "10m"}}, 400, "no quota support"),
    ({"Labels": ["a"]}, 400, "Labels"), ({"Labels": {"a": 1}}, 400, "label"), ([], 400, "object"),
])
def test_create_refuses(engine, body, status, words):
    got, answer = engine.api("POST", "/volumes/create", body)
    assert got == status and words in answer["message"], answer


def test_filters(engine, volume, box):
    a, b = volume("--label", "which=a"), volume("--label", "which=b")
    box("-v", a + ":/v", ..., "sleep", "1000")
    ls = lambda *f: set(engine.ok("volume", "ls", "-q", *[x for i in f for x in ("--filter", i)]).split()) & {a, b}
    assert ls("label=which") == {a, b} and ls("label=which=b") == {b}
    assert ls("dangling=true") == {b} and ls("dangling=false") == {a} and ls("name=" + a[:10]) == {a}
    assert ls("driver=local") == {a, b} and ls("driver=other") == set()
    assert engine.docker("volume", "ls", "--filter", "colour=red").code != 0
    assert engine.docker("volume", "ls", "--filter", "dangling=perhaps").code != 0
    assert engine.ok("ps", "-q", "--filter", "volume=" + a) and not engine.ok("ps", "-q", "--filter", "volume=" + b)
    assert engine.ok("ps", "-q", "--filter", "volume=/v")


def test_in_use(engine, volume, box):
    name = volume()
    c = box("-v", name + ":/v", ..., "sleep", "1000")
    result = engine.docker("volume", "rm", name)
    assert result.code != 0 and f"remove {name}: volume is in use - [{c}]" in result.err
    assert engine.api("DELETE", f"/volumes/{name}?force=1")[0] == 409
    engine.ok("stop", "-t", "0", c)
    assert engine.api("DELETE", "/volumes/" + name)[0] == 409, "of a container that has stopped, too"
    engine.ok("rm", "-v", c)
    assert name in engine.ok("volume", "ls", "-q").split(), "rm -v leaves named ones"
    engine.ok("volume", "rm", name)


def test_prune(engine, volume):
    named, labelled = volume(), volume("--label", "keep=me")
    anonymous = engine.ok("volume", "create")
    with open(json.loads(engine.ok("volume", "inspect", anonymous))[0]["Mountpoint"] + "/f", "wb") as f:
        f.write(b"x" * 5000)
    status, answer = engine.api("POST", "/volumes/prune")
    assert status == 200 and anonymous in answer["VolumesDeleted"] and answer["SpaceReclaimed"] >= 5000
    left = engine.ok("volume", "ls", "-q").split()
    assert named in left and labelled in left and anonymous not in left
    out = engine.ok("volume", "prune", "-f", "--all", "--filter", "label!=keep=me")
    assert named in out and labelled not in out
    assert labelled in engine.ok("volume", "ls", "-q").split()
    status, answer = engine.api("POST", "/volumes/prune?filters=" + '{"colour":["x"]}')
    assert status == 400


def test_events_and_df(engine, volume, box):
    since = engine.ok("info", "--format", "{{.SystemTime}}")
    name = volume()
    c = box("-v", name + ":/v:ro", ..., "sleep", "1000")
    row = [v for v in engine.api("GET", "/system/df?type=volume")[1]["Volumes"] if v["Name"] == name][0]
    assert row["UsageData"]["RefCount"] == 1 and row["UsageData"]["Size"] == 0
    engine.ok("rm", "-f", c)
    engine.ok("volume", "rm", name)
    time.sleep(1.1)  # "until" counts whole seconds
    lines = engine.ok("events", "--since", since, "--until", "0s", "--filter", "type=volume", "--format", "{{json .}}")
    seen = [json.loads(line) for line in lines.splitlines() if json.loads(line)["Actor"]["ID"] == name]
    assert [e["Action"] for e in seen] == ["create", "mount", "unmount", "destroy"]
    assert seen[1]["Actor"]["Attributes"] == {"container": c, "destination": "/v", "driver": "local", "propagation": "",
                                              "read/write": "false"}


def test_after_a_restart_of_the_engine(engine, volume, box):
    name = volume("--label", "a=b")
    c = box("-v", name + ":/v", "-v", "/anonymous", ..., "sleep", "1000")
    before = engine.inspect(c)["Mounts"]
    engine.kill()
    engine.start()
    assert json.loads(engine.ok("volume", "inspect", name))[0]["Labels"] == {"a": "b"}
    assert engine.inspect(c)["Mounts"] == before and engine.docker("volume", "rm", name).code != 0


# ---- content ----

def test_shared_and_kept(engine, volume, box):
    name = volume()
    c = box("-v", name + ":/v", ..., "sh", "-c", "echo one > /v/f; sleep 1000")
    assert "one" in sh(engine, "-v", name + ":/w", cmd="until [ -s /w/f ]; do sleep 0.1; done; cat /w/f; echo two > /w/g")
    assert engine.ok("exec", c, "cat", "/v/g") == "two"
    engine.ok("rm", "-f", c)
    assert sh(engine, "--mount", f"type=volume,src={name},dst=/x,readonly", cmd="cat /x/f /x/g; touch /x/h || true") == "one\ntwo\n"


def test_populated_from_the_image(engine, filled, volume):
    name = volume()
    look = "stat -c '%u:%g %a %n' /seed /seed/file /seed/tool /seed/sub; readlink /seed/link; " \
        "stat -c %h:%Y /seed/file; [ -p /seed/sub/pipe ] && cat /seed/file"
    want = "1000:1000 2750 /seed\n1000:1000 640 /seed/file\n0:0 4755 /seed/tool\n0:0 700 /seed/sub\n/etc/passwd\n" \
        "2:1000000000\nfrom the image\n"
    assert sh(engine, "-v", name + ":/seed", cmd=look, image=filled) == want
    sh(engine, "-v", name + ":/seed", cmd="echo changed > /seed/file; rm /seed/tool", image=filled)
    assert sh(engine, "-v", name + ":/seed", cmd="cat /seed/file; ls /seed/tool || true", image=filled) == "changed\n"
    empty = volume()
    for option in (["-v", empty + ":/seed:nocopy"], ["--mount", f"type=volume,src={empty},dst=/seed,volume-nocopy"]):
        assert sh(engine, *option, cmd="ls /seed", image=filled) == ""
    assert sh(engine, "-v", empty + ":/nowhere/before", cmd="ls /nowhere/before; stat -c %a /nowhere/before") == "755\n"


def test_not_filled_again(engine, filled, volume, box):
    name = volume()
    c = engine.ok("create", "-v", name + ":/seed", filled, "sh", "-c", "rm -rf /seed/*")
    for _ in range(2):
        engine.ok("start", "-a", c)
    assert not os.listdir(f"{engine.root}/data/volumes/{name}/_data")
    engine.ok("rm", c)


def test_over_a_file(engine, volume):
    result = engine.docker("run", "--rm", "-v", volume() + ":/etc/passwd", IMAGE, "true")
    assert result.code not in (0, 126, 127) and "cannot mount volume over existing file" in result.err


def test_anonymous(engine, filled, box):
    before = set(engine.ok("volume", "ls", "-q").split())
    new = lambda: set(engine.ok("volume", "ls", "-q").split()) - before
    c = box("-v", "/data", filled, "sleep", "1000")
    mounts = {m["Destination"]: m for m in engine.inspect(c)["Mounts"]}
    assert set(mounts) == {"/data", "/seed"} and {m["Name"] for m in mounts.values()} == new()
    assert mounts["/data"]["Mode"] == "" and mounts["/data"]["RW"] and len(mounts["/data"]["Name"]) == 64
    name = mounts["/data"]["Name"]
    assert json.loads(engine.ok("volume", "inspect", name))[0]["Labels"] == {"com.docker.volume.anonymous": ""}
    engine.ok("rm", "-f", c)
    assert len(new()) == 2, "rm without -v leaves them"
    engine.ok("volume", "rm", *new())
    c = box("-v", "/data", filled, "sleep", "1000")
    engine.ok("rm", "-f", "-v", c)
    assert not new()
    sh(engine, "-v", "/data", "--mount", "type=volume,dst=/m", cmd="touch /data/x /m/y; cat /seed/file", image=filled)
    assert not new(), "--rm removes them"


def test_volumes_from(engine, volume, box, tmp_path):
    name = volume()
    (tmp_path / "f").write_text("host\n")
    first = box("-v", name + ":/v", "-v", f"{tmp_path}:/b:ro", "-v", "/anon", ..., "sh", "-c", "echo v > /v/f; echo a > /anon/f; sleep 1000")
    engine.ok("exec", first, "sh", "-c", "until [ -s /anon/f ]; do sleep 0.1; done")
    assert sh(engine, "--volumes-from", first, cmd="cat /v/f /b/f /anon/f; touch /v/g; touch /b/g || echo ro") == "v\nhost\na\nro\n"
    assert sh(engine, "--volumes-from", first + ":ro", cmd="cat /v/f; touch /v/h 2>/dev/null || echo ro") == "v\nro\n"
    assert engine.ok("exec", first, "cat", "/anon/f") == "a", "the other's --rm leaves a volume in use"
    other = volume()
    assert sh(engine, "--volumes-from", first, "-v", other + ":/v", cmd="ls /v") == "", "-v comes before --volumes-from"
    assert "invalid volumes-from" in refused(engine, "--volumes-from", first + ":x")
    assert engine.api("POST", "/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"VolumesFrom": ["nobody"]}})[0] == 400


# ---- bind mounts ----

def test_bind(engine, tmp_path, box):
    (tmp_path / "f").write_text("host\n")
    (tmp_path / "sub").mkdir()
    c = box("-v", f"{tmp_path}:/b", "-v", f"{tmp_path}/f:/etc/one:ro", "--mount",
            f"type=bind,src={tmp_path}/sub,dst=/s/u/b,readonly", ..., "sleep", "1000")
    assert engine.ok("exec", c, "cat", "/b/f", "/etc/one") == "host\nhost"
    engine.ok("exec", c, "sh", "-c", "echo new > /b/g; chown 12:34 /b/g")
    assert (tmp_path / "g").read_text() == "new\n" and (tmp_path / "g").stat().st_uid == 12
    assert "Read-only" in engine.docker("exec", c, "sh", "-c", "echo x > /etc/one").err
    assert "Read-only" in engine.docker("exec", c, "touch", "/s/u/b/x").err
    got = {m["Destination"]: m for m in engine.inspect(c)["Mounts"]}
    assert got["/b"] == {"Type": "bind", "Source": str(tmp_path), "Destination": "/b", "Mode": "", "RW": True,
                         "Propagation": "rprivate"}
    assert got["/etc/one"]["Mode"] == "ro" and not got["/etc/one"]["RW"] and not got["/s/u/b"]["RW"]
    assert str(tmp_path) in engine.ok("ps", "--no-trunc", "--format", "{{.Mounts}}", "--filter", "id=" + c)
    assert engine.inspect(c)["HostConfig"]["Binds"] == [f"{tmp_path}:/b", f"{tmp_path}/f:/etc/one:ro"]


def test_bind_socket(engine, tmp_path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen(1)

    assert sh(engine, "-v", f"{tmp_path}/s:/s", cmd="[ -S /s ] && echo socket") == "socket\n"


def test_missing_source(engine, tmp_path):
    there = tmp_path / "new" / "folder"
    assert "bind source path does not exist: " + str(there) in refused(engine, "--mount", f"type=bind,src={there},dst=/b")
    assert not there.exists()
    assert sh(engine, "-v", f"{there}:/b", cmd="stat -c %u:%a /b") == "0:755\n"
    assert there.is_dir()


def test_nested_in_any_order(engine, tmp_path, volume):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    (tmp_path / "a" / "in").mkdir()
    assert sh(engine, "-v", f"{tmp_path}/b:/m/in", "-v", f"{tmp_path}/a:/m", "--tmpfs", "/m/in/tmp",
              cmd="cat /m/a /m/in/b; grep -c ' /m/in/tmp ' /proc/mounts") == "ab1\n"


def test_over_what_is_ours(engine, tmp_path):
    for name in ("hosts", "resolv.conf"):
        (tmp_path / name).write_text("mine\n")
    assert sh(engine, "-v", f"{tmp_path}/hosts:/etc/hosts:ro", "-v", f"{tmp_path}/resolv.conf:/etc/resolv.conf",
              cmd="cat /etc/hosts /etc/resolv.conf") == "mine\nmine\n"
    assert sh(engine, "-v", f"{tmp_path}:/dev/shm", cmd="ls /dev/shm | sort; grep -c ' /dev/shm ' /proc/mounts") == "hosts\nresolv.conf\n1\n"
    assert sh(engine, "-v", f"{tmp_path}:/etc", cmd="cat /etc/resolv.conf; [ -s /etc/hosts ] && echo theirs").endswith("theirs\n")


def test_links_of_the_image_stay_inside(engine, filled, tmp_path, box):
    """A mount's place that is a link in the image is looked up in the container's root."""
    c = engine.ok("create", "-v", f"{tmp_path}:/seed/link/x", filled, "true")
    engine.docker("start", "-a", c)
    engine.ok("rm", "-v", c)
    assert not os.path.isdir("/etc/passwd/x") and os.path.isfile("/etc/passwd")
    link = engine.ok("run", "-d", IMAGE, "sh", "-c", "ln -s ../../../../../../etc /out; sleep 0")
    engine.docker("wait", link)
    engine.ok("rm", link)


def submount_state(engine, path, *options):
    return sh(engine, *options, cmd="ls /b/sub; touch /b/sub/w 2>/dev/null && echo rw || echo ro")


def test_recursion(engine, tmp_path):
    (tmp_path / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "t", tmp_path / "sub"], check=True)
    try:
        (tmp_path / "sub" / "f").touch()
        base = f"type=bind,src={tmp_path},dst=/b"
        assert submount_state(engine, tmp_path, "--mount", base) == "f\nrw\n"
        (tmp_path / "sub" / "w").unlink()
        assert submount_state(engine, tmp_path, "--mount", base + ",readonly") == "f\nro\n"
        assert submount_state(engine, tmp_path, "-v", f"{tmp_path}:/b:ro") == "f\nro\n"
        assert submount_state(engine, tmp_path, "--mount", base + ",bind-nonrecursive") == "rw\n"
    finally:
        subprocess.run(["umount", "-l", tmp_path / "sub"], check=True)


@pytest.mark.parametrize("spec, words", [
    ("/a:/b:bad", "invalid mode: bad"), ("/a:/b:ro,rw", "invalid mode"), ("/a:/b:ro:x", "invalid volume specification"),
    ("/a:/", "destination can't be '/'"), ("/a:/x/..", "destination can't be '/'"), ("/a:b", "mount path must be absolute"),
    ("x:/b", "too short"), ("a b:/b", "includes invalid characters"), (":/b", "invalid volume specification"),
    ("/a:", "invalid volume specification"), ("vol:/b:rslave", "invalid mode"), ("/a:/b:rshared", "rshared is not supported"), ("/a:/b:rslave", "rslave is not supported"),
])
def test_binds_refused(engine, spec, words):
    status, answer = engine.api("POST", "/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"Binds": [spec]}})
    assert status in (400, 501) and words in answer["message"], answer


@pytest.mark.parametrize("mount, words", [
    ({"Type": "bind", "Source": "/tmp"}, "field Target must not be empty"),
    ({"Type": "bind", "Target": "/x"}, "field Source must not be empty"),
    ({"Type": "bind", "Source": "tmp", "Target": "/x"}, "must be absolute"),
    ({"Type": "bind", "Source": "/tmp", "Target": "x"}, "must be absolute"),
    ({"Type": "bind", "Source": "/tmp", "Target": "/"}, "destination can't be '/'"),
    ({"Type": "bind", "Source": "/tmp", "Target": "/x", "VolumeOptions": {"NoCopy": True}}, "VolumeOptions must not be"),
    ({"Type": "bind", "Source": "/tmp", "Target": "/x", "BindOptions": {"Propagation": "odd"}}, "invalid propagation mode: odd"),
    ({"Type": "volume", "Source": "vv", "Target": "/x", "BindOptions": {"Propagation": "rprivate"}}, "BindOptions must not be"),
    ({"Type": "volume", "Target": "/x", "ReadOnly": True}, "must not set ReadOnly mode when using anonymous volumes"),
    ({"Type": "volume", "Source": "vv", "Target": "/x", "VolumeOptions": {"Subpath": "a"}}, "volume-subpath is not supported"),
    ({"Type": "volume", "Source": "vv", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Name": "far"}}}, 'plugin "far" not found'),
    ({"Type": "tmpfs", "Source": "/tmp", "Target": "/x"}, "field Source must not be specified"),
    ({"Type": "image", "Source": IMAGE, "Target": "/x"}, "mount type unknown"),
    ({"Type": "npipe", "Source": "x", "Target": "/x"}, "mount type unknown"), ({}, "mount type unknown"),
])
def test_mounts_refused(engine, mount, words):
    before = engine.ok("volume", "ls", "-q")
    status, answer = engine.api("POST", "/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"Mounts": [mount]}})
    assert status in (400, 404, 501) and words in answer["message"], answer
    assert engine.ok("volume", "ls", "-q") == before


def test_duplicates(engine, tmp_path):
    words = "Duplicate mount point: /x"
    assert words in refused(engine, "-v", f"{tmp_path}:/x", "-v", "/tmp:/x/")
    assert words in refused(engine, "-v", f"{tmp_path}:/x", "--mount", "type=tmpfs,dst=/x")
    assert words in refused(engine, "-v", f"{tmp_path}:/x", "--tmpfs", "/x")


# ---- driver options ----

def test_tmpfs_volume(engine, volume, box):
    name = volume("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,uid=1000,mode=700")
    place = f"{engine.root}/data/volumes/{name}/_data"
    c = box("-v", name + ":/v", ..., "sleep", "1000")
    assert engine.ok("exec", c, "sh", "-c", "stat -c %u:%a /v; df -k /v | tail -1 | awk '{print $2}'; echo x > /v/f") == "1000:700\n1024"
    assert sh(engine, "-v", name + ":/w", cmd="cat /w/f") == "x\n", "containers share it"
    assert os.path.ismount(place)
    engine.ok("rm", "-f", c)
    assert not os.path.ismount(place), "nobody uses it"
    assert json.loads(engine.ok("volume", "inspect", name))[0]["Options"]["type"] == "tmpfs"


def test_bind_volume(engine, volume, tmp_path, box):
    (tmp_path / "f").write_text("host\n")
    name = volume("--opt", "type=none", "--opt", "o=bind,ro", "--opt", f"device={tmp_path}")
    assert sh(engine, "-v", name + ":/v", cmd="cat /v/f; touch /v/g 2>/dev/null || echo ro") == "host\nro\n"
    engine.ok("volume", "rm", name)
    assert (tmp_path / "f").exists(), "what it binds is not removed with it"
    gone = volume("--opt", "type=none", "--opt", "o=bind", "--opt", f"device={tmp_path}/absent")
    result = engine.docker("run", "--rm", "-v", gone + ":/v", IMAGE, "true")
    assert result.code == 125 and "failed to mount local volume" in result.err and "No such file" in result.err


def test_device_volume(engine, volume, tmp_path):
    """A filesystem of its own, as with NFS: mounted for each container, shared by the kernel."""
    disk = tmp_path / "disk"
    with open(disk, "wb") as f:
        f.truncate(8 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", disk], check=True)
    loop = subprocess.run(["losetup", "--show", "-f", disk], check=True, capture_output=True, text=True).stdout.strip()
    try:
        name = volume("--opt", "type=ext4", "--opt", f"device={loop}")
        sh(engine, "-v", name + ":/v", cmd="echo x > /v/f")
        assert sh(engine, "-v", name + ":/v", cmd="cat /v/f; ls -d /v/lost+found") == "x\n/v/lost+found\n"
        bad = volume("--opt", "type=nosuchfs", "--opt", "device=x")
        assert "failed to mount local volume" in engine.docker("run", "--rm", "-v", bad + ":/v", IMAGE, "true").err
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def test_mount_makes_the_volume(engine, volume):
    name = volume()
    engine.ok("volume", "rm", name)
    sh(engine, "--mount", f"type=volume,src={name},dst=/v,volume-driver=local,volume-label=a=b,volume-opt=type=tmpfs,"
       "volume-opt=device=tmpfs", cmd="grep ' /v tmpfs' /proc/mounts")
    v = json.loads(engine.ok("volume", "inspect", name))[0]
    assert v["Labels"] == {"a": "b"} and v["Options"] == {"type": "tmpfs", "device": "tmpfs"}


# ---- both isolations ----

def test_tmpfs_mounts(engine, run, iso):
    out = run("--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770", "--tmpfs", "/u:size=2m,exec", ..., "sh", "-c",
              "stat -c %a /t; df -k /t /u | awk 'NR>1{print $2}'; grep ' /t ' /proc/mounts | grep -o noexec; "
              "grep ' /u ' /proc/mounts | grep -c noexec; true")
    assert out.code == 0 and out.out.split() == ["1770", "1024", "2048", "noexec", "0"], out
    c = engine.ok("create", "--isolation=" + iso, "--mount", "type=tmpfs,dst=/t", IMAGE, "true")
    assert engine.inspect(c)["Mounts"] == [{"Type": "tmpfs", "Source": "", "Destination": "/t", "Mode": "", "RW": True,
                                            "Propagation": ""}]
    engine.ok("rm", c)


@pytest.mark.parametrize("options", [["-v", "/tmp:/x"], ["-v", "named:/x"], ["-v", "/x"], ["--mount", "type=bind,src=/tmp,dst=/x"],
                                     ["--mount", "type=volume,dst=/x"], ["--volumes-from", "nobody"]])
def test_hyperv_refuses(engine, options):
    text = refused(engine, "--isolation=hyperv", *options)
    assert "not supported with --isolation=hyperv" in text and "virtio-fs" in text and "--isolation=process" in text


def test_volume_of_an_image_in_both(engine, iso, filled):
    assert "from the image" in engine.ok("run", "--rm", "--isolation=" + iso, filled, "cat", "/seed/file")
