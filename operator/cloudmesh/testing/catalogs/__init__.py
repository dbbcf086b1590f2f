"""The contract suite for catalogues: write a harness for your database, run all cases on it."""

from __future__ import annotations

import cloudmesh.testing.catalogs.cases_files
import cloudmesh.testing.catalogs.cases_links
import cloudmesh.testing.catalogs.cases_tree
import cloudmesh.testing.catalogs.cases_versions
import cloudmesh.testing.catalogs.cases_work  # noqa: F401 - they register their cases
from cloudmesh.testing.catalogs.case import CASES, Bench, Case, CaseFailed, Harness, case, need, refused, run_case

__all__ = ["CASES", "Bench", "Case", "CaseFailed", "Harness", "case", "need", "refused", "run_case"]
