"""A model server that speaks TensorFlow Serving's protocols, for laptops and tests.

`server.run` is the way in; TensorFlow Serving itself is what production runs. Words
that clients may match (error texts, names of metrics) are TensorFlow Serving's.
"""
