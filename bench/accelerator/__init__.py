"""Where the arithmetic of a run happens: on the CPU, or on a GPU with CUDA.

It is no device of the study: a modelled board can be computed on a GPU of a server.
"""
