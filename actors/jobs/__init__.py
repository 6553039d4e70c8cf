"""Runs sent to a Ray cluster from another machine, through the Ray Jobs API of the cluster's head.

`packing` decides what travels, `head` talks to the cluster over HTTP, `submission` submits or finds the job
again, `following` waits for it, `start` is what runs on the cluster, `pulling` fetches the results.
"""
