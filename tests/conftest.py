from __future__ import annotations

import os

from deployments.launch.local_ray import NO_CLUSTER

# Before any test imports ray: see deployments/launch/local_ray.py.
os.environ[NO_CLUSTER] = "0"
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
# Before any test imports torch: several workers of pytest-xdist share the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
