"""`dfdetect bench`: how fast the chained graph is, beside what else one might take.

What is compared is measured in turns in one process, so that a slow minute of the
machine strikes all of it; what cannot be (threads, start, memory) in processes of its
own.
"""
