"""JSON schemas for kubeconform, from Kubernetes' OpenAPI document and from CustomResourceDefinitions.

    schemas.py DIRECTORY SWAGGER_JSON CRD_YAML...

One file per kind, ``{kind}-{first label of the group}-{version}.json``, as kubeconform's template
``{{.ResourceKind}}{{.KindSuffix}}.json`` asks for it. Fields that a type does not have are faults.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

DEFINITIONS = "_definitions.json"
METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

SPECIAL: dict[str, dict[str, Any]] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}
"""Types whose description in the document is narrower than what the server accepts."""


def strict(node: Any) -> Any:
    """A schema in which an object has the properties that are listed, and no others."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value) for key, value in node.items()}
    if isinstance(reference := made.get("$ref"), str):
        made["$ref"] = reference.replace("#/definitions/", f"{DEFINITIONS}#/definitions/", 1)
    if node.get("x-kubernetes-int-or-string") is True:
        made.pop("anyOf", None)
        made["type"] = ["string", "integer"]
    open_ended = node.get("x-kubernetes-preserve-unknown-fields") is True
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node and not open_ended:
        made["additionalProperties"] = False
    return made


def file_name(kind: str, group: str, version: str) -> str:
    """As kubeconform looks for it."""
    labels = [kind, *([group.partition(".")[0]] if group else []), version]
    return "-".join(labels).lower() + ".json"


def of_kubernetes(swagger: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By file name: the definitions that all share, and each kind."""
    definitions = strict(swagger["definitions"]) | SPECIAL
    made: dict[str, dict[str, Any]] = {DEFINITIONS: {"definitions": definitions}}
    for name, definition in swagger["definitions"].items():
        kinds = definition.get("x-kubernetes-group-version-kind", ())
        for kind in kinds if len(kinds) == 1 else ():
            made[file_name(kind["kind"], kind["group"], kind["version"])] = {
                "$ref": f"{DEFINITIONS}#/definitions/{name}"
            }
    return made


def of_custom(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By file name: each version of a kind that somebody else has defined."""
    spec = definition["spec"]
    made = {}
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"$ref": f"{DEFINITIONS}#/definitions/{METADATA}"}
        made[file_name(spec["names"]["kind"], spec["group"], version["name"])] = schema
    return made


def main(directory: Path, swagger: Path, *custom: Path) -> None:
    """Writes all of them."""
    schemas = of_kubernetes(json.loads(swagger.read_text()))
    for path in custom:
        for definition in yaml.safe_load_all(path.read_text()):
            schemas |= of_custom(definition)
    directory.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas.items():
        (directory / name).write_text(json.dumps(schema))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
