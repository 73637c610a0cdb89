# SPDX-License-Identifier: Apache-2.0
"""What inspect, ps, info and df say: every field that Docker's clients read, with Docker's defaults; what create refuses."""
import http.client
import json
import socket
import time

import pytest

from conftest import IMAGE


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


def api(engine, method, path, body=None):
    """One request. Gives the status and the decoded body."""
    c = Unix(engine.socket)
    c.request(method, "/v1.47" + path, json.dumps(body) if body is not None else None,
              {"Content-Type": "application/json"})
    answer = c.getresponse()
    data = answer.read()
    c.close()
    return answer.status, json.loads(data) if data.strip() else None


def create(engine, **body):
    return api(engine, "POST", "/containers/create", dict({"Image": IMAGE, "Cmd": ["true"]}, **body))


@pytest.fixture
def created(engine):
    made = []

    def make(**body):
        status, answer = create(engine, **body)
        assert status == 201, answer
        made.append(answer["Id"])
        return engine.inspect(answer["Id"])
    yield make
    for c in made:
        engine.docker("rm", "-f", c)


HOST_DEFAULTS = {
    "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "json-file", "Config": {}}, "NetworkMode": "bridge",
    "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False, "VolumeDriver": "",
    "VolumesFrom": None, "ConsoleSize": [0, 0], "CapAdd": None, "CapDrop": None, "CgroupnsMode": "private", "Dns": [],
    "DnsOptions": [], "DnsSearch": [], "ExtraHosts": None, "GroupAdd": None, "IpcMode": "private", "Cgroup": "",
    "Links": None, "OomScoreAdj": 0, "PidMode": "", "Privileged": False, "PublishAllPorts": False,
    "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "", "UsernsMode": "", "ShmSize": 67108864,
    "Runtime": "walnut", "Isolation": "process", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
    "BlkioWeight": 0, "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "",
    "CpusetMems": "", "Devices": [], "DeviceCgroupRules": None, "DeviceRequests": None, "MemoryReservation": 0,
    "MemorySwap": 0, "MemorySwappiness": None, "OomKillDisable": False, "PidsLimit": None, "Ulimits": [], "CpuCount": 0,
    "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
}


def test_host_config_is_whole(created):
    host = created()["HostConfig"]
    for key, value in HOST_DEFAULTS.items():
        assert key in host and host[key] == value, (key, host.get(key))
    assert "/proc/kcore" in host["MaskedPaths"] and "/proc/sys" in host["ReadonlyPaths"]


def test_config_is_whole(created):
    got = created(Labels={"a": "b"}, Env=["X=1"])
    config = got["Config"]
    assert set(config) == {"Hostname", "Domainname", "User", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin",
                           "StdinOnce", "Env", "Cmd", "Image", "Volumes", "WorkingDir", "Entrypoint", "OnBuild", "Labels"}
    assert config["Hostname"] == got["Id"][:12] and config["Image"] == IMAGE and config["Labels"] == {"a": "b"}
    assert "X=1" in config["Env"] and got["Path"] == "true" and got["Args"] == []
    assert got["GraphDriver"]["Name"] and got["GraphDriver"]["Data"]["UpperDir"]
    assert got["Mounts"] == [] and got["NetworkSettings"]["Networks"].keys() == {"bridge"}
    for key in ("Bridge", "SandboxID", "SandboxKey", "Ports", "HairpinMode", "IPAddress", "SecondaryIPAddresses"):
        assert key in got["NetworkSettings"]


def test_cmd_may_be_a_string(created):
    assert created(Cmd="true")["Config"]["Cmd"] == ["true"]


def test_memory_allows_as_much_swap(created):
    assert created(HostConfig={"Memory": 64 << 20})["HostConfig"]["MemorySwap"] == 128 << 20


@pytest.mark.parametrize("host, status, words", [
    ({"Memory": 1 << 20}, 400, "Minimum memory limit allowed is 6MB"),
    ({"Memory": 64 << 20, "MemorySwap": 32 << 20}, 400, "Minimum memoryswap limit should be larger"),
    ({"MemorySwap": 32 << 20}, 400, "You should always set the Memory limit"),
    ({"MemorySwappiness": 101}, 400, "valid memory swappiness range is 0-100"),
    ({"Memory": 64 << 20, "MemoryReservation": 65 << 20}, 400, "less than memory reservation"),
    ({"NanoCpus": 10 ** 15}, 400, "range of CPUs is from 0.01"),
    ({"NanoCpus": 10 ** 9, "CpuPeriod": 100000}, 400, "Nano CPUs and CPU Period cannot both be set"),
    ({"CpuPeriod": 1}, 400, "CPU cfs period"),
    ({"CpuQuota": 1}, 400, "CPU cfs quota"),
    ({"CpuShares": -1}, 400, "invalid CPU shares"),
    ({"CpusetCpus": "x"}, 400, "Invalid value x for cpuset cpus"),
    ({"CpusetCpus": "0-9999"}, 400, "Requested CPUs are not available"),
    ({"OomScoreAdj": 2000}, 400, "range for oom score adj"),
    ({"ShmSize": -1}, 400, "SHM size"),
    ({"RestartPolicy": {"Name": "sometimes"}}, 400, "unknown policy 'sometimes'"),
    ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}}, 400, "only be used with 'on-failure'"),
    ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -2}}, 400, "cannot be negative"),
    ({"RestartPolicy": {"Name": "always"}, "AutoRemove": True}, 400, "can't create 'AutoRemove' container"),
    ({"Memory": "64m"}, 400, "HostConfig.Memory has the wrong JSON type"),
    ({"Memmory": 5}, 400, "HostConfig.Memmory is not known"),
    ({"PidMode": "nonsense"}, 400, "invalid PidMode"),
    ({"Runtime": "nonsense"}, 400, "unknown or invalid runtime name: nonsense"),
    ({"Runtime": "hyperv", "Isolation": "process"}, 400, "contradict"),
    ({"Isolation": "hyperv", "PidMode": "host"}, 400, "only possible with --isolation=process"),
    ({"Isolation": "hyperv", "Devices": [{"PathOnHost": "/dev/null"}]}, 400, "Devices is only possible"),
    ({"CpuCount": 2}, 400, "CpuCount"),
    ({"Links": ["a:b"]}, 501, "HostConfig.Links"),
    ({"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}, 501, "HostConfig.PortBindings"),
    ({"NetworkMode": "mine"}, 501, "network mine"),
    ({"LogConfig": {"Type": "nonsense"}}, 501, "nonsense"),
    ({"LogConfig": {"Type": "json-file", "Config": {"max-size": "x"}}}, 400, "max-size"),
])
def test_refused_by_name(engine, host, status, words):
    got, answer = create(engine, HostConfig=host)
    assert got == status and words in answer["message"], (got, answer)


@pytest.mark.parametrize("body, status, words", [
    ({"WorkingDir": "relative"}, 400, "needs to be an absolute path"),
    ({"Cmd": [1]}, 400, "Cmd has the wrong JSON type"),
    ({"Hostname": "no spaces"}, 400, "invalid hostname"),
    ({"StopSignal": "NONSENSE"}, 400, "NONSENSE"),
    ({"Healthcheck": {"Test": ["CMD", "true"], "Interval": 5}}, 400, "Interval in Healthcheck cannot be less than 1ms"),
    ({"Healthcheck": {"Test": ["NONSENSE", "true"]}}, 400, "Unknown healthcheck type"),
    ({"Image": "no-such-image"}, 404, "No such image: no-such-image:latest"),
    ({"NetworkingConfig": {"EndpointsConfig": {"mine": {}}}}, 501, "network mine"),
])
def test_config_refused(engine, body, status, words):
    got, answer = create(engine, **body)
    assert got == status and words in answer["message"], (got, answer)


def test_device_and_shared_namespaces(engine):
    out = engine.ok("run", "--rm", "--device", "/dev/kmsg:/dev/x", "--pid", "host", "--uts", "host", "--network", "host",
                    "--add-host", "far:192.0.2.7", "--dns", "192.0.2.8", "--dns-search", "example.org", "--group-add", "77",
                    IMAGE, "sh", "-c", "ls -l /dev/x; hostname; cat /etc/hosts /etc/resolv.conf; id -G; echo pid $$")
    assert "1,  11" in out and socket.gethostname() in out.splitlines()
    assert "192.0.2.7\tfar" in out and "nameserver 192.0.2.8" in out and "search example.org" in out and "77" in out
    assert "pid 1\n" not in out + "\n"


def test_network_of_another_container(engine):
    first = engine.ok("run", "-d", IMAGE, "sleep", "100")
    try:
        own = engine.ok("exec", first, "readlink", "/proc/self/ns/net")
        assert engine.ok("run", "--rm", "--network", "container:" + first, IMAGE, "readlink", "/proc/self/ns/net") == own
        engine.ok("stop", "-t", "0", first)
        result = engine.docker("run", "--rm", "--network", "container:" + first, IMAGE, "true")
        assert result.code == 125 and "non running" in result.err
    finally:
        engine.docker("rm", "-f", first)


def test_runtime_names_the_isolation(created):
    assert created(HostConfig={"Runtime": "process"})["HostConfig"]["Isolation"] == "process"


def test_sizes(engine):
    c = engine.ok("run", "-d", IMAGE, "sh", "-c", "head -c 1000000 /dev/zero > /big; sleep 100")
    try:
        deadline = time.monotonic() + 20
        while api(engine, "GET", f"/containers/{c}/json?size=1")[1]["SizeRw"] < 1000000 and time.monotonic() < deadline:
            time.sleep(0.1)
        got = api(engine, "GET", f"/containers/{c}/json?size=1")[1]
        image = api(engine, "GET", f"/images/{IMAGE}/json")[1]
        assert got["SizeRw"] == 1000000 and got["SizeRootFs"] == 1000000 + image["Size"]
        assert "SizeRw" not in api(engine, "GET", f"/containers/{c}/json")[1]
        assert "1MB (virtual" in engine.ok("ps", "-s", "--filter", "id=" + c)
        df = api(engine, "GET", "/system/df")[1]
        assert df["LayersSize"] >= image["Size"] and df["Volumes"] == [] and df["BuildCache"] == []
        assert [x["SizeRw"] for x in df["Containers"] if x["Id"] == c] == [1000000]
        assert [x["Containers"] for x in df["Images"] if IMAGE in x["RepoTags"]][0] >= 1
        assert set(api(engine, "GET", "/system/df?type=image")[1]) == {"LayersSize", "Images"}
        assert api(engine, "GET", "/system/df?type=nonsense")[0] == 400
    finally:
        engine.docker("rm", "-f", c)


def test_info(engine):
    info = api(engine, "GET", "/info")[1]
    for key in ("ID", "Containers", "Images", "Driver", "DriverStatus", "Plugins", "MemoryLimit", "SwapLimit", "CpuCfsQuota",
                "CPUSet", "PidsLimit", "OomKillDisable", "CgroupDriver", "CgroupVersion", "Runtimes", "DefaultRuntime", "Swarm",
                "SecurityOptions", "Warnings", "InitBinary", "NCPU", "MemTotal", "RegistryConfig", "LoggingDriver"):
        assert key in info, key
    assert info["Swarm"]["LocalNodeState"] == "inactive" and {"process", "hyperv"} <= set(info["Runtimes"])
    assert isinstance(info["Warnings"], list)


def test_prune(engine):
    keep = engine.ok("create", "--label", "keep=1", IMAGE, "true")
    gone = engine.ok("create", "--label", "prune=1", IMAGE, "true")
    runs = engine.ok("run", "-d", "--label", "prune=1", IMAGE, "sleep", "100")
    try:
        assert api(engine, "POST", "/containers/prune?filters=" + '{"nonsense":["1"]}'.replace('"', "%22"))[0] == 400
        assert "Total reclaimed" in engine.ok("container", "prune", "-f", "--filter", "label=prune=1", "--filter", "until=24h")
        assert engine.docker("inspect", gone).code == 0  # it is younger
        assert gone in engine.ok("container", "prune", "-f", "--filter", "label=prune=1")
        assert engine.docker("inspect", gone).code == 1
        assert engine.docker("inspect", keep).code == 0 and engine.docker("inspect", runs).code == 0
    finally:
        engine.docker("rm", "-f", keep, gone, runs)


@pytest.mark.parametrize("query", ["status=nonsense", "exited=x", "health=nonsense"])
def test_ps_refuses_values(engine, query):
    result = engine.docker("ps", "-a", "--filter", query)
    assert result.code == 1 and "invalid filter" in result.err


def test_ps_quotes_arguments(engine, created):
    c = created(Cmd=["echo", "two words", "x"])
    assert engine.ok("ps", "-a", "--no-trunc", "--filter", "id=" + c["Id"], "--format", "{{.Command}}") == "\"echo 'two words' x\""
