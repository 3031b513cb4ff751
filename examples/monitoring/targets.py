"""Writes sidecars.json: where Prometheus finds the sidecars of this host. Run it again when some have come or gone."""

import json
import subprocess
from pathlib import Path


def main() -> None:
    """Ask `postern list`, and write what has metrics."""
    done = subprocess.run(["postern", "list", "-o", "json"], capture_output=True, text=True, check=True)
    targets = [
        {"targets": [f"127.0.0.1:{found['metricsPort']}"], "labels": {"app": found["appId"]}}
        for found in json.loads(done.stdout)
        if found["metricsPort"]
    ]
    Path("sidecars.json").write_text(json.dumps(targets, indent=1) + "\n", encoding="utf-8")
    print(f"sidecars.json: {len(targets)} sidecars")


if __name__ == "__main__":
    main()
