"""`python -m forecast`: the command line."""

from forecast.cli.main import main

main()
