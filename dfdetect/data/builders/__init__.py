"""What the dataset builders share: tasks in, records and an account of them out."""
