"""Ray at the edge: connects to a cluster, runs scoring actors and hands them the units of a plan."""
