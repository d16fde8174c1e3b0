"""The review sample and its verdicts for teams that have a tool of their own: JSON lines, Label Studio, Argilla.

Each format is written and read in a file of its own; `read.read_verdicts` tells them apart. A hidden gold item's answer
goes into no tool that reviewers see; the JSON lines hold it, and are for machines.
"""
