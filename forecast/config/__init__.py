NIGHT_VARIABLE = "FORECAST_NIGHT"  # of the environment: the night, where the command does not say it
