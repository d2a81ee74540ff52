"""mPnP-LLM: a modality is connected to a frozen language model at run time; and its rivals."""
