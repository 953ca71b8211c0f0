"""What a build consists of, as a bill of materials in CycloneDX's JSON: files, parts, tools.

It has neither times nor random numbers: the same build gives the same text.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

__all__ = ["SBOM", "bill_of_materials"]

SBOM = "ortolan-build.cdx.json"
"""Its name, beside the manifest."""

_SPEC = "1.6"
_LICENSE = "Apache-2.0"
# Helpers that the compiler puts into a library: divisions of wide integers and the like.
_COMPILER_RT = "compiler_rt"
_PURPOSES = {
    ".h": "header",
    ".modulemap": "header",
    ".config": "operators that are in",
    ".plist": "description of a bundle",
}


def bill_of_materials(manifest: Mapping[str, Any]) -> str:
    """The bill of a build.

    Args:
        manifest: of the build (`ortolan.build.product.MANIFEST`).

    Returns:
        The text of a CycloneDX 1.6 file. Each file that was built is a component with its SHA-256;
        the sources are told by the digest that the manifest has of them.
    """
    version, compiler = str(manifest["ortolan"]), str(manifest["compiler"])
    tool, _, release = compiler.partition(" ")
    runtime = {
        "type": "library", "bom-ref": "ortolan", "name": "ortolan", "version": version,
        "purl": f"pkg:pypi/ortolan@{version}", "licenses": [{"license": {"id": _LICENSE}}],
        "properties": [
            {"name": "ortolan:platform", "value": str(manifest["platform"])},
            {"name": "ortolan:sources:sha256", "value": str(manifest["sources"])},
        ],
    }  # fmt: skip
    rt = {
        "type": "library", "bom-ref": _COMPILER_RT, "name": _COMPILER_RT, "version": release,
        "description": f"helpers of the compiler, linked in by {tool}",
        "licenses": [{"license": {"id": "MIT"}}],
    }  # fmt: skip
    files = [_file(name, digest) for name, digest in sorted(manifest["files"].items())]
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": _SPEC,
        "version": 1,
        "metadata": {
            "component": runtime,
            "tools": {"components": [{
                "type": "application", "name": tool, "version": release,
                "purl": f"pkg:pypi/{tool}@{release}",
            }]},
        },
        "components": [rt, *files],
        "dependencies": [
            {"ref": "ortolan", "dependsOn": [_COMPILER_RT]},
            {"ref": _COMPILER_RT, "dependsOn": []},
        ],
    }  # fmt: skip
    name = json.dumps(content, sort_keys=True)
    content["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, name)}"
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _file(name: str, digest: str) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "description": _PURPOSES.get(PurePosixPath(name).suffix, "library"),
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }
