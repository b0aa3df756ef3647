"""The trajectory store: one run is one Zarr hierarchy that plain xarray reads as well.

`RunSpec` says what a run will hold, `RunWriter` streams it to disk, `open_stored` opens it for
labelled reads. Needs numpy, xarray and zarr, no torch.
"""

from looplens.store.format.schema import SCHEMA_VERSION, SITES
from looplens.store.format.spec import RunSpec
from looplens.store.reading.stored import StoredRun, open_stored
from looplens.store.reading.verifying import VerifyReport, verify
from looplens.store.writing.writer import RunWriter

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
