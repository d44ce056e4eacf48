"""cluster/deploy/kuberay.yaml: what is named in one place is there in the other, and what it runs does what it should.

`test_schema.py` says whether Kubernetes and KubeRay know its fields. Nothing here runs on Kubernetes.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from thalweg_cluster.hosts.listener import Health, Listener
from thalweg_cluster.security.certificates import make_certificates
from thalweg_cluster.security.guard import Guard
from thalweg_cluster.security.tokens import Tokens

DEPLOY = Path(__file__).parents[3] / "cluster" / "deploy"
CLAIM, SERVICE, CLUSTER = yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())
HEAD = CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]
GROUPS = [HEAD, *(group["template"]["spec"] for group in CLUSTER["spec"]["workerGroupSpecs"])]
CONTAINERS = [container for group in GROUPS for container in group["containers"]]
[OF_HEAD] = HEAD["containers"]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def place(group: dict[str, Any]) -> dict[str, Any]:
    """Of each volume of a pod, by where it is mounted."""
    [container] = group["containers"]
    volumes = {volume["name"]: volume for volume in group["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}


def test_the_service_leads_to_the_head():
    """By the labels that KubeRay gives it, to the port on which `thalweg serve` listens."""
    assert SERVICE["spec"]["selector"] == {
        "ray.io/cluster": CLUSTER["metadata"]["name"],
        "ray.io/node-type": "head",
    }
    [port] = SERVICE["spec"]["ports"]
    named = {each["name"]: each["containerPort"] for each in OF_HEAD["ports"]}
    assert f"--address 0.0.0.0:{named[port['targetPort']]}" in OF_HEAD["args"][0]


def test_all_hosts_see_the_state_under_one_path():
    """Where the service writes it; and each has more of /dev/shm than a container has by itself."""
    for group in GROUPS:
        state = re.search(r"--state (\S+)", OF_HEAD["args"][0]).group(1)
        assert place(group)[state]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
        assert place(group)["/dev/shm"]["emptyDir"] == {"medium": "Memory"}
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]


def test_nothing_secret_is_in_it():
    """The token and the key come from secrets; certificates lie where the environment says."""
    given = {each["name"]: each for each in OF_HEAD["env"]}
    assert given["THALWEG_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "thalweg-tokens"
    for name in ("THALWEG_CERTIFICATE_FILE", "THALWEG_KEY_FILE"):
        assert "secret" in place(HEAD)[os.path.dirname(given[name]["value"])]
    assert not any("--insecure" in container["args"][0] for container in CONTAINERS)


def test_image_and_ray_are_of_one_release():
    """All pods have the image that the Dockerfile makes, with the Ray that the cluster is told to have."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    ray = CLUSTER["spec"]["rayVersion"]
    assert set(re.findall(r"ray[:=]+([\d.]+)", dockerfile)) == {ray}
    assert {container["image"] for container in CONTAINERS} == set(re.findall(r"-t (\S+)", dockerfile))
    assert {container["image"] for container in CONTAINERS} == {f"thalweg:{importlib.metadata.version('thalweg')}"}


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container["name"])
def test_what_is_started_is_a_script(container):
    """KubeRay adds nothing to it: Ray is started by what KubeRay says."""
    assert CLUSTER["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
    assert container["command"] == ["/bin/bash", "-c"]
    [script] = container["args"]
    assert "$KUBERAY_GEN_RAY_START_CMD" in script
    subprocess.run(["bash", "-n", "-c", script], check=True)


@pytest.mark.parametrize(("dies", "status"), [("ray", 1), ("thalweg", 3)])
def test_the_head_ends_where_ray_or_the_service_does(dies, status, tmp_path):
    """Else Kubernetes would take half of it for the whole."""
    script = OF_HEAD["args"][0]
    for name in ("ray", "thalweg"):
        stub = tmp_path / name
        if name == "ray":
            body = '[ "$1" = health-check ] && exit 0\n' + ("exit 3" if dies == "ray" else "exec sleep 1000")
        else:
            body = "exit 3" if dies == "thalweg" else "exec sleep 1000"
        stub.write_text(f"#!/bin/sh\n{body}\n")
        stub.chmod(0o755)
    started = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "KUBERAY_GEN_RAY_START_CMD": "ray start", "RAY_ADDRESS": "x"}
    head = subprocess.Popen(["/bin/bash", "-c", script], env=os.environ | started, start_new_session=True)
    try:
        assert head.wait(60) == status
    finally:
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)


def probe(name: str, address: str, certificate: Path) -> int:
    """The exit status of a probe of the head, with the certificate and the service elsewhere."""
    interpreter, *words = OF_HEAD[name]["exec"]["command"]
    assert interpreter == "python"
    own = {"/etc/thalweg/tls.crt": str(certificate), "localhost:8700": address}
    for theirs, ours in own.items():
        words = [word.replace(theirs, ours) for word in words]
    return subprocess.run([sys.executable, *words], stderr=subprocess.DEVNULL, check=False).returncode


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_tells_whether_the_service_is_there(name, tmp_path):
    """Over TLS and without a token: 0 where it is there, else, or where it is about to end, something else."""
    tls = make_certificates(["localhost"])
    certificate = tmp_path / "tls.crt"
    certificate.write_bytes(tls.ca)
    guard = Guard(tokens=Tokens.of(full="f" * 20, read=None), tls=replace(tls, ca=None))
    listener = Listener("127.0.0.1", guard, {}, calls_max=4, patience_s=30.0, name="test")
    health = Health(listener, "test")
    listener.open()
    try:
        health.open()
        assert probe(name, f"localhost:{listener.port}", certificate) == 0
        health.close()
        assert probe(name, f"localhost:{listener.port}", certificate) != 0
    finally:
        listener.close(0.0)
        listener.end()
    assert probe(name, f"localhost:{listener.port}", certificate) != 0
