"""The trajectory store: one run is one Zarr hierarchy that plain xarray reads as well.

`RunSpec` says what a run will hold, `RunWriter` streams it to disk, `open_stored` opens it for
labelled reads. Needs numpy, xarray and zarr, no torch.
"""

from looplens.store.schema import SCHEMA_VERSION, SITES
from looplens.store.spec import RunSpec
from looplens.store.stored import StoredRun, open_stored
from looplens.store.verifying import VerifyReport, verify
from looplens.store.writer import RunWriter

__all__ = [
    "SCHEMA_VERSION",
    "SITES",
    "RunSpec",
    "RunWriter",
    "StoredRun",
    "VerifyReport",
    "open_stored",
    "verify",
]
