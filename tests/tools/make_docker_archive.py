#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make a docker-archive (as "docker save" writes it) of one layer from a rootfs tar."""
import argparse
import hashlib
import io
import json
import tarfile

p = argparse.ArgumentParser()
p.add_argument("rootfs")
p.add_argument("out")
p.add_argument("--tag", action="append", default=[])
p.add_argument("--cmd", action="append", default=[])
p.add_argument("--entrypoint", action="append", default=[])
p.add_argument("--env", action="append", default=[])
p.add_argument("--user", default="")
p.add_argument("--workdir", default="")
p.add_argument("--label", action="append", default=[])
a = p.parse_args()

digest = hashlib.sha256()
size = 0
with open(a.rootfs, "rb") as f:
    while block := f.read(1 << 20):
        digest.update(block)
        size += len(block)
diff_id = digest.hexdigest()
created = "2024-01-01T00:00:00Z"
run = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] + a.env,
       "Cmd": a.cmd or None, "Entrypoint": a.entrypoint or None, "User": a.user, "WorkingDir": a.workdir or "/",
       "Labels": dict(x.split("=", 1) for x in a.label) or None}
config = json.dumps({
    "architecture": "amd64", "os": "linux", "created": created, "config": run,
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + diff_id]},
    "history": [{"created": created, "created_by": "make_docker_archive.py", "comment": "rootfs"}],
}).encode()
config_name = hashlib.sha256(config).hexdigest() + ".json"
manifest = json.dumps([{"Config": config_name, "RepoTags": a.tag or None, "Layers": [diff_id + "/layer.tar"]}]).encode()
with tarfile.open(a.out, "w", format=tarfile.USTAR_FORMAT) as tar:
    def add(name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o644
        tar.addfile(info, io.BytesIO(data))
    add(config_name, config)
    with open(a.rootfs, "rb") as f:
        info = tarfile.TarInfo(diff_id + "/layer.tar")
        info.size = size
        info.mode = 0o644
        tar.addfile(info, f)
    add("manifest.json", manifest)
