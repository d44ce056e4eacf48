"""cluster/deploy/kuberay.yaml against the schemas of what it declares: Kubernetes' own, and KubeRay's RayCluster.

Kubernetes' come from the package kubernetes-validate, in which an unknown field is a mistake. KubeRay publishes its
schema with its operator only, which no package index has: raycluster.schema.json says what its field reference does.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

pytestmark = pytest.mark.compare

HERE = Path(__file__).parent
MANIFEST = list(yaml.safe_load_all((HERE.parents[2] / "cluster" / "deploy" / "kuberay.yaml").read_text()))
SCHEMAS = {
    "RayCluster": HERE / "raycluster.schema.json",
    "Service": "service-v1.json",
    "PersistentVolumeClaim": "persistentvolumeclaim-v1.json",
}


@pytest.fixture(scope="module")
def kubernetes() -> Path:
    """The folder of the schemas of the newest Kubernetes that the package knows."""
    package = pytest.importorskip("kubernetes_validate", reason="needs the extra: pip install 'thalweg[compare]'")
    of_version = {
        tuple(map(int, re.findall(r"\d+", folder.name))): folder
        for folder in Path(package.__file__).parent.glob("kubernetes-json-schema/*-local-strict")
    }
    return of_version[max(of_version)]


def mistakes(declared: Any, kubernetes: Path) -> Iterator[str]:
    """Where `declared` says something that its schema does not know, and what."""
    definitions = Resource.from_contents(json.loads((kubernetes / "_definitions.json").read_text()), DRAFT202012)
    schema = json.loads((kubernetes / SCHEMAS[declared["kind"]]).read_text())
    registry: Registry[Any] = Registry().with_resource("/api/_definitions.json", definitions)
    for error in Draft202012Validator(schema, registry=registry).iter_errors(declared):
        yield f"{error.json_path}: {error.message}"


@pytest.mark.parametrize("declared", MANIFEST, ids=lambda declared: declared["kind"])
def test_kubernetes_would_take_it(declared, kubernetes):
    assert list(mistakes(declared, kubernetes)) == []


@pytest.mark.parametrize(
    ("kind", "path", "wrong"),
    [
        ("RayCluster", ("spec", "authOption"), {"mode": "token"}),
        ("RayCluster", ("spec", "authOptions", "mode"), "tokens"),
        ("RayCluster", ("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        ("RayCluster", ("spec", "workerGroupSpecs", 0, "replica"), 2),
        ("RayCluster", ("spec", "headGroupSpec", "template", "spec", "containers", 0, "arg"), ["x"]),
        ("RayCluster", ("spec", "headGroupSpec", "template", "spec", "volumes", 0, "name"), None),
        ("RayCluster", ("spec", "headGroupSpec", "template", "spec", "containers", 0, "livenessProbe", "period"), 3),
        ("Service", ("spec", "ports", 0, "targetport"), "thalweg"),
        ("PersistentVolumeClaim", ("spec", "accessModes"), "ReadWriteMany"),
    ],
)
def test_a_slip_would_show(kind, path, wrong, kubernetes):
    """A field with a letter too few, a number where KubeRay wants a string, and so on."""
    declared = copy.deepcopy(next(each for each in MANIFEST if each["kind"] == kind))
    *way, last = path
    at = declared
    for step in way:
        at = at[step]
    at[last] = wrong
    assert len(list(mistakes(declared, kubernetes))) == 1
