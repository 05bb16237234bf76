"""The teacher `hf:MODEL`: a model on this machine."""
