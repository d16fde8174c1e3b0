"""query -> label: the log, retrieval, the prompt's facts, the engine, labelling."""
