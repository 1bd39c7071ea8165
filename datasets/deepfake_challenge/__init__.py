"""The deepfake challenge of ICIAP 2021: real and generated faces of seven sources."""
