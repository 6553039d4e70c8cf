"""The web app: presentation only, every number comes from `forecast`. Started by `forecast app CONFIG`."""
