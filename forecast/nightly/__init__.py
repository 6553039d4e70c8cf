"""Nightly runs: new checkpoints of watched training runs, scored and compared with the nights before."""
