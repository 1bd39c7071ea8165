"""FaceForensics++ and DeepFakeDetection: frames of original and manipulated clips."""
