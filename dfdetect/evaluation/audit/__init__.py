"""What is wrong with a data set before any model sees it: leaks and shortcuts."""
