"""Overlap, suppression and fusion of instances: plain arrays in, indices or arrays out."""
