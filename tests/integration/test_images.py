# SPDX-License-Identifier: Apache-2.0
"""load, import, images, inspect, history, tag, rmi, save."""
import hashlib
import io
import json
import os
import subprocess
import tarfile

import pytest

from conftest import IMAGE, busybox_layer
import docker_archive


def test_images_lists_it(engine):
    out = engine.ok("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    assert IMAGE in out


def test_inspect(engine):
    image = engine.inspect(IMAGE)
    assert image["Id"] == engine.image_id
    assert image["Os"] == "linux" and image["Architecture"] == "amd64"
    assert image["Config"]["Cmd"] == ["/bin/sh"]
    assert image["RootFS"]["Layers"] == ["sha256:" + docker_archive.sha256_file(engine.root + "/layer.tar")]
    assert IMAGE in image["RepoTags"]


def test_history(engine):
    assert "walnut tests: layer 0" in engine.ok("history", "--no-trunc", IMAGE)


def test_tag_and_rmi(engine):
    engine.ok("tag", IMAGE, "other/name:x")
    assert "other/name:x" in engine.inspect(IMAGE)["RepoTags"]
    assert "Untagged: other/name:x" in engine.ok("rmi", "other/name:x")
    assert engine.inspect(IMAGE)["Id"] == engine.image_id


def test_rmi_absent(engine):
    result = engine.docker("rmi", "absent:1")
    assert result.code == 1 and "No such image: absent:1" in result.err


def test_save_is_bit_for_bit(engine, tmp_path):
    out = tmp_path / "saved.tar"
    engine.ok("save", "-o", out, IMAGE, timeout=300)
    with tarfile.open(out) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        layer = tar.extractfile(manifest["Layers"][0]).read()
        config = tar.extractfile(manifest["Config"]).read()
    assert hashlib.sha256(layer).hexdigest() == docker_archive.sha256_file(engine.root + "/layer.tar")
    assert "sha256:" + hashlib.sha256(config).hexdigest() == engine.image_id


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_load_compressed(engine, tmp_path, compress):
    path = tmp_path / "image.tar.z"
    with open(path, "wb") as f:
        subprocess.run([compress, "-1", "-c", engine.image_archive], stdout=f, check=True)
    assert "Loaded image" in engine.load(path)


def test_load_twice_is_no_change(engine):
    assert "Loaded image: " + IMAGE in engine.load(engine.image_archive)
    assert engine.inspect(IMAGE)["Id"] == engine.image_id


def test_import_and_run(engine, tmp_path):
    out = engine.ok("import", engine.root + "/layer.tar", "imported:1", timeout=300)
    assert out.startswith("sha256:")
    assert engine.ok("run", "--rm", "--isolation=process", "imported:1", "/bin/echo", "hi") == "hi"
    engine.ok("rmi", "imported:1")


def test_two_layers_and_whiteouts(engine, tmp_path, iso):
    lower, upper = tmp_path / "lower.tar", tmp_path / "upper.tar"
    busybox_layer(lower)
    with tarfile.open(upper, "w") as tar:
        def add(name, data=b"", kind=tarfile.REGTYPE):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode = kind, len(data), 0o755 if kind == tarfile.DIRTYPE else 0o644
            tar.addfile(info, io.BytesIO(data))
        add("etc", kind=tarfile.DIRTYPE)
        add("etc/.wh.not-executable")
        add("etc/os-release", b"ID=upper\n")
        add("home", kind=tarfile.DIRTYPE)
        add("home/.wh..wh..opq")
        add("home/new", b"n\n")
    name = f"layers-{iso}:1"
    docker_archive.make(tmp_path / "i.tar", name, [lower, upper])
    engine.load(tmp_path / "i.tar")
    out = engine.ok("run", "--rm", "--isolation=" + iso, name, "sh", "-c",
                    "cat /etc/os-release; test -e /etc/not-executable || echo deleted; ls /home")
    assert out.split() == ["ID=upper", "deleted", "new"]
    engine.ok("rmi", name)


@pytest.mark.parametrize("damage", ["empty", "random", "truncated", "wrong-digest", "no-manifest"])
def test_bad_archives(engine, tmp_path, damage):
    """One sentence, and nothing left behind in the store's staging folder."""
    path = tmp_path / "bad.tar"
    whole = open(engine.image_archive, "rb").read()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "random":
        path.write_bytes(os.urandom(100000))
    elif damage == "truncated":
        path.write_bytes(whole[:len(whole) // 2])
    elif damage == "wrong-digest":
        at = whole.index(b"walnut test\"")
        path.write_bytes(whole[:at] + b"WALNUT" + whole[at + 6:])
    else:
        with tarfile.open(path, "w"):
            pass
    before = engine.ok("images", "-q", "-a")
    result = engine.docker("load", "-i", path, timeout=60)
    assert result.code != 0, result
    assert len(result.err.strip().splitlines()) <= 2, result
    assert engine.ok("images", "-q", "-a") == before
    staging = engine.root + "/data/tmp"
    assert not os.path.isdir(staging) or os.listdir(staging) == []


def test_120_layers(engine, tmp_path, iso):
    """As many layers as Docker allows: all of them are seen, and the topmost wins."""
    name = f"many-{iso}:1"
    layers = [tmp_path / "0.tar"]
    busybox_layer(layers[0])
    for i in range(1, 120):
        layers.append(tmp_path / f"{i}.tar")
        with tarfile.open(layers[-1], "w") as tar:
            for path, data in ((f"many/{i}", f"{i}\n"), ("many/last", f"{i}\n")):
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data.encode()))
    docker_archive.make(tmp_path / "i.tar", name, layers)
    engine.load(tmp_path / "i.tar")
    out = engine.ok("run", "--rm", "--isolation=" + iso, name, "sh", "-c", "cat $(ls /many/* | grep -v last) | sort -n | uniq | wc -l; cat /many/last")
    assert out.split() == ["119", "119"]
    if iso == "process":  # what walnut-tree mounts
        engine.ok("create", "--isolation=process", "--name", "many", name)
        assert "119" in subprocess.run(["sh", "-c", "docker cp many:/many/last - | tar -xOf -"], env=engine.env(), check=True,
                                       capture_output=True, text=True).stdout
        engine.ok("rm", "many")
    engine.ok("rmi", name)


def test_sparse_10_gb(engine, tmp_path, iso):
    """A sparse file (GNU tar's form) of 10 GB: its size and its few bytes are there, its holes take no room."""
    name = f"sparse-{iso}:1"
    big = tmp_path / "big"
    with open(big, "wb") as f:
        f.truncate(10 << 30)
        f.seek(5 << 30)
        f.write(b"in the middle")
        f.seek((10 << 30) - 4)
        f.write(b"last")
    busybox_layer(tmp_path / "0.tar")
    subprocess.run(["tar", "-cSf", tmp_path / "1.tar", "--format=gnu", "-C", tmp_path, "big"], check=True)
    docker_archive.make(tmp_path / "i.tar", name, [tmp_path / "0.tar", tmp_path / "1.tar"])
    before = int(subprocess.run(["du", "-sk", engine.root + "/data"], capture_output=True, text=True).stdout.split()[0])
    engine.load(tmp_path / "i.tar")
    after = int(subprocess.run(["du", "-sk", engine.root + "/data"], capture_output=True, text=True).stdout.split()[0])
    assert after - before < 20000
    out = engine.ok("run", "--rm", "--isolation=" + iso, name, "sh", "-c",
                    "stat -c %s /big; tail -c 4 /big; echo; dd if=/big bs=1M skip=5120 count=1 2>/dev/null | head -c 13")
    assert out.split("\n") == [str(10 << 30), "last", "in the middle"]
    engine.ok("rmi", name)
