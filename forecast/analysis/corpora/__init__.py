"""Setting 2: which pretraining corpus. Small runs decide between corpora as large runs would, or not."""
