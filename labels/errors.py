"""Every error Stillhouse raises on purpose. Messages say what was wanted, what came and what to do next."""


class StillhouseError(Exception):
    """The base of the tree.

    StillhouseError
    ├── SettingsError    a profile, an environment variable or a flag is wrong
    ├── InputError       a log, catalogue, gold file or query can't be used
    ├── BusyError        another night holds the work folder, or a port is taken
    ├── LeaseError       a reviewer answers for a label that another one holds
    ├── EngineError      the teacher's or the student's engine failed
    ├── PreflightError   a training batch is not what it must be (invariant 7)
    ├── TrainingError    training can't go on: no finite loss, a full disk, a checkpoint of another configuration
    ├── ParityError      the merged model differs from its adapter
    ├── PublishError     a generation could not be written and checked
    └── ServiceError     Redis or the student's server can't be reached or started
    """


class SettingsError(StillhouseError):
    """A profile, an environment variable or a flag is wrong."""


class InputError(StillhouseError):
    """A log, catalogue, gold file or query can't be used."""


class BusyError(StillhouseError):
    """Another night holds the work folder, or a port is taken."""


class LeaseError(StillhouseError):
    """A reviewer answers for a label that another one holds."""


class EngineError(StillhouseError):
    """The teacher's or the student's engine failed."""


class PreflightError(StillhouseError):
    """A training batch is not what it must be."""


class TrainingError(StillhouseError):
    """Training can't go on: no finite loss, a full disk, a checkpoint of another configuration."""


class ParityError(StillhouseError):
    """The merged model differs from its adapter."""


class PublishError(StillhouseError):
    """A generation could not be written and checked."""


class ServiceError(StillhouseError):
    """Redis or the student's server can't be reached or started."""
