"""Any folder of face images with a `labels.csv` of real and fake."""
