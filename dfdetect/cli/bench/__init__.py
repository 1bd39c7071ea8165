"""`dfdetect bench`: speed of the chained graph, compared with alternatives.

Cases are measured in turns in one process, so that a slow minute of the machine affects
all of them; what cannot be (threads, start, memory) is measured in separate processes.
"""
