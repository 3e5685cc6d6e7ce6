"""The tree of errors. Every message says what was found, what was expected, and what to do.

SlidebatchError
├── ConfigError        the config or the command is wrong; nothing was started      exit 2
├── PlanError          the plan cannot fit or contradicts itself; nothing started   exit 2
├── ModelError         weights, card and network do not agree                       exit 2
├── LeaseError         another run holds the results folder                         exit 2
├── ResultsError       a results folder is foreign, broken or not finished          exit 1
├── InputError         one input is at fault: it is quarantined, the rest goes on   exit 2, of a run 3
└── EnvironmentFault   disk, mount, memory or device failed: the run stops          exit 1, resumable
    └── OutOfTime      its time limit is near: it stops in good order               exit 1, resumable
"""


class SlidebatchError(Exception):
    """Root of all errors that slidebatch raises on purpose."""

    exit_status = 1


class ConfigError(SlidebatchError):
    """The config or the command line is wrong; nothing was started."""

    exit_status = 2


class PlanError(SlidebatchError):
    """The plan cannot be carried out as it stands; nothing was started."""

    exit_status = 2


class ModelError(SlidebatchError):
    """Weights, model card and network do not agree, or a model is not known."""

    exit_status = 2


class LeaseError(SlidebatchError):
    """Another run holds the results folder."""

    exit_status = 2


class ResultsError(SlidebatchError):
    """A results folder is foreign, broken or not finished."""


class InputError(SlidebatchError):
    """One input (a slide, a field) is at fault. A run quarantines it and the rest goes on.

    Where a command can do nothing without that input, nothing was done: hence its status.
    """

    exit_status = 2


class EnvironmentFault(SlidebatchError):
    """The disk, a mount, the memory or a device failed. The run stops and can be resumed."""


class OutOfTime(EnvironmentFault):
    """The time limit is near. The run or the training stops in good order and can be resumed."""
