"""Files of a run: atomic writes, receipts, shards of nuclei, and zarr arrays with one writer a shard.

A task writes its outputs aside, renames them into place, and last writes its *receipt*: the fingerprint of
everything the result depends on, and size and checksum of every output. A receipt that agrees with the files is
the only proof that a task is done; the presence of a chunk proves nothing, because zarr leaves out chunks that
hold only zeros. Tasks do not sync: what a power cut takes, checksums miss, and the task is done again. The
driver syncs everything once, before the manifest says that the run is done.
"""

from __future__ import annotations

from slidebatch.store.arrays import (
    create_array,
    open_array,
    region_reader,
    stored_files,
    write_group,
    write_region,
)
from slidebatch.store.files import (
    clean_partial,
    digest,
    disk_faults,
    read_json,
    remove,
    sync_all,
    write_atomically,
    write_json,
    written_aside,
)
from slidebatch.store.receipts import checksum, lost_output, valid_receipt, write_receipt
from slidebatch.store.shards import read_instances, read_shard, write_shard
from slidebatch.store.spec import OutputSpec

__all__ = [
    "OutputSpec",
    "checksum",
    "clean_partial",
    "create_array",
    "digest",
    "disk_faults",
    "lost_output",
    "open_array",
    "read_instances",
    "read_json",
    "read_shard",
    "region_reader",
    "remove",
    "stored_files",
    "sync_all",
    "valid_receipt",
    "write_atomically",
    "write_group",
    "write_json",
    "write_receipt",
    "write_region",
    "write_shard",
    "written_aside",
]
