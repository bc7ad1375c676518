from __future__ import annotations

import os

from deployments.launch.local_ray import NO_CLUSTER

# Before any test imports ray: see deployments/launch/local_ray.py.
os.environ[NO_CLUSTER] = "0"
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
