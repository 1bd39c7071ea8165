"""Challenge images and FaceForensics++ frames in one dataset, whole or cropped."""
