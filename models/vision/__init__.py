"""Foundation models for images beside the classifiers: CLIP, SAM, dense tasks, detectors."""
