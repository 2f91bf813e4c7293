#!/usr/bin/env python3
"""Writes an SBOM (SPDX 2.3, JSON) of one program of the workspace: every crate that is linked in, and what the dashboard's
page is bundled of, with version, licence and checksum.

usage: scripts/lib/sbom.py PACKAGE >FILE.spdx.json
The same lock file gives the same text: time and name space follow from SOURCE_DATE_EPOCH and the version.
"""
import base64
import importlib.machinery
import importlib.util
import json
import os
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def licences():
    """scripts/licences, which knows what is linked."""
    loader = importlib.machinery.SourceFileLoader("licences", str(ROOT / "scripts/licences"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("licences", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def identity(package):
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{package['name']}-{package['version']}")


def entry(package, checksums, licence):
    found = {
        "SPDXID": identity(package),
        "name": package["name"],
        "versionInfo": package["version"],
        "downloadLocation": f"https://crates.io/api/v1/crates/{package['name']}/{package['version']}/download",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": licence if not licence.startswith(("see ", "not ")) else "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": f"pkg:cargo/{package['name']}@{package['version']}"}
        ],
    }
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        found["checksums"] = [{"algorithm": "SHA256", "checksumValue": checksum}]
    return found


def bundled(package):
    """A package of the page. npm gives its checksum in base64, SPDX wants it in hex."""
    name, version = package["name"], package["version"]
    algorithm, _, value = package["integrity"].partition("-")
    return {
        "SPDXID": identity(package),
        "name": name,
        "versionInfo": version,
        "downloadLocation": f"https://registry.npmjs.org/{name}/-/{name.rpartition('/')[2]}-{version}.tgz",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": package["license"],
        "copyrightText": "NOASSERTION",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": f"pkg:npm/{name.replace('@', '%40')}@{version}"}
        ],
        "checksums": [{"algorithm": algorithm.upper(), "checksumValue": base64.b64decode(value).hex()}],
    }


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    module = licences()
    page = module.of_the_page() if sys.argv[1] == "gcstreamer-dashboard" else []
    crates = module.all_linked(sys.argv[1])
    # No TOML in the Python of Ubuntu 22.04; cargo writes one `key = "value"` a line.
    parts = (ROOT / "Cargo.lock").read_text().split("[[package]]")[1:]
    lock = [dict(re.findall(r'^(name|version|checksum) = "(.*)"$', part, re.M)) for part in parts]
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock}
    version = next(package["version"] for package in lock if package["name"] == sys.argv[1])
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    program = {
        "SPDXID": "SPDXRef-program",
        "name": sys.argv[1],
        "versionInfo": version,
        "downloadLocation": "https://github.com/gcstreamer/gst-plugin-gcstreamer",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "MPL-2.0",
        "copyrightText": "NOASSERTION",
    }
    relations = [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-program"}]
    relations += [{"spdxElementId": "SPDXRef-program", "relationshipType": "DEPENDS_ON", "relatedSpdxElement": identity(one)} for one in [*crates, *page]]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{sys.argv[1]}-{version}",
        "documentNamespace": f"https://github.com/gcstreamer/gst-plugin-gcstreamer/sbom/{sys.argv[1]}-{version}",
        "creationInfo": {
            "created": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: gst-plugin-gcstreamer-sbom"],
        },
        "packages": [program, *(entry(crate, checksums, module.licence_of(crate)) for crate in crates), *map(bundled, page)],
        "relationships": relations,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
