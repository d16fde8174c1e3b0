"""When: Prefect flows, the command line, settings. Wires the rooms together; the only room that imports Prefect."""
