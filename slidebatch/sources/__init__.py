"""What the inputs are: from files, folders, patterns, manifests and plates to a list of `Source`.

Only names and small metadata are read here, never pixels: a file whose content is broken is found by its
reader. `find` is the door. The order of sources and their ids depend on nothing but the names of what was
found.
"""

from __future__ import annotations

from slidebatch.sources.channels import Channels, called
from slidebatch.sources.find import find, proposed, regions_path
from slidebatch.sources.propose import Proposal
from slidebatch.sources.spec import Fault, Found, InputSpec

__all__ = ["Channels", "Fault", "Found", "InputSpec", "Proposal", "called", "find", "proposed", "regions_path"]
