"""Cells computed lane by lane: a table of lanes, a few Triton kernels, one autograd function."""
