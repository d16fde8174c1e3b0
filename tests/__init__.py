"""A package, not a mere folder: ppi-python installs one of the same name, which would come first."""
